"""Proofs that a system A x <= b has no solution, checked without tolerances.

A linear program only suggests multipliers y >= 0. By Farkas' lemma y'A = 0 and y'b < 0 prove that nothing solves the
system; on a box, y'A x > y'b for all its x does. Rows of tiny or wildly different weights make solvers err, never this.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from stabilitykit_lipschitz.rounding import UNIT, gamma

# Numbers in the exact elimination; above it a pattern counts as possible, which is safe and slower.
MOST = 4000


def impossible_in_box(a: np.ndarray, b: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """True only if no x with low <= x <= high has A x <= b. a: (m, n), b, y: (m,); y >= 0."""
    y = np.maximum(y, 0.0)
    sides = y @ a
    reach = np.maximum(np.abs(low), np.abs(high))
    least = float(np.minimum(sides * low, sides * high).sum())
    size = float((y @ np.abs(a)) @ reach + y @ np.abs(b))
    return least - float(y @ b) > 4.0 * gamma(a.shape[0] + a.shape[1] + 8) * size + UNIT


def impossible(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> bool:
    """True only if no x at all has A x <= b, in rational arithmetic on the rows that y singles out."""
    rows = np.flatnonzero(y > 1e-9 * y.max(initial=0.0))
    if not len(rows) or len(rows) * (a.shape[1] + 1) > MOST:
        return False
    exact = _combination([[Fraction(float(v)) for v in a[i]] for i in rows])
    if exact is None:
        return False
    if all(v <= 0 for v in exact):
        exact = [-v for v in exact]
    return all(v >= 0 for v in exact) and sum(v * Fraction(float(b[i])) for v, i in zip(exact, rows)) < 0


def _combination(rows: list[list[Fraction]]) -> list[Fraction] | None:
    """The combination of the rows that vanishes, when there is one up to scale; None otherwise."""
    count = len(rows)
    # Gauss on A': one column per row of A, so that the kernel is what is sought
    table = [list(column) for column in zip(*rows)]
    pivots: list[int] = []
    done = 0
    for column in range(count):
        found = next((i for i in range(done, len(table)) if table[i][column]), None)
        if found is None:
            continue
        table[done], table[found] = table[found], table[done]
        head = table[done][column]
        table[done] = [v / head for v in table[done]]
        for i in range(len(table)):
            if i != done and table[i][column]:
                factor = table[i][column]
                table[i] = [v - factor * w for v, w in zip(table[i], table[done])]
        pivots.append(column)
        done += 1
    free = [c for c in range(count) if c not in pivots]
    if len(free) != 1:
        return None
    kernel = [Fraction(0)] * count
    kernel[free[0]] = Fraction(1)
    for row, column in enumerate(pivots):
        kernel[column] = -table[row][free[0]]
    return kernel
