"""Norms known by a formula: of softmaxes, maxima, means and other maps without negative weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.rounding import gamma


@dataclass(frozen=True)
class Known:
    """A map whose norms are known by a formula. parts: equal independent maps side by side, of which ``table`` holds
    the norms of one; inputs, outputs: numbers of each part."""

    table: np.ndarray
    inputs: int
    outputs: int
    parts: int = 1

    @property
    def norms(self) -> np.ndarray:
        return side_by_side(self.table, self.inputs, self.outputs, self.parts)

    def rows_scaled(self, factors: np.ndarray) -> None:
        return None


def side_by_side(table: np.ndarray, inputs: int, outputs: int, parts: int) -> np.ndarray:
    """Norms of ``parts`` independent maps with the norms ``table``: those from a norm to one that is not smaller in p
    are the largest of the parts', the others follow from them."""
    table = pairs.completed(table, inputs, outputs)
    if parts > 1:
        table = pairs.completed(np.where(np.tri(3, dtype=bool).T, table, math.inf), inputs * parts, outputs * parts)
    return table


def nonnegative(rows: np.ndarray, columns: np.ndarray) -> Known:
    """A map without negative entries, by its row sums (m,) and column sums (n,); its l2 norm is at most the root of
    the largest two (Schur), which is exact for means over disjoint windows."""
    m, n = len(rows), len(columns)
    slack = 1 + gamma(m + n + 64) + 1e-12
    row, column = float(rows.max(initial=0.0)) * slack, float(columns.max(initial=0.0)) * slack
    table = np.full((3, 3), math.inf)
    table[0, 0], table[2, 2] = column, row
    table[0, 2] = min(row, column)
    table[0, 1] = min(column, math.sqrt(table[0, 2]) * math.sqrt(column) * (1 + 1e-15))
    table[1, 2] = min(row, math.sqrt(table[0, 2]) * math.sqrt(row) * (1 + 1e-15))
    return Known(table, n, m)


def maxima(counts: Sequence[int], inputs: int, outputs: int) -> Known:
    """The largest of each window, where at most prod(counts) windows hold the same input: |max a - max b| is at most
    the largest |a - b| of the window."""
    most = float(prod(counts))
    table = np.full((3, 3), math.inf)
    table[0, 0], table[1, 1], table[2, 2] = most, math.sqrt(most) * (1 + 1e-15), 1.0
    table[0, 2] = table[1, 2] = 1.0
    table[0, 1] = math.sqrt(most) * (1 + 1e-15)
    return Known(table, inputs, outputs)


def softmax(classes: int, parts: int) -> Known:
    """diag(p) - p p': 1/2 in each of the three norms, attained between two equally likely classes."""
    table = np.full((3, 3), math.inf)
    table[0, 0] = table[1, 1] = table[2, 2] = 0.5
    table[0, 2] = 0.25
    table[2, 0] = 1.0
    return Known(table, classes, classes, parts)


def log_softmax(classes: int, parts: int) -> Known:
    """I - 1 p': convex in p, so its norms are largest where one class is certain. In l2 the root of the classes."""
    k = float(classes)
    table = np.full((3, 3), math.inf)
    if classes < 2:
        return Known(np.zeros((3, 3)), classes, classes, parts)
    table[0] = [max(1.0, k - 1.0), max(1.0, math.sqrt(k - 1.0)), 1.0]
    table[1, 1], table[1, 2], table[2, 2] = math.sqrt(k), math.sqrt(2.0), 2.0
    table *= 1 + 4e-16
    return Known(table, classes, classes, parts)
