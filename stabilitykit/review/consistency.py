"""Do the parts of a finished run agree with each other and with the dataset? Checks that need no model."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest

import numpy as np

from stabilitykit.base.results import Measurement
from stabilitykit.base.text import safe_cell
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.evaluation.job import COMPUTES
from stabilitykit.review.files import Key, RunFiles, key_of
from stabilitykit.review.leaves import Difference, differences
from stabilitykit.review.plan import Plan
from stabilitykit.runs.folder import CSV_COLUMNS, CSV_FILE, DECISIONS, IMAGES_FILE, Cell, slug_of, to_csv
from stabilitykit.runs.rows import images_csv

# (model, dataset, property), place in the run, what is wrong. Empty names: of the whole run.
Finding = tuple[Key, str, str]
WHOLE: Key = ("", "", "")


def inconsistent(dataset: Dataset, m: Measurement) -> str:
    """What does not fit in a measurement: its witness images' classes and numbers, its interval; empty: all fits."""
    indices = m.witness.get("indices")
    if isinstance(indices, list):
        labels, orders = np.asarray(dataset.labels), dataset.order_in_class
        if not all(isinstance(i, int) and 0 <= i < len(labels) for i in indices):
            return f"the witness names images {indices}, and the dataset has 0..{len(labels) - 1}"
        for key, true in (
            ("classes", [str(dataset.class_names[int(labels[i])]) for i in indices]),
            ("orders", [int(orders[i]) for i in indices]),
        ):
            if key in m.witness and list(m.witness[key]) != true:
                return f"the witness gives {key} {m.witness[key]} to images {indices}, the dataset {true}"
    low, high = m.interval or (None, None)
    if m.value is not None and ((low is not None and m.value < low) or (high is not None and m.value > high)):
        return f"the value {m.value!r} is outside its interval [{low!r}, {high!r}]"
    return ""


def disagreements(files: RunFiles, cells: Mapping[str, Cell], plan: Plan) -> Iterator[Finding]:
    """Everything in which run.json, the cells and measurements.csv disagree.

    Arguments:
        cells: by file name.
    """
    yield from _of_names(files, cells)
    yield from _of_listing(files, cells, plan)
    yield from _of_records(files, cells)
    yield from _of_settings(cells, plan)
    if files.info.get("status") == "complete" and files.csv is not None:
        yield from changed_rows(files.csv, list(cells.values()))
    yield from _of_decisions(files, cells)


def changed_rows(text: str, cells: list[Cell]) -> Iterator[Finding]:
    """Every field of measurements.csv that the cells give differently; columns it does not have are older than them."""
    rows, expected = (list(csv.DictReader(io.StringIO(source))) for source in (text, to_csv(cells)))
    header = next(csv.reader(io.StringIO(text)), [])
    unknown = [column for column in header if column not in CSV_COLUMNS]
    for column in unknown:
        yield WHOLE, CSV_FILE, f"{CSV_FILE} has a column {column!r} that no cell gives"
    if len(rows) != len(expected):
        yield WHOLE, CSV_FILE, f"{CSV_FILE} has {len(rows)} rows, the cells give {len(expected)}"
        return
    for number, (row, true) in enumerate(zip(rows, expected, strict=True)):
        key = (true["model"], true["dataset"], true["property"])
        for column in CSV_COLUMNS:
            if (column in header and safe_cell(row[column]) != true[column]) or len(row) > len(header):
                yield (
                    key,
                    true["measurement"],
                    (f"{CSV_FILE}, row {number}, gives {column} {row[column]}, the cell {true[column]}"),
                )


def _of_decisions(files: RunFiles, cells: Mapping[str, Cell]) -> Iterator[Finding]:
    """Decisions and images.csv."""
    decided, pairs = files.decided, {key_of(cell)[:2] for cell in cells.values()}
    for name, one in decided.items():
        key = (one.model, one.dataset, "")
        if name != f"{slug_of(one.model, one.dataset)}.json":
            yield key, f"{DECISIONS}/{name}", "it does not stand in the file of its model and dataset"
        if key[:2] not in pairs:
            yield key, f"{DECISIONS}/{name}", "no cell of the run is of this model and dataset"
        if files.decisions[name].get("schema") != files.schema:
            yield key, f"{DECISIONS}/{name}", f"its schema is not {files.schema}, that of run.json"
    if files.images is None or files.info.get("status") != "complete":
        return
    true = images_csv({(one.model, one.dataset): one for one in decided.values()}, list(cells.values()))
    if files.images != true:
        yield from _changed_image_rows(files.images, true)


def _changed_image_rows(text: str, true: str) -> Iterator[Finding]:
    """Where images.csv is not what cells and decisions give: its columns, its rows, every field of those."""
    (header, *rows), (names, *expected) = (list(csv.reader(io.StringIO(source))) or [[]] for source in (text, true))
    if header != names or len(rows) != len(expected):
        yield (
            WHOLE,
            IMAGES_FILE,
            f"{IMAGES_FILE} has {len(rows)} rows of columns {header}, cells and decisions give {len(expected)} rows of "
            f"{names}",
        )
        return
    unlike = 0
    for number, (row, other) in enumerate(zip(rows, expected, strict=True)):
        for column, (a, b) in enumerate(zip_longest(row, other)):
            if a != b:
                unlike += 1
                where = names[column] if column < len(names) else f"number {column + 1}"
                place = f"{IMAGES_FILE}, row {number}"
                yield (*other[:2], ""), place, f"{place}, gives {where} {a}, cells and decisions {b}"  # type: ignore[misc]
    if not unlike:
        yield WHOLE, IMAGES_FILE, f"{IMAGES_FILE} is not written as cells and decisions give it"


def _of_names(files: RunFiles, cells: Mapping[str, Cell]) -> Iterator[Finding]:
    times = Counter(key_of(cell) for cell in cells.values())
    for name, cell in cells.items():
        key = key_of(cell)
        if name != f"{cell.slug}.json":
            yield key, "", f"it stands in cells/{name}, expected cells/{cell.slug}.json"
        if times[key] > 1:
            yield key, "", f"{times[key]} files in cells/ hold it"
        if files.cells[name].get("schema") != files.schema:
            yield key, "", f"its schema is {files.cells[name].get('schema')!r}, that of run.json {files.schema}"


def _of_listing(files: RunFiles, cells: Mapping[str, Cell], plan: Plan) -> Iterator[Finding]:
    """Request, list of cells, status and the files in cells/."""
    asked, there = list(plan.keys()), {key_of(cell) for cell in cells.values()}
    status, listed = files.info.get("status"), files.info.get("cells")
    for key in there - set(asked):
        yield key, "", "the request in run.json does not ask for it"
    keys = [tuple(key) if isinstance(key, list) else key for key in listed] if isinstance(listed, list) else []
    if keys != asked[: len(keys)]:
        yield WHOLE, "run.json: cells", "does not list the cells that the request asks for, in their order"
    for key in asked if status == "complete" else [key for key in asked if key in keys]:
        if key not in there:
            yield key, "", "its file is missing in cells/"
    if status == "complete" and len(keys) < len(asked):
        yield WHOLE, "run.json: cells", f"lists {len(keys)} cells of a complete run of {len(asked)}"
    if status != "complete" and set(asked) <= there:
        yield WHOLE, "run.json: status", f"is {status!r}, and no cell is missing"


def _of_records(files: RunFiles, cells: Mapping[str, Cell]) -> Iterator[Finding]:
    """Records of the cells, of their pair, and the provenance."""
    pairs = files.info.get("pairs")
    records = {
        (pair.get("model"), pair.get("dataset")): pair.get("record")
        for pair in (pairs if isinstance(pairs, list) else [])
        if isinstance(pair, Mapping)
    }
    provenance, request = files.provenance, files.info.get("request") or {}
    if "seed" in provenance and provenance["seed"] != request.get("seed"):
        yield (
            WHOLE,
            "run.json: provenance.seed",
            f"is {provenance['seed']!r}, that of the request {request.get('seed')!r}",
        )
    device = provenance.get("device")
    for name, cell in cells.items():
        record, key = files.cells[name].get("record"), key_of(cell)
        if not isinstance(record, Mapping) or (not record and not cell.ok):
            continue
        shared = {part: value for part, value in record.items() if part not in ("property", COMPUTES)}
        for difference in differences(shared, records.get(key[:2], {}), "record"):
            yield key, difference.path, _against(difference, "in the cell", "in run.json's pairs")
        own = record.get("property")
        plugin = own.get("plugin") if isinstance(own, Mapping) else None
        for difference in differences(files.cells[name].get("plugin"), plugin, "plugin"):
            yield key, difference.path, _against(difference, "in the cell", "in its record")
        if isinstance(device, Mapping) and (
            (device.get("type"), device.get("threads"), request.get("device"))
            != (record.get("device"), record.get("threads"), record.get("device"))
        ):
            yield key, "record.device", "device or threads are not those of run.json's provenance and request"


def _of_settings(cells: Mapping[str, Cell], plan: Plan) -> Iterator[Finding]:
    """The request in run.json, by which a run is measured again, against the records."""
    settings = plan.settings.request()
    for cell in cells.values():
        for name, value in settings.items():
            if name in cell.record and cell.record[name] != value:
                text = f"is {value!r} in run.json, and {name} is {cell.record[name]!r} in the record"
                yield key_of(cell), f"request.{name}", text


def _against(difference: Difference, where: str, other: str) -> str:
    return f"{difference.path} is {difference.reported!r} {where}, {difference.recomputed!r} {other}"
