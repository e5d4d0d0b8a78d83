"""Measure a finished run again, from model and data, and say which of its numbers stand."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import StabilityKitError, UsageProblem, catching, describe
from stabilitykit.base.progress import no_progress
from stabilitykit.evaluation.selection import Given
from stabilitykit.evaluation.subject import Subject
from stabilitykit.machine.determinism import make_deterministic
from stabilitykit.machine.device import choose_device
from stabilitykit.plugins.registry import Registry
from stabilitykit.review.again import PairAgain, measure_again
from stabilitykit.review.circumstances import Circumstances
from stabilitykit.review.files import RunFiles
from stabilitykit.review.judging import judged
from stabilitykit.review.plan import Plan, plan_of, with_recorded_options
from stabilitykit.review.verdicts import Uncovered, Verdict, Verification
from stabilitykit.runs.folder import Cell
from stabilitykit.runs.provenance import provenance
from stabilitykit.search.device.where import searchable, searching_on

__all__ = ["Uncovered", "Verdict", "Verification", "verify"]


def verify(
    run: str | Path,
    *,
    device: str = "auto",
    relative: float | None = None,
    checkpoint: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    progress: Callable[..., Iterator[Any]] = no_progress,
    trust: bool = False,
    witnesses_only: bool = False,
    objects: Mapping[str, Given] | None = None,
) -> Verification:
    """Verdicts on everything that the run folder ``run`` holds.

    Weights and images are compared with the fingerprints of the run first: a changed weight or pixel turns every
    number of its cells red, even where the value happens to survive. Then every property is measured again from model
    and data, searches included, and every leaf of its cell is compared: values, witnesses, tables, notes, record. On
    the machine and by the version that made the run they are equal to the last bit; another machine may move them by
    the recorded drift. Beside that, witnesses are recomputed one by one, by code that shares nothing with the
    searches. run.json, the cells and measurements.csv are compared with each other. What is not recomputed is named
    in ``uncovered``.

    Arguments:
        device: where the network is run; "auto" is the device of the run.
        relative: relative tolerance; None: none on the machine of the run, the drift between machines elsewhere.
        checkpoint: where the weights of a model are now, by label or name ("": of all).
        data: where the data of a dataset is now, likewise.
        trust: build also models that run code named in the run, or download.
        witnesses_only: recompute witnesses, and measure nothing again; the time is then that of a few batches.
        objects: models, datasets and properties that were handed over in Python, by their labels in the run.

    Returns:
        A :class:`Verification`; iterating over it gives the verdicts.

    Raises:
        UsageProblem: ``run`` is no run folder or damaged, or it names what cannot be built.
    """
    registry = registry or Registry.load()
    files = RunFiles.read(run)
    cells = files.parsed
    plan = plan_of(
        files.info.get("request"),
        registry,
        schema=files.schema,
        checkpoint=checkpoint or {},
        data=data or {},
        trust=trust,
        objects=objects,
    )
    target = choose_device(device if device != "auto" else plan.device)
    make_deterministic(plan.settings.seed)
    today = provenance(registry.host, target, plan.settings.seed)
    circumstances = Circumstances.of(files.schema, files.provenance, today, relative)
    if circumstances.other_code:
        plan = with_recorded_options(plan, cells.values())
    with searching_on(searchable(target.type, target.index)):
        pairs = measured_pairs(plan, cells, target, circumstances, progress, witnesses_only)
    return judged(files, cells, plan, pairs, circumstances, today)


def measured_pairs(
    plan: Plan,
    cells: Mapping[str, Cell],
    device: Any,
    circumstances: Circumstances,
    progress: Callable[..., Iterator[Any]] = no_progress,
    witnesses_only: bool = False,
) -> dict[tuple[str, str], PairAgain | str]:
    """Every pair of ``plan`` measured again for the ``cells`` (by file name) of a run, or why it could not be built.

    Raises:
        UsageProblem: the only pair cannot be built.
    """
    return {key: _pair_again(plan, key, cells, device, circumstances, progress, witnesses_only) for key in _pairs(plan)}


def _pairs(plan: Plan) -> list[tuple[str, str]]:
    return [(model, dataset) for model in plan.models for dataset in plan.datasets]


def _pair_again(
    plan: Plan,
    key: tuple[str, str],
    cells: Mapping[str, Cell],
    device: Any,
    circumstances: Circumstances,
    progress: Callable[..., Iterator[Any]],
    witnesses_only: bool,
) -> PairAgain | str:
    """The pair measured again, or why it cannot be; a StabilityKitError where it is the only one."""
    stored = {cell.property: cell for cell in cells.values() if (cell.model, cell.dataset) == key}
    if not any(cell.ok for cell in stored.values()):
        return "no cell of it is finished"
    model, dataset = plan.models[key[0]], plan.datasets[key[1]]
    make_deterministic(plan.settings.seed)
    with catching() as caught, contextlib.redirect_stdout(sys.stderr):  # whatever a plugin raises, the others go on
        subject = Subject(model, dataset, plan.settings, device, None, plan.probe, progress)
    if caught.error is not None:
        why = describe(caught.error)
        reason = f"cannot be rebuilt: {why} (moved? --data, --checkpoint; paths count from this folder)"
        if isinstance(caught.error, StabilityKitError) and len(_pairs(plan)) == 1:
            raise UsageProblem(f"{key[0]} on {key[1]} {reason}") from caught.error
        return reason
    try:
        return measure_again(subject, plan, stored, circumstances, witnesses_only)
    finally:
        subject.close()
