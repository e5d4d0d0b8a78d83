"""Recompute every witness of a finished run in float64, from model and data, and say which numbers stand."""

from __future__ import annotations

import builtins
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import CellProblem, UsageProblem, catching, describe
from stabilitykit.base.progress import no_progress
from stabilitykit.base.results import PropertyResult, to_plain
from stabilitykit.base.watch import task, watch
from stabilitykit.evaluation.context import Context
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.selection import choose
from stabilitykit.evaluation.subject import Subject
from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.plugins.registry import Registry
from stabilitykit.review.consistency import changed_rows, inconsistent, missing_cells
from stabilitykit.review.rebuilding import RecordedRequest
from stabilitykit.runs.folder import Cell, cells_by_pair, load_run

# A recomputation on the machine and batch size of the run is bit-equal; other hardware moves logits by about 1e-6.
RELATIVE_TOLERANCE = 1e-9
ABSOLUTE_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Verdict:
    """Whether one number stands.

    ``status``: ``"stands"``, ``"fails"`` (recomputed value differs, or model, data or files changed),
    ``"not recomputed"`` (undefined, or left out by ``witnesses_only``), ``"failed cell"``.
    """

    model: str
    dataset: str
    property: str
    measurement: str
    status: str
    reported: float | None = None
    recomputed: float | None = None
    message: str = ""

    @builtins.property  # `property` is a field here
    def difference(self) -> float | None:
        if self.reported is None or self.recomputed is None:
            return None
        return 0.0 if self.reported == self.recomputed else abs(self.reported - self.recomputed)


def verify(
    run: str | Path,
    *,
    device: str = "auto",
    relative: float = RELATIVE_TOLERANCE,
    absolute: float = ABSOLUTE_TOLERANCE,
    checkpoint: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    progress: Callable[..., Iterator[Any]] = no_progress,
    trust: bool = False,
    witnesses_only: bool = False,
) -> list[Verdict]:
    """Verdicts on all measurements of the run folder ``run``.

    Weights and images are compared with the fingerprints of the run first: a changed weight or pixel turns every
    number of its cells red, even where the value happens to survive. Then witnesses are recomputed, then what rests
    on all images (accuracy, medians, lower bounds), and measurements.csv is compared with the cells.

    Args:
        checkpoint: where the weights of a model are now, by label or name ("": of all).
        data: where the data of a dataset is now, likewise.
        trust: build also models that run code named in the run, or download (see :func:`choose_recorded`).
        witnesses_only: leave out what needs all images; the time is then that of a few batches.

    Raises:
        UsageProblem: ``run`` is no run folder, or its models or data cannot be built any more.
    """
    info, cells = load_run(run)
    registry = registry or Registry.load()
    request = RecordedRequest.read(run, info, device)
    groups = cells_by_pair(cells)
    verdicts: list[Verdict] = []
    weights = _moved("model", checkpoint or {}, [model for model, _ in groups])
    places = _moved("dataset", data or {}, [dataset for _, dataset in groups])
    for (model, dataset), members in groups.items():
        verdicts += _verify_pair(
            registry,
            model,
            dataset,
            members,
            request,
            relative,
            absolute,
            weights,
            places,
            progress,
            trust,
            witnesses_only,
        )
    if info.get("status") == "complete":
        verdicts += [_verdict(c, name, "fails", message=message) for c, name, message in changed_rows(run, cells)]
        verdicts += [
            Verdict(*key, "", "fails", message="its file is missing in cells/") for key in missing_cells(info, cells)
        ]
    return verdicts


def _verify_pair(
    registry: Registry,
    model: str,
    dataset: str,
    cells: list[Cell],
    request: RecordedRequest,
    relative: float,
    absolute: float,
    weights: Mapping[str, str],
    places: Mapping[str, str],
    progress: Callable[..., Iterator[Any]],
    trust: bool,
    witnesses_only: bool,
) -> list[Verdict]:
    alive = [c for c in cells if c.ok]
    verdicts = [_verdict(c, "", "failed cell", message=c.error.get("message", "")) for c in cells if not c.ok]
    if not alive:
        return verdicts
    with catching() as caught:  # whatever a plugin raises, the other pairs are verified
        pair = request.build(
            registry,
            model,
            dataset,
            model_options={"checkpoint": weights[model]} if model in weights else None,
            dataset_options={_path_option(registry, dataset): places[dataset]} if dataset in places else None,
            progress=progress,
            trust=trust,
        )
    if caught.error is not None:
        why = describe(caught.error)
        reason = f"cannot be rebuilt: {why} (moved? --data, --checkpoint; paths count from this folder)"
        return verdicts + [
            _verdict(c, m.name, "fails", m.value, None, reason)
            for c in alive
            for m in (c.result.measurements if c.result else [])
        ]
    try:
        results = {str(_part(c, "property").get("name")): c.result for c in reversed(alive)}
        for cell in alive:
            verdicts += _verify_cell(
                registry, pair, cell, results, _changed(pair, cell), relative, absolute, witnesses_only
            )
    finally:
        pair.close()
    return verdicts


def _moved(kind: str, given: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    """Label -> new path; ``given`` names labels, or components, or "" for all; UsageProblem for an unknown name."""
    found: dict[str, str] = {}
    for name, path in given.items():
        meant = [label for label in labels if name in ("", label, label.partition(":")[0])]
        if not meant:
            raise UsageProblem(f"the run has no {kind} {name}; it has {', '.join(dict.fromkeys(labels))}")
        found |= dict.fromkeys(meant, path)
    return found


def _path_option(registry: Registry, dataset: str) -> str:
    """Name of the option of a dataset that says where its files are."""
    component = choose(registry, "dataset", dataset).component
    name = next((o.name for o in component.options if o.type == "path"), None) if component else None
    if name is None:
        raise UsageProblem(f"dataset {dataset} is not read from a path")
    return name


def _changed(pair: Subject, cell: Cell) -> str:
    """What differs between the run's record and the model and data of today; empty when nothing does."""
    parts = []
    if not pair.answers_to(_part(cell, "model").get("fingerprint")):
        parts.append("the model's weights or preprocessing changed")
    if pair.dataset.fingerprint() != _part(cell, "dataset").get("fingerprint"):
        parts.append("the dataset's images or labels changed")
    settings = pair.settings
    asked = {"n": len(pair.indices), "seed": settings.seed, "limit": settings.limit, **settings.extraction.record()}
    parts += [
        f"{key} was {cell.record[key]} when it was measured and is {value} now (run.json, data)"
        for key, value in asked.items()
        if key in cell.record and cell.record[key] != value
    ]
    return " and ".join(parts)


def _verify_cell(
    registry: Registry,
    pair: Subject,
    cell: Cell,
    results: Mapping[str, Any],
    changed: str,
    relative: float,
    absolute: float,
    witnesses_only: bool,
) -> list[Verdict]:
    assert cell.result is not None
    recomputed: dict[str, float | str | None] = {}
    if not changed:
        with catching() as caught:
            if cell.slug in watch().lost:
                raise CellProblem(watch().lost[cell.slug]["message"])
            make_deterministic(pair.settings.seed)
            with task("cell", cell.slug, f"the verification of {cell.property}"):
                pair.require_intact()
                choice = choose(registry, "property", cell.property)
                recomputed = _recompute(choice.make(), pair.context(choice, results), cell.result, witnesses_only)
        if caught.error is not None:
            changed = f"the recomputation raised {describe(caught.error)}"
        damage = pair.what_changed()
        if damage:
            changed = f"the recomputation modified {damage}"
            pair.repair(f"the verification of {cell.property}")
    verdicts = []
    for m in cell.result.measurements:
        value = recomputed.pop(m.name, None)
        wrong = changed or (value if isinstance(value, str) else "") or inconsistent(pair.dataset, m)
        number = None if isinstance(value, str) else value
        if wrong:
            verdicts.append(_verdict(cell, m.name, "fails", m.value, number, wrong))
        elif number is None and m.value is None:
            verdicts.append(_verdict(cell, m.name, "not recomputed", message="undefined: " + m.note))
        elif number is None and witnesses_only:
            verdicts.append(_verdict(cell, m.name, "not recomputed", m.value, message="rests on all images"))
        elif number is None:
            verdicts.append(
                _verdict(
                    cell,
                    m.name,
                    "not recomputed",
                    m.value,
                    message=f"property {cell.property} offers no recomputation of it",
                )
            )
        elif m.value is None:
            verdicts.append(_verdict(cell, m.name, "fails", None, number, "reported as undefined"))
        elif number == m.value or math.isclose(number, m.value, rel_tol=relative, abs_tol=absolute):
            verdicts.append(_verdict(cell, m.name, "stands", m.value, number))
        else:
            verdicts.append(_verdict(cell, m.name, "fails", m.value, number, "the recomputation gives another value"))
    return verdicts + [
        _verdict(cell, name, "fails", message=text) for name, text in recomputed.items() if isinstance(text, str)
    ]


def _recompute(
    prop: Property, context: Context, result: PropertyResult, witnesses_only: bool
) -> dict[str, float | str | None]:
    """What the property recomputes from witnesses and then, where that leaves numbers open, from all images."""
    found = dict(prop.verify(context, copy.deepcopy(result)))
    if not witnesses_only and any(m.value is not None and found.get(m.name) is None for m in result.measurements):
        again = prop.verify_sample(context, copy.deepcopy(result))
        found |= {name: value for name, value in again.items() if found.get(name) is None}
    return {str(k): v if v is None or isinstance(v, str) else float(v) for k, v in to_plain(found).items()}


def _part(cell: Cell, name: str) -> Mapping[str, Any]:
    found = cell.record.get(name)
    return found if isinstance(found, Mapping) else {}


def _verdict(
    cell: Cell,
    measurement: str,
    status: str,
    reported: float | None = None,
    recomputed: float | None = None,
    message: str = "",
) -> Verdict:
    return Verdict(cell.model, cell.dataset, cell.property, measurement, status, reported, recomputed, message)
