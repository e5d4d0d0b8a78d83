"""The cells of one (model, dataset) pair of a finished run, measured again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from stabilitykit.base.errors import CellProblem, catching, describe
from stabilitykit.base.results import PropertyResult, to_plain
from stabilitykit.base.watch import task, watch
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.evaluation.acceptance import rechecked, stored_form
from stabilitykit.evaluation.cautions import cautions_after, cautions_before
from stabilitykit.evaluation.chain_check import certify, marked
from stabilitykit.evaluation.context import Context
from stabilitykit.evaluation.decided import decided
from stabilitykit.evaluation.extraction_effect import ExtractionEffect
from stabilitykit.evaluation.job import COMPUTES
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.readout_fit import stated
from stabilitykit.evaluation.rerun import Rerun, witness_images
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.subject import Subject
from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.review.circumstances import Circumstances, Tolerance
from stabilitykit.review.plan import Plan
from stabilitykit.runs.folder import Cell

Values = dict[str, "float | str | None"]
# Settings in a record that decide a number. They come from run.json's request when a run is measured again.
SETTINGS = ("n", "seed", "limit", "readout", "space", "batch_size", "extract_dtype", "channels_last", "compile")


@dataclass
class Remeasured:
    """One cell measured again.

    Attributes:
        cell: as it would be written today; None where it was not measured (see ``trouble``, or only witnesses).
        witnesses: measurement -> its value recomputed from the witness stored in the run, without any search.
        trouble: why the cell could not be measured; empty when it was.
        rounded: the readouts were searched as float32 copies, which witnesses are not computed from.
    """

    cell: Cell | None = None
    witnesses: Values = field(default_factory=dict)
    trouble: str = ""
    rounded: bool = False


@dataclass
class PairAgain:
    """A pair measured again.

    Attributes:
        record, certificate, warnings: as run.json keeps them; ``certificate`` is None where only witnesses are
            recomputed.
        former: fingerprints that the model of ``record`` had before how they are made changed.
        dataset: the dataset of today.
        changed: what differs between the run's records and model and data of today, by property label; where
            something does, nothing is measured.
        cells: by property label.
        decisions: what the network decides about every image, as JSON; None where only witnesses are recomputed, or
            where it cannot be told.
    """

    record: dict[str, Any]
    certificate: dict[str, Any] | None
    warnings: list[str]
    former: tuple[str, ...]
    dataset: Dataset
    changed: dict[str, str]
    cells: dict[str, Remeasured]
    decisions: dict[str, Any] | None = None


def measure_again(
    subject: Subject, plan: Plan, stored: Mapping[str, Cell], circumstances: Circumstances, witnesses_only: bool
) -> PairAgain:
    """Measure every finished cell of ``stored`` (by property label) again, in the order of ``plan``.

    A property is given the results of today for those it needs, so that one altered number condemns one cell only.
    With ``witnesses_only`` nothing is measured: it is given the stored results, and only witnesses are recomputed.
    """
    record = subject.record()
    if not witnesses_only:
        subject.certificate = certify(subject)
    warnings = cautions_before(subject)
    former = tuple(subject.model.former_fingerprints())
    changed = {label: changes(record, former, cell.record) for label, cell in stored.items()}
    finished = [c for c in plan.properties if c.label in stored and stored[c.label].ok and not changed[c.label]]
    results: dict[str, PropertyResult] = {}
    if witnesses_only:
        for choice in finished:
            results.setdefault(choice.name, stored[choice.label].result)  # type: ignore[arg-type]
    found: dict[str, Remeasured] = {}
    effect = ExtractionEffect(subject, plan.properties) if subject.settings.extraction.faster else None
    try:
        for choice in finished:
            one = Remeasured()
            with catching() as caught:  # whatever a property raises, the other cells are verified
                if stored[choice.label].slug in watch().lost:
                    raise CellProblem(watch().lost[stored[choice.label].slug]["message"])
                make_deterministic(subject.settings.seed)
                with task("cell", stored[choice.label].slug, f"the verification of {choice.label}"):
                    subject.require_intact()
                    prop: Property = choice.make()
                    if not witnesses_only:
                        one.cell = _measured(subject, prop, choice, results, record, effect)
                        results.setdefault(choice.name, one.cell.result)  # type: ignore[arg-type]
                        known = (
                            subject.known_trajectory
                        )  # of a property that needs none, none is made: its warnings were not given
                        one.rounded = known is not None and known.rounded
                    rerun = _rerun(subject, stored[choice.label], circumstances.witness_tolerance(one.rounded))
                    context = replace(subject.context(choice, results), rerun=rerun)
                    one.witnesses = _recomputed(prop, context, stored[choice.label], witnesses_only)
            if caught.error is not None:
                one.trouble = f"the recomputation raised {describe(caught.error)}"
            damage = subject.what_changed()
            if damage:
                one.trouble = f"the recomputation modified {damage}"
                subject.repair(f"the verification of {choice.label}")
            found[choice.label] = one
    finally:
        if effect is not None:
            effect.close()
    warnings += [text for text in cautions_after(subject) if text not in warnings]
    certificate = None if witnesses_only else dict(subject.certificate or {})
    again = PairAgain(record, certificate, warnings, former, subject.dataset, changed, found)
    if not witnesses_only:
        with catching():  # what is not known is said to be not recomputed
            decisions = decided(subject)
            again.decisions = None if decisions is None else decisions.to_json()
    return again


def changes(record: Mapping[str, Any], former: Sequence[str], recorded: Mapping[str, Any]) -> str:
    """What differs between the run's record and that of model and data of today; empty when nothing does."""
    parts = []
    model, dataset = recorded.get("model"), recorded.get("dataset")
    fingerprint = model.get("fingerprint") if isinstance(model, Mapping) else None
    if fingerprint != record["model"]["fingerprint"] and fingerprint not in former:
        parts.append("the model's weights or preprocessing changed")
    if not isinstance(dataset, Mapping) or dataset.get("fingerprint") != record["dataset"]["fingerprint"]:
        parts.append("the dataset's images or labels changed")
    parts += [
        f"{key} was {recorded[key]} when it was measured and is {record[key]} now (run.json, data)"
        for key in SETTINGS
        if key in recorded and recorded[key] != record[key]
    ]
    return " and ".join(parts)


def _measured(
    subject: Subject,
    prop: Property,
    choice: Choice,
    results: Mapping[str, PropertyResult],
    record: Mapping[str, Any],
    effect: ExtractionEffect | None,
) -> Cell:
    """The cell as `evaluate` makes it."""
    context = subject.context(choice, results)
    result = rechecked(prop, context, stored_form(prop.evaluate(context), len(context.indices)), choice)
    if effect is not None:
        result = effect.stated(result, choice)
    result = marked(stated(result, subject), subject.certificate)
    return Cell(
        subject.model_choice.label,
        subject.dataset_choice.label,
        choice.label,
        result=result,
        record={**record, "property": choice.record(), COMPUTES: subject.computes()},
        plugin=choice.plugin,
        requested=choice.requested,
    )


def _rerun(subject: Subject, stored: Cell, tolerance: Tolerance) -> Rerun:
    """Runs the images that the witnesses of ``stored`` name together."""
    assert stored.result is not None
    images = [index for m in stored.result.measurements for index in witness_images(m)]
    return Rerun(np.flatnonzero(np.isin(subject.indices, images)), tolerance=tolerance)


def _recomputed(prop: Property, context: Context, stored: Cell, witnesses_only: bool) -> Values:
    """What the property recomputes from the witnesses of ``stored`` and then, where that is wanted, from all images."""
    assert stored.result is not None
    found = dict(prop.verify(context, copy.deepcopy(stored.result)))
    if not witnesses_only:
        more = prop.verify_sample(context, copy.deepcopy(stored.result))
        found |= {name: value for name, value in more.items() if found.get(name) is None}
    return {str(k): v if v is None or isinstance(v, str) else float(v) for k, v in to_plain(found).items()}
