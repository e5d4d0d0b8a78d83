"""Do the parts of a finished run agree with each other and with the dataset? Checks that need no model."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit.base.results import Measurement
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.runs.folder import CSV_FILE, Cell, RunFolder, to_csv

# Columns of measurements.csv that hold a number or say what it is.
CHECKED = ("value", "kind", "n", "lower", "upper", "witness")
KEY = ("model", "dataset", "property", "measurement")


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


def changed_rows(run: Path | str, cells: list[Cell]) -> Iterator[tuple[Cell, str, str]]:
    """(cell, measurement, message) for every number that measurements.csv and the cells give differently."""
    rows = RunFolder(Path(run)).read_csv()
    if rows is None:
        return
    found = {tuple(row.get(k) for k in KEY): row for row in rows}
    for cell in cells:
        for row in csv.DictReader(io.StringIO(to_csv([cell]))):
            seen, name = found.get(tuple(row[k] for k in KEY)), row["measurement"]
            if seen is None:
                yield cell, name, f"{CSV_FILE} has no row of it"
                continue
            for column in CHECKED:
                if seen.get(column) != row[column]:
                    yield cell, name, f"{CSV_FILE} gives {column} {seen.get(column)}, the cell {row[column]}"


def missing_cells(info: Mapping[str, Any], cells: list[Cell]) -> list[tuple[str, str, str]]:
    """(model, dataset, property) that run.json lists and no file in cells/ holds."""
    there = {(c.model, c.dataset, c.property) for c in cells}
    listed = info.get("cells")
    keys = [tuple(map(str, key)) for key in listed if isinstance(key, list)] if isinstance(listed, list) else []
    return [(key[0], key[1], key[2]) for key in keys if len(key) == 3 and key not in there]
