"""The property ``blocks``: which blocks matter, and the certificate that they are the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit import Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.base.results import to_plain
from stabilitykit.dynamics.decisions import decisions_along_depth, prediction_depth
from stabilitykit.evaluation.context import Context

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import Model, State

COLUMNS = [
    "block",
    "name",
    "skip",
    "accuracy",
    "agrees_with_final",
    "decided",
    "closest",
    "index_i",
    "index_j",
    "step",
    "relative_change",
    "left_out_changes",
    "left_out_moves",
    "kind",
    "blind",
]


LEFT_OUT = "Veit, Wilber and Belongie 2016: one block left out at a time"
SETTLED = "the readout's decision stays the final one"


class Blocks(Property):
    """One row per depth t: what the readout g says after block t - 1 and what that block did.

    Columns: ``accuracy`` of g(h_t); ``agrees_with_final``, share of images already decided as at the end;
    ``decided``, share that stays so from here on; ``closest``, smallest distance between images of different
    class at this depth, with the two images; ``step``, median distance between g(h_{t-1}) and g(h_t);
    ``relative_change``, median of ||h_t - h_{t-1}|| / ||h_{t-1}||; ``left_out_changes``, share of final
    decisions that change when this block alone is left out (phi replaced by the identity);
    ``left_out_moves``, median distance the final readout then moves. The last three on a sample, and only where the
    state keeps its shape: a transition cannot be left out. ``kind``: residual, equal or transition. ``blind``: all
    readouts coincide at this depth, at which no image counts as decided.
    """

    name = "blocks"

    def __init__(self, sample: int | None = None, images: int = 10_000) -> None:
        self.sample = sample
        self.images = images

    def evaluate(self, context: Context) -> PropertyResult:
        """Measure, and keep the certificate beside the numbers."""
        certificate = self._certificate(context)
        trajectory, model = context.trajectory, context.model
        chosen = decisions_along_depth(trajectory)
        decided = prediction_depth(chosen, trajectory.seeing)
        size = context.sample_size(self.sample)
        response = _response(context, _sample(len(trajectory), size, context.seed))
        comparable = trajectory.num_classes == len(context.dataset.class_names)
        names, skips = context.depth_names, _skips(model)
        rows: list[list[Any]] = []
        for t in range(trajectory.depth + 1):
            step = None
            if t:
                step = _median(
                    np.linalg.norm(
                        np.asarray(trajectory.values[t], dtype=np.float64)
                        - np.asarray(trajectory.values[t - 1], dtype=np.float64),
                        axis=1,
                    )
                )
            closest = _closest(context, t)
            rows.append(
                to_plain(
                    [
                        t,
                        names[t],
                        skips[t - 1] if t else "",
                        float((chosen[t] == context.labels).mean()) if comparable else None,
                        float((chosen[t] == chosen[-1]).mean()),
                        float((decided <= t).mean()),
                        *closest,
                        step,
                        *(response[t - 1] if t else (None, None, None)),
                        model.steps[t - 1] if t else "",
                        t in trajectory.blind,
                    ]
                )
            )
        count = len(trajectory)
        result = PropertyResult([], {"blocks": Table(COLUMNS, rows, "What each block does (0: before any block)")})
        result.measurements.append(
            Measurement(
                "certificate.max_abs_difference",
                certificate["max_abs_difference"],
                Kind.EXACT,
                certificate["batch_size"],
                "logits and states",
                {"certificate": certificate},
                "the network's own forward pass",
                note="chained blocks and tail against the plain forward pass at equal batch size; 0 is bit for bit",
            )
        )
        result.measurements.append(
            Measurement(
                "prediction_depth.median",
                float(np.median(decided)),
                Kind.EXACT,
                count,
                "blocks",
                note="; ".join(filter(None, [f"first depth from which {SETTLED}", trajectory.left_out(names)])),
                reference="Baldock, Maennel and Neyshabur 2021, with this readout",
            )
        )
        result.measurements.append(_weightiest(rows, size))
        result.tables["prediction_depth"] = _depth_table(context, decided, chosen, self.images)
        if trajectory.blind:
            result.notes.append(trajectory.left_out(names))
        result.notes += [f"certificate: {reason}" for reason in certificate.get("vacuous", ())]
        late = np.argsort(-decided, kind="stable")[:6]
        result.images = [int(context.indices[i]) for i in late]
        return result

    def _certificate(self, context: Context) -> dict[str, Any]:
        """What the model said of itself before anything was measured; asked here where that was not done."""
        if "max_abs_difference" in context.certificate:
            return dict(context.certificate)
        rows = np.arange(min(8, len(context.indices)))
        _, inputs = next(context.batches(rows))
        certificate: dict[str, Any] = to_plain(dict(context.model.certify(inputs)))
        return certificate


def _weightiest(rows: list[list[Any]], n: int) -> Measurement:
    """The block without which most decisions change; undefined where none can be left out."""
    column, name = COLUMNS.index("left_out_changes"), "weightiest_block.left_out_changes"
    matter = {t: row[column] for t, row in enumerate(rows) if row[column] is not None}
    if not matter:
        note = "undefined: no step keeps the shape of the state, so none can be left out"
        return Measurement(name, None, Kind.EXACT, n, "share", reference=LEFT_OUT, note=note)
    block = max(matter, key=lambda t: (matter[t], -t))
    note = "share of decisions that change when this block alone is left out; the largest over the blocks"
    if len(matter) < len(rows) - 1:
        note += f" that keep the shape of the state, {len(matter)} of {len(rows) - 1}"
    called = rows[block][COLUMNS.index("name")]
    witness = {"block": block, "name": called, "at": called}
    return Measurement(name, matter[block], Kind.EXACT, n, "share", witness, LEFT_OUT, note=note)


def _response(context: Context, rows: np.ndarray) -> list[tuple[float | None, float | None, float | None]]:
    """Per block: (median relative change of the state, share of decisions changed, median move) when left out.

    A block left out costs what follows it: its successor takes the true state before it. Nones where that state is of
    another shape than the one after.
    """
    import torch

    from stabilitykit.dynamics.space import to_space

    model, count = context.model, context.model.num_blocks
    change: list[list[np.ndarray]] = [[] for _ in range(count)]
    moved: list[list[np.ndarray]] = [[] for _ in range(count)]
    flipped: list[list[np.ndarray]] = [[] for _ in range(count)]
    with torch.inference_mode():
        for _, inputs in context.batches(rows):
            states: list[State] = [model.initial_state(inputs)]
            for t in range(count):
                states.append(model.block(t, states[-1]))
            final = context.readout.logits(count, states[-1]).float().cpu().numpy()
            for t in range(count):
                if model.steps[t] == "transition":
                    continue
                state = model.left_out(t, states[t])
                if _shapes(state) != _shapes(states[t + 1]):
                    continue
                change[t].append(_relative(state, states[t + 1]))
                for later in range(t + 1, count):
                    state = model.block(later, state)
                other = context.readout.logits(count, state).float().cpu().numpy()
                flipped[t].append(other.argmax(axis=1) != final.argmax(axis=1))
                moved[t].append(np.linalg.norm(to_space(other, context.space) - to_space(final, context.space), axis=1))
    return [
        (_median(np.concatenate(c)), float(np.concatenate(f).mean()), _median(np.concatenate(m)))
        if c
        else (None, None, None)
        for c, f, m in zip(change, flipped, moved)
    ]


def _shapes(state: State) -> list[tuple[int, ...]]:
    from stabilitykit.dynamics.model import state_parts

    return [tuple(part.shape) for part in state_parts(state)]


def _relative(before: State, after: State) -> np.ndarray:
    from stabilitykit.dynamics.readout import state_vector

    x, y = state_vector(before).double(), state_vector(after).double()
    norm = x.norm(dim=1).clamp_min(1e-300)
    return ((y - x).norm(dim=1) / norm).cpu().numpy()


def _closest(context: Context, t: int) -> tuple[float | None, int | None, int | None]:
    from stabilitykit.search import closest_pair

    if len(np.unique(context.labels)) < 2:
        return None, None, None
    found = closest_pair(context.trajectory.values[t : t + 1], context.labels, "min")
    return found.value, int(context.indices[found.first]), int(context.indices[found.second])


def _skips(model: Model) -> list[str]:
    """How the skip of each block runs, where the model says so; of a course what its steps are, where not residual."""
    run = getattr(model, "run", None)
    kinds = [""] * model.num_blocks if run is None else [block.kind for block in run.blocks]
    if model.one_readout:
        return kinds
    return [kind if step == "residual" else step for kind, step in zip(kinds, model.steps)]


def _depth_table(context: Context, decided: np.ndarray, chosen: np.ndarray, rows: int) -> Table:
    names = context.dataset.class_names
    return Table(
        ["index", "class", "prediction_depth", "final_decision"],
        [
            [int(context.indices[i]), str(names[int(context.labels[i])]), int(decided[i]), int(chosen[-1, i])]
            for i in range(min(rows, len(decided)))
        ],
        "Depth from which each image is decided",
    )


def _sample(count: int, size: int, seed: int) -> np.ndarray:
    if count <= size:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:size])


def _median(values: np.ndarray) -> float:
    return float(np.median(values))
