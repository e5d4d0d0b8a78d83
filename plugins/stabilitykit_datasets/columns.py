"""Which columns hold images and labels, by the types the data set gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.base.names import did_you_mean


def image_column(datasets: Any, features: Any, wished: str | None, path: str) -> str:
    """The column of type Image; UsageProblem unless there is one, or ``wished`` is one."""
    found = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    return _one(found, features, wished, path, "image", "of images (type Image)")


def label_column(datasets: Any, features: Any, wished: str | None, path: str) -> str:
    """The column of type ClassLabel, else the only one of whole numbers or texts called like a label."""
    found = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    usual = [name for name in ("label", "labels", "fine_label", "class") if name in features]
    if wished is None and not found:
        found = [name for name in usual if _countable(features[name])]
    if len(found) > 1 and "label" in found and wished is None:
        found = ["label"]
    if wished is not None and wished in features and not _labels(datasets, features[wished]):
        raise UsageProblem(f"hf: {path}: column {wished!r} holds {features[wished]}, no labels")
    found = [*found, wished] if wished is not None and wished in features and wished not in found else found
    return _one(found, features, wished, path, "label", "of classes (type ClassLabel)")


def classes_of(datasets: Any, kind: Any, values: Sequence[Any], path: str) -> tuple[np.ndarray, list[str], bool]:
    """(int64 labels (N,), names of the classes, whether those came with the data).

    Raises:
        DataProblem: rows without a label.
    """
    empty = [n for n, value in enumerate(values) if value is None or value == -1]
    if empty:
        raise DataProblem(
            f"hf: {path}: {len(empty)} rows have no label (row {empty[0]}); test splits of competitions often have "
            "none, take another split"
        )
    if isinstance(kind, datasets.ClassLabel):
        return np.asarray(values, dtype=np.int64), [str(name) for name in kind.names], True
    known = sorted(set(values))
    numbers = {value: n for n, value in enumerate(known)}
    labels = np.asarray([numbers[value] for value in values], dtype=np.int64)
    return labels, [str(value) for value in known], isinstance(known[0], str)


def _one(found: list[str], features: Any, wished: str | None, path: str, option: str, what: str) -> str:
    kinds = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
    if wished is not None:
        if wished in found:
            return wished
        if wished not in features:
            hint = did_you_mean(wished, list(features))
            raise UsageProblem(f"hf: {path} has no column {wished!r}{hint}; columns: {kinds}")
        raise UsageProblem(f"hf: {path}: column {wished!r} is none {what}; columns: {kinds}")
    if len(found) == 1:
        return found[0]
    count = "no column" if not found else f"several columns ({', '.join(found)})"
    raise UsageProblem(f"hf: {path} has {count} {what}; say {option}=NAME; columns: {kinds}")


def _countable(kind: Any) -> bool:
    """Whether a column holds whole numbers or texts."""
    dtype = str(getattr(kind, "dtype", ""))
    return dtype == "string" or "int" in dtype


def _labels(datasets: Any, kind: Any) -> bool:
    return isinstance(kind, datasets.ClassLabel) or (type(kind).__name__ == "Value" and _countable(kind))
