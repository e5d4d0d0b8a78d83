"""Labels of any kind become 0..K-1, and what they were is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stabilitykit import DataProblem
from stabilitykit_vision.ordering import ordered

MOST_CLASSES = 1 << 20


@dataclass
class Labels:
    """Labels as the core wants them.

    Attributes:
        values: int64 (N,), 0..K-1.
        class_names: K names.
        ids: K numbers the classes had in the file, where these are not 0..K-1; else None.
        named: whether the names came with the data.
        notes: what a reader has to know.
    """

    values: np.ndarray
    class_names: list[str]
    ids: list[int] | None = None
    named: bool = True
    notes: list[str] = field(default_factory=list)


def read_labels(
    where: str,
    stored: np.ndarray,
    names: Sequence[str] | None,
    *,
    first: int = 0,
    num_classes: int | None = None,
    order: str = "natural",
) -> Labels:
    """Integers, whole floats, bool, text, one-hot rows; (N,) or (N, 1).

    Arguments:
        where: begins every message.
        names: K class names that came with the labels, or None.
        first: number of the first class, subtracted.
        num_classes: K; numbers then stay what they are, and classes without an image are kept.
        order: of classes that are given as text.

    Raises:
        DataProblem: labels of no class (fractions, NaN, rows with several ones, numbers out of range).
    """
    if stored.ndim == 2 and stored.shape[1] == 1:
        stored = stored[:, 0]
    if stored.ndim == 2 and stored.size:
        stored, num_classes = _from_one_hot(where, stored), stored.shape[1]
    if stored.ndim != 1:
        raise DataProblem(
            f"{where}: labels have shape {stored.shape}, expected (N,), one per image, or one-hot rows (N, K)"
        )
    if stored.dtype.kind in "US":
        return _from_text(where, stored, names, order)
    if stored.dtype.kind == "b":
        names = ["False", "True"] if names is None else names
    elif stored.dtype.kind == "f":
        whole = np.isfinite(stored) & (stored == np.rint(stored)) & (np.abs(stored) < 2**53)
        if not whole.all():
            bad = int((~whole).argmax())
            raise DataProblem(
                f"{where}: label {bad} is {stored[bad]}, expected integers (a class each), not numbers to be predicted"
            )
    elif stored.dtype.kind not in "iu":
        raise DataProblem(f"{where}: labels are {stored.dtype}, expected integers")
    if stored.dtype.kind == "u" and stored.size and int(stored.max()) >= 2**63:
        raise DataProblem(f"{where}: labels reach {int(stored.max())}; expected 0..K-1")
    return _from_numbers(where, stored.astype(np.int64), names, first, num_classes)


def _from_one_hot(where: str, rows: np.ndarray) -> np.ndarray:
    if rows.dtype.kind not in "biuf":
        raise DataProblem(f"{where}: labels are {rows.dtype} of shape {rows.shape}, expected integers (N,)")
    right = ((rows == 0) | (rows == 1)).all(axis=1) & ((rows != 0).sum(axis=1) == 1)
    if not right.all():
        bad = int((~right).argmax())
        raise DataProblem(
            f"{where}: labels have shape {rows.shape}, and row {bad} is not one-hot (a single 1 among zeros); "
            "expected one class per image"
        )
    return rows.argmax(axis=1)


def _from_text(where: str, stored: np.ndarray, names: Sequence[str] | None, order: str) -> Labels:
    texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in stored.tolist()]
    classes, warning = (list(names), "") if names is not None else ordered(set(texts), order)
    number = {name: c for c, name in enumerate(classes)}
    unknown = next((text for text in texts if text not in number), None)
    if unknown is not None:
        raise DataProblem(f"{where}: label {unknown!r} is none of its {len(classes)} class_names")
    values = np.asarray([number[text] for text in texts], dtype=np.int64)
    return Labels(values, classes, notes=[warning] if warning else [])


def _from_numbers(
    where: str, values: np.ndarray, names: Sequence[str] | None, first: int, num_classes: int | None
) -> Labels:
    if values.size == 0:
        return Labels(values, list(names or []), named=names is not None)
    values = values - first
    low, high = int(values.min()), int(values.max())
    if high >= MOST_CLASSES:
        raise DataProblem(f"{where}: labels reach {high + first}; expected 0..K-1")
    if names is None and num_classes is None and low >= 0:
        present = np.unique(values)
        if len(present) <= high:
            ids = [int(c) + first for c in present]
            note = (
                f"labels are the {len(ids)} numbers {_some(ids)}, not 0..{len(ids) - 1}: each is a class of that name"
            )
            if ids == list(range(1, len(ids) + 1)):
                note += "; if they count from 1, say labels_from=1"
            compact = np.searchsorted(present, values)
            return Labels(compact, [str(c) for c in ids], ids=ids, notes=[note])
    count = len(names) if names is not None else num_classes if num_classes is not None else high + 1
    if low < 0 or high >= count:
        raise DataProblem(
            f"{where}: labels range over {low + first}..{high + first}, expected {first}..{first + count - 1} "
            f"for its {count} classes"
            + ("; if they count from 1, say labels_from=1" if low + first == 1 and high == count and not first else "")
        )
    return Labels(values, list(names) if names is not None else [str(c) for c in range(count)], named=names is not None)


def _some(numbers: Sequence[int], count: int = 6) -> str:
    return ", ".join(map(str, numbers[:count])) + (f"... {numbers[-1]}" if len(numbers) > count else "")
