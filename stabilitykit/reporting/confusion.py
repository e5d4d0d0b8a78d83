"""Counts of what a network takes what for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stabilitykit.base.decisions import Decisions


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes and how often one is taken for the other.

    Attributes:
        first, second: numbers of the classes; ``forth`` images of the first are taken for the second, at least as
            many as the other way round.
        forth, back: counts. rows: of those images in the decisions.
    """

    first: int
    second: int
    forth: int
    back: int
    rows: Sequence[int]

    @property
    def count(self) -> int:
        return self.forth + self.back


def confusion_matrix(decisions: Decisions) -> np.ndarray:
    """int64 (classes, outputs): images of each class by what they are taken for."""
    shape = len(decisions.classes), len(decisions.outputs)
    pairs = np.zeros(shape, dtype=np.int64)
    if len(decisions):
        np.add.at(pairs, (np.asarray(decisions.columns["label"]), np.asarray(decisions.columns["prediction"])), 1)
    return pairs


def confused_pairs(decisions: Decisions) -> list[ConfusedPair]:
    """Every two classes that are taken for each other, the most often confused first; none where outputs are other
    things than classes."""
    found: dict[tuple[int, int], list[int]] = {}
    labels, outputs = decisions.columns["label"], decisions.columns["prediction"]
    for row, right in enumerate(decisions.correct):
        if right is False:
            a, b = sorted((labels[row], outputs[row]))
            found.setdefault((a, b), []).append(row)
    made = []
    for (a, b), rows in found.items():
        forth = sum(labels[row] == a for row in rows)
        back = len(rows) - forth
        made.append(ConfusedPair(a, b, forth, back, rows) if forth >= back else ConfusedPair(b, a, back, forth, rows))
    return sorted(made, key=lambda pair: (-pair.count, pair.first, pair.second))


def usual_depth(decisions: Decisions, rows: Sequence[int]) -> tuple[int, int]:
    """(the depth at which most of ``rows`` are decided, the first of several; how many of them)."""
    counts = Counter(decisions.columns["prediction_depth"][row] for row in rows)
    depth = min(counts, key=lambda t: (-counts[t], t))
    return depth, counts[depth]
