"""The property ``precision``: which decisions of the whole network bf16, fp16 and int8 change, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult, Table, UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.evaluation.context import Context
from stabilitykit_precision import FORMATS
from stabilitykit_precision.alone import Alone, alone, part_names
from stabilitykit_precision.decisions import NO_DECISION, Decisions, clean_logits, logits_in, mean_change
from stabilitykit_precision.integers import IntegerScheme
from stabilitykit_precision.network import LowPrecisionNetwork, in_format

REFERENCE = "decisions under low precision"
# Without --samples the parts together cost about this many forward passes an image.
BLOCKWISE_FORWARDS = 1.0
FEWEST = 8
FLIPS = [
    "format",
    "index",
    "class",
    "was",
    "became",
    "margin_before",
    "margin_after",
    "correct_before",
    "correct_after",
]
SUMMARY = [
    "format",
    "flips",
    "share",
    "accuracy_before",
    "accuracy_after",
    "mean_change",
    "smallest_margin_flipped",
    "largest_margin_flipped",
    "scheme",
]


@dataclass(frozen=True)
class _Measured:
    """One format: its network, the decisions of all images in it, and what each part alone does to some of them."""

    network: LowPrecisionNetwork
    after: Decisions
    change: np.ndarray
    alone: Alone | None


class Precision(Property):
    """The whole network and each of its parts in low precision. Options as in the schema."""

    name = "precision"

    def __init__(
        self,
        formats: str = "+".join(FORMATS),
        scales: str = "per-channel",
        ranges: str = "static",
        calibration: int = 64,
        samples: int | None = None,
    ) -> None:
        self.formats = str(formats).replace("+", " ").split()
        for word in self.formats:
            if word not in FORMATS:
                raise UsageProblem(
                    f"precision: unknown format {word!r}{did_you_mean(word, FORMATS)}; formats: {', '.join(FORMATS)}"
                )
        self.per_channel, self.static = scales == "per-channel", ranges == "static"
        self.calibration, self.samples = calibration, samples

    def evaluate(self, context: Context) -> PropertyResult:
        """``flips.FORMAT`` (share of decisions that change), ``accuracy.FORMAT``, and ``worst_part.FORMAT`` (the part
        that alone changes most); tables ``formats``, ``flips`` (every image) and ``parts``."""
        if context.model.replayed:
            raise CellProblem("recorded readouts hold no network to run in low precision: give the model itself")
        rows = np.arange(len(context.indices))
        before = self._before(context, rows)
        some = self._some(context)
        found: list[_Measured] = []
        notes: list[str] = []
        for format in dict.fromkeys(self.formats):
            try:
                network = self._network(context, format)
                logits = logits_in(context, network, rows, f"precision: {format}")
            except CellProblem as problem:
                notes.append(f"{format}: {problem}")
                continue
            parts = alone(context, network, some) if len(some) else None
            after = Decisions(logits, context.space)
            found.append(_Measured(network, after, mean_change(before.logits, logits), parts))
            notes += _left_in_float(network)
        if not found:
            raise CellProblem("no format could be measured: " + "; ".join(notes))
        result = PropertyResult([], notes=notes)
        for measured in found:
            result.measurements += self._measurements(context, before, measured, len(some))
            result.per_image[f"flips.{measured.network.format}"] = measured.after.classes != before.classes
        result.tables = {
            "formats": _summary(context, before, found),
            "flips": _flips(context, before, found),
            "parts": _parts(context, found, len(some)),
        }
        result.images = list(dict.fromkeys(int(row[1]) for row in result.tables["flips"].rows))[:12]
        return result

    def _before(self, context: Context, rows: np.ndarray) -> Decisions:
        """What the network decides as it was extracted; its own logits where readouts are others."""
        own = context.readout.kind != "probe"
        logits = np.asarray(context.trajectory.logits[-1]) if own else clean_logits(context, rows)
        return Decisions(logits, context.space)

    def _some(self, context: Context) -> np.ndarray:
        """Rows of the images that are run part by part: a seeded choice, ascending."""
        count, blocks = len(context.indices), context.model.num_blocks
        wanted = self.samples
        if wanted is None:
            # A part alone costs itself twice and what follows it: about half of the network.
            forwards = len(self.formats) * (blocks / 2 + 3)
            wanted = max(FEWEST, int(BLOCKWISE_FORWARDS * count / forwards))
        if not 0 < wanted < count:
            return np.arange(count)
        return np.sort(np.random.default_rng([context.seed, 7]).choice(count, wanted, replace=False))

    def _network(self, context: Context, format: str) -> LowPrecisionNetwork:
        scheme = IntegerScheme(self.per_channel, inputs=format == "int8", static=self.static)
        count = len(context.indices)
        rows = np.sort(np.random.default_rng([context.seed, 8]).permutation(count)[: self.calibration])
        with torch.inference_mode():
            examples = [inputs for _, inputs in context.batches(rows)]
        return in_format(context.model, format, scheme, examples)

    def _measurements(self, context: Context, before: Decisions, measured: _Measured, some: int) -> list[Measurement]:
        network, n = measured.network, len(context.indices)
        flipped = np.flatnonzero(measured.after.classes != before.classes)
        found = [
            Measurement(
                f"flips.{network.format}",
                len(flipped) / n,
                Kind.EXACT,
                n,
                "share",
                _witness(context, before, measured.after, flipped),
                REFERENCE,
                note=f"{len(flipped)} of {n} decisions of the whole network change; {network.scheme}",
            )
        ]
        if _comparable(context, before):
            found.append(
                Measurement(
                    f"accuracy.{network.format}",
                    measured.after.accuracy(context.labels),
                    Kind.EXACT,
                    n,
                    "share",
                    reference=REFERENCE,
                    note=f"{before.accuracy(context.labels):.6g} before",
                )
            )
        if measured.alone is not None:
            shares = measured.alone.flips.mean(axis=1)
            # Of parts that change as many decisions, the one that moves the logits most.
            moved = np.nan_to_num(np.nanmean(measured.alone.change, axis=1), nan=np.inf)
            worst = max(range(len(shares)), key=lambda p: (shares[p], moved[p], -p))
            name = part_names(context.model)[worst]
            found.append(
                Measurement(
                    f"worst_part.{network.format}",
                    float(shares[worst]),
                    Kind.EXACT,
                    some,
                    "share",
                    {"part": worst, "at": name},
                    REFERENCE,
                    note=f"decisions that change when {name} alone runs in the format, the most of "
                    f"{len(shares)} parts (stem, blocks, head)",
                )
            )
        return found

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Does the image that is named change its decision as reported? Shares rest on all images and are left open."""
        found: dict[str, float | str | None] = {}
        for m in result.measurements:
            format = m.name.partition(".")[2]
            if not m.name.startswith("flips.") or not m.witness.get("indices") or format not in FORMATS:
                continue
            row = context.rows_of(m.witness["indices"])[:1]
            (members,) = context.rerun.batches(row, len(context.indices), context.batch_size)
            place = int(np.flatnonzero(members == row[0])[0])
            classes = [
                int(Decisions(logits, context.space).classes[place])
                for logits in (
                    clean_logits(context, members),
                    logits_in(context, self._network(context, format), members),
                )
            ]
            names = [_name(context, number) for number in classes]
            if names != [m.witness.get("was"), m.witness.get("became")]:
                found[m.name] = (
                    f"image {m.witness['indices'][0]} is decided as {names[0]} and in {format} as {names[1]}"
                )
        return found


def _comparable(context: Context, decisions: Decisions) -> bool:
    return decisions.logits.shape[1] == len(context.dataset.class_names)


def _name(context: Context, number: int) -> str:
    """The class of an output, by name where the network's outputs are the dataset's classes."""
    if number == NO_DECISION:
        return "nothing (not finite)"
    if context.model.num_classes == len(context.dataset.class_names):
        return str(context.dataset.class_names[number])
    return f"output {number}"


def _witness(context: Context, before: Decisions, after: Decisions, flipped: np.ndarray) -> dict[str, Any]:
    """The flipped image that was decided most clearly."""
    if not len(flipped):
        return {}
    margins = before.margins(flipped)
    row = int(flipped[int(np.argmax(np.nan_to_num(margins, nan=-1.0)))])
    return {
        **context.describe_images([int(context.indices[row])]),
        "was": _name(context, int(before.classes[row])),
        "became": _name(context, int(after.classes[row])),
        "margin_before": float(np.max(np.nan_to_num(margins, nan=-1.0))),
    }


def _summary(context: Context, before: Decisions, found: list[_Measured]) -> Table:
    rows: list[list[Any]] = []
    comparable = _comparable(context, before)
    for measured in found:
        flipped = np.flatnonzero(measured.after.classes != before.classes)
        margins = before.margins(flipped)
        margins = margins[np.isfinite(margins)]
        change = measured.change[np.isfinite(measured.change)]
        rows.append(
            [
                measured.network.format,
                len(flipped),
                len(flipped) / len(context.indices),
                before.accuracy(context.labels) if comparable else None,
                measured.after.accuracy(context.labels) if comparable else None,
                float(change.mean()) if len(change) else None,
                float(margins.min()) if len(margins) else None,
                float(margins.max()) if len(margins) else None,
                measured.network.scheme,
            ]
        )
    return Table(SUMMARY, rows, f"The whole network in each format, {len(context.indices)} images")


def _flips(context: Context, before: Decisions, found: list[_Measured]) -> Table:
    names, rows = context.dataset.class_names, []
    comparable = _comparable(context, before)
    for measured in found:
        flipped = np.flatnonzero(measured.after.classes != before.classes)
        margins = zip(before.margins(flipped), measured.after.margins(flipped))
        for row, (margin, other) in zip(flipped, margins):
            was, became, label = int(before.classes[row]), int(measured.after.classes[row]), int(context.labels[row])
            rows.append(
                [
                    measured.network.format,
                    int(context.indices[row]),
                    str(names[label]),
                    _name(context, was),
                    _name(context, became),
                    float(margin) if np.isfinite(margin) else None,
                    float(other) if np.isfinite(other) else None,
                    was == label if comparable else None,
                    became == label if comparable else None,
                ]
            )
    return Table(FLIPS, rows, f"Every image whose decision changes; margins in {context.space}")


def _parts(context: Context, found: list[_Measured], some: int) -> Table:
    rows: list[list[Any]] = []
    names = part_names(context.model)
    for measured in found:
        if measured.alone is None:
            continue
        for number, name in enumerate(names):
            change = measured.alone.change[number]
            change = change[np.isfinite(change)]
            flips = measured.alone.flips[number]
            mean = float(change.mean()) if len(change) else None
            rows.append([measured.network.format, number, name, int(flips.sum()), float(flips.mean()), mean])
    columns = ["format", "part", "name", "flips", "share", "mean_change"]
    return Table(columns, rows, f"Each part alone in the format, the rest as it is, {some} images")


def _left_in_float(network: LowPrecisionNetwork) -> list[str]:
    left = network.in_float()
    if not left:
        return []
    listed = ", ".join(f"{part.kind} {part.name} ({part.what}: {part.why})" for part in left[:10])
    more = f" and {len(left) - 10} more" if len(left) > 10 else ""
    return [f"{network.format}: left in float: {listed}{more}"]
