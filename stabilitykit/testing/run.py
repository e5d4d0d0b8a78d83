"""A small finished run, for plugins that read runs. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.results import Kind, Measurement, PropertyResult, Table
from stabilitykit.plugins.listening import Event
from stabilitykit.runs.folder import Cell, load_run
from stabilitykit.runs.recorder import FolderRecorder

IMAGES, CLASSES, DEPTHS = 6, 3, 4
PLUGIN = {"distribution": "tiny", "version": "1"}


def tiny_result() -> PropertyResult:
    """A result with a measurement of every kind, one without a value and one that is infinite; a table, a column."""
    measurements = [
        Measurement(
            name=f"number.{kind.name.lower()}",
            value=0.5 + number,
            kind=kind,
            n=IMAGES,
            unit="probability (l2)",
            witness={"indices": [0, 4], "classes": ["class0", "class1"], "block": 1, "distances": [1.5, 0.5, 1.0, 2.0]},
            reference="Definition 1",
        )
        for number, kind in enumerate(Kind)
    ]
    measurements += [
        Measurement("number.undefined", None, Kind.EXACT, IMAGES, reference="Definition 1", note="no pair of images"),
        Measurement("number.infinite", float("inf"), Kind.UPPER, IMAGES, reference="Definition 1"),
    ]
    table = Table(["block", "mean"], [[t, 0.25 * t] for t in range(DEPTHS)], "means along depth")
    return PropertyResult(measurements, {"depth": table}, images=[0, 4], per_image={"score": [0.5] * IMAGES})


def tiny_run(
    folder: Path,
    results: Mapping[str, PropertyResult | str] | None = None,
    *,
    model: str = "tiny-model",
    dataset: str = "tiny-dataset",
    class_prefix: str = "class",
    error: str = "no pair of images of different classes",
) -> Path:
    """Write a run of 6 images of 3 classes and 3 blocks into ``folder``, which is new or empty.

    Arguments:
        results: property -> its result, or the message of its failure. Default: ``measured`` with
            :func:`tiny_result`, and ``broken``, which failed.
        model, dataset, class_prefix: names that stand in the run.
        error: message of the failed cell of the default.

    Returns:
        ``folder``.

    Raises:
        UsageProblem: ``folder`` holds something.
    """
    found: dict[str, PropertyResult | str] = {"measured": tiny_result(), "broken": error}
    found = found if results is None else dict(results)
    names = [f"{class_prefix}{c}" for c in range(CLASSES)]
    record: dict[str, Any] = {
        "n": IMAGES,
        "readout": "head",
        "space": "probabilities",
        "dataset": {"class_names": names},
    }
    info: dict[str, Any] = {
        "request": {"models": [model], "datasets": [dataset], "properties": list(found), "seed": 0},
        "provenance": {"created": "2026-01-01T00:00:00+00:00"},
        "pairs": [{"model": model, "dataset": dataset, "certificate": {}, "record": record, "warnings": []}],
    }
    labels = [row % CLASSES for row in range(IMAGES)]
    columns: dict[str, list[Any]] = {
        "index": list(range(IMAGES)),
        "label": labels,
        "prediction": [0, 1, 2, 0, 0, 2],
        "confidence": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        "margin": [2.0, 1.5, 1.0, 0.5, 0.25, 0.125],
        "prediction_depth": [0, 1, 2, 3, 0, 1],
    }
    blocks = [f"blocks.{t}" for t in range(DEPTHS - 1)]
    with FolderRecorder(folder, False) as recorder:
        recorder.decide(Decisions(model, dataset, names, names, True, blocks, "logits", columns))
        for name, result in found.items():
            own = {**record, "property": {"name": name}}
            cell = Cell(model, dataset, name, record=own, plugin=PLUGIN, seconds=0.5)
            if isinstance(result, PropertyResult):
                cell.result = result
            else:
                cell.status = "failed"
                cell.error = {"type": "CellProblem", "message": result, "culprit": f"property {name} of tiny 1"}
            recorder.finish(cell, info)
        recorder.close("complete", info)
    return folder


def events_of(folder: Path) -> list[Event]:
    """What hooks for finished cells and runs would have been told of the run in ``folder``, in order.

    Examples:
        >>> import tempfile
        >>> events = events_of(tiny_run(Path(tempfile.mkdtemp())))
        >>> [event.hook.removeprefix("stabilitykit_") for event in events]
        ['cell_finished', 'cell_finished', 'run_finished']
    """
    info, cells = load_run(folder)
    told = [Event.of_cell(cell.to_json(), info, folder) for cell in cells]
    return [*told, Event.of_run([cell.to_json() for cell in cells], info, folder)]
