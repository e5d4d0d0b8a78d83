"""Readouts of single images computed again from the model: every image once, and no more batches than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from stabilitykit.base.results import Measurement

    # Row numbers of a batch -> (row numbers, their logits along depth (T+1, B, K)), in parts.
    Run = Callable[[np.ndarray], Iterable[tuple[np.ndarray, np.ndarray]]]

# Keys of a witness whose values are dataset indices, at any depth of it.
IMAGE_KEYS = ("indices", "orbit", "tracer", "start", "delta_image")
# (relative, absolute): float64 in another order of summation, on logits that are equal to the last bit.
SAME_MACHINE = (1e-9, 1e-12)


class Rerun:
    """Logits of single images along depth, computed from model and data, never read from a cache.

    Arguments:
        expected: int64 (M,), rows that will be asked for: the first call computes all of them together.
        packed: run rows of many batches in one of the same size, at their own places where those are free, which
            leaves logits bit-equal as long as images do not see each other. Not packed: each row runs among the very
            images of its batch.
        filled: run whole batches; else packed rows run by themselves, and logits move as with another batch size.
        tolerance: (relative, absolute) difference up to which a number computed again is the same number.
    """

    def __init__(
        self,
        expected: np.ndarray | None = None,
        packed: bool = False,
        filled: bool = True,
        tolerance: tuple[float, float] = SAME_MACHINE,
    ) -> None:
        self._expected = np.empty(0, np.int64) if expected is None else expected
        self._packed, self._filled = packed, filled
        self.tolerance = tolerance
        self._logits: dict[int, np.ndarray] = {}

    @property
    def whole(self) -> bool:
        """Do images run in batches of the size they had when they were measured?"""
        return self._filled or not self._packed

    def logits(self, rows: np.ndarray, total: int, size: int, run: Run) -> np.ndarray:
        """Logits along depth of ``rows`` (of 0..total-1), each computed once.

        Arguments:
            rows: integers (n,).
            size: of a batch.
            run: runs a batch of row numbers.

        Returns:
            (T+1, n, K), float32 or float64 as ``run`` gives them.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if not np.isin(wanted, list(self._logits)).all():
            missing = np.setdiff1d(np.concatenate([wanted, self._expected]), list(self._logits))
            chosen = set(missing.tolist())
            for members in self.batches(missing, total, size):
                for part, logits in run(members):
                    for column, row in enumerate(part.tolist()):
                        if row in chosen:
                            self._logits[row] = logits[:, column].copy()
        return np.stack([self._logits[int(row)] for row in wanted], axis=1)

    def batches(self, rows: np.ndarray, total: int, size: int) -> list[np.ndarray]:
        """Batches of row numbers, int64 (B,) each, that hold the integers ``rows`` (n,) of 0..total-1.

        Each is of the size it has when all are run.
        """
        return packed_batches(rows, total, size, self._filled) if self._packed else own_batches(rows, total, size)


def own_batches(rows: np.ndarray, total: int, size: int) -> list[np.ndarray]:
    """The batches of the extraction that hold ``rows``, integers (n,): int64 row numbers, (B,) each."""
    numbers = np.unique(np.asarray(rows, dtype=np.int64) // size)
    return [np.arange(number * size, min((number + 1) * size, total)) for number in numbers]


def packed_batches(rows: np.ndarray, total: int, size: int, filled: bool = True) -> list[np.ndarray]:
    """As few batches as hold ``rows``, integers (n,): int64 row numbers, (B,) each; not ``filled``: the rows alone.

    A row stands at its own place of the batch where that is free. The other places are filled with other images.
    Rows of the last, shorter batch are run in a whole one, too; where there is no whole one, in their own.
    """
    size = min(size, total)
    rows = np.unique(np.asarray(rows, dtype=np.int64))
    if not filled:
        return [rows[first : first + size] for first in range(0, len(rows), size)]
    batches = []
    for first in range(0, len(rows), size):
        batch = np.full(size, -1, dtype=np.int64)
        displaced = []
        for row in rows[first : first + size].tolist():
            if batch[row % size] < 0:
                batch[row % size] = row
            else:
                displaced.append(row)
        free = np.flatnonzero(batch < 0)
        batch[free[: len(displaced)]] = displaced
        rest = free[len(displaced) :]
        batch[rest] = rest
        batches.append(batch)
    return batches


def witness_images(measurement: Measurement) -> list[int]:
    """Dataset indices of the images that a witness names, each once."""
    found: dict[int, None] = {}

    def collect(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for inner, part in value.items():
                collect(str(inner), part)
        elif isinstance(value, (list, tuple)):
            for part in value:
                collect(key, part)
        elif key in IMAGE_KEYS and isinstance(value, int) and not isinstance(value, bool):
            found.setdefault(value)

    collect("", measurement.witness)
    return list(found)
