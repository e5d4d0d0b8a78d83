"""Norms of maps between l1, l2 and l-infinity: upper bounds for all nine pairs, completed from the few that are known.

A table is a float64 array (3, 3): entry [p, q] bounds ||A|| from the p-th norm to the q-th, in the order of `NORMS`.
"""

from __future__ import annotations

import math

import numpy as np

from stabilitykit_lipschitz.rounding import TINY, gamma

NORMS = (1.0, 2.0, math.inf)
# Paid by every bound for the handful of roundings of its last steps.
MARGIN = 1e-13


def index_of(norm: float | str, what: str = "norm") -> int:
    """Position of a norm in `NORMS`. Raises: ValueError for others."""
    names = {"1": 0, "2": 1, "inf": 2, "1.0": 0, "2.0": 1}
    key = str(norm).strip().lower()
    if key not in names:
        raise ValueError(f"{what} = {norm!r}; expected 1, 2 or inf")
    return names[key]


def name_of(norm: float) -> str:
    """``l1``, ``l2`` or ``l-infinity``."""
    return {1.0: "l1", 2.0: "l2", math.inf: "l-infinity"}[float(norm)]


def identity(size: int) -> np.ndarray:
    """Norms of the identity on ``size`` numbers: (3, 3), size^(max(0, 1/q - 1/p)), rounded upward."""
    inverse = np.array([1.0, 0.5, 0.0])
    exponent = np.maximum(0.0, inverse[None, :] - inverse[:, None])
    table = float(max(size, 1)) ** exponent
    return np.where(exponent > 0, table * (1 + MARGIN), 1.0)


def after(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Bounds of ``second`` applied to what ``first`` gives: the best norm in between, (3, 3)."""
    with np.errstate(invalid="ignore", over="ignore"):
        products = first[:, :, None] * second[None, :, :] * (1 + MARGIN)
    # a map that is constant stays so, whatever infinite bound meets it; what only became too small is not constant
    zero = (first[:, :, None] == 0) | (second[None, :, :] == 0)
    return np.where(zero, 0.0, np.maximum(products, TINY)).min(1)


def completed(table: np.ndarray, inputs: int, outputs: int) -> np.ndarray:
    """Every entry lowered to what the others imply: equivalence of norms on both sides, and ||A||_2 at most the root
    of ||A||_1 ||A||_inf (Riesz and Thorin). table: (3, 3), inf where nothing is known."""
    table = np.array(table, dtype=np.float64)
    with np.errstate(over="ignore"):
        schur = math.sqrt(float(table[0, 0])) * math.sqrt(float(table[2, 2])) * (1 + MARGIN)
    table[1, 1] = min(table[1, 1], schur) if not math.isnan(schur) else table[1, 1]
    spread = np.minimum(after(identity(inputs), after(table, identity(outputs))), table)
    return spread


def of_matrix(matrix: np.ndarray, spectral: float) -> np.ndarray:
    """Norms of a dense matrix (m, n) with a proven bound ``spectral`` of its l2 norm.

    Exact up to rounding where a formula is: from l1, and to l-infinity. The others (l-infinity to l1 is NP-hard) are
    bounded by row and column sums.
    """
    m, n = matrix.shape
    if matrix.size == 0 or not matrix.any():
        return np.zeros((3, 3))
    scale = math.ldexp(1.0, math.frexp(float(np.abs(matrix).max()))[1])
    size = np.abs(matrix) / scale
    rows, columns = size.sum(1), size.sum(0)
    squares = size * size
    table = np.full((3, 3), math.inf)
    table[0] = [columns.max(), math.sqrt(squares.sum(0).max()), size.max()]
    table[2, 2], table[1, 2] = rows.max(), math.sqrt(squares.sum(1).max())
    table[2, 1] = math.sqrt(float(rows @ rows))
    table[1, 0] = math.sqrt(float(columns @ columns))
    table[2, 0] = min(rows.sum(), columns.sum())
    table *= scale * (1 + gamma(m * n)) * (1 + MARGIN)
    table[1, 1] = spectral
    return completed(table, n, m)


def realised(matrix: np.ndarray, p: int, q: int) -> float:
    """A lower bound of ||A|| from norm p to norm q for a matrix (m, n): exact where a formula is, elsewhere at the best
    vector found. Rounded down."""
    if matrix.size == 0 or not np.isfinite(matrix).all():
        return 0.0
    direction = stretched(matrix, p, q)
    length = float(np.linalg.norm(direction, NORMS[p]))
    return float(np.linalg.norm(matrix @ direction, NORMS[q])) / length * (1 - 1e-12) if length else 0.0


def stretched(matrix: np.ndarray, p: int, q: int) -> np.ndarray:
    """The direction (n,) that a matrix (m, n) stretches most from norm p to norm q, of norm 1 in p: exact from l1, to
    l-infinity and from l2 to l2; elsewhere the best met by alternating ascent."""
    n = matrix.shape[1]
    if p == 0:
        return np.eye(1, n, int(np.linalg.norm(matrix, NORMS[q], axis=0).argmax()))[0]
    if q == 2:
        row = matrix[int(np.linalg.norm(matrix, (math.inf, 2.0, 1.0)[p], axis=1).argmax())]
        return _dual(row, p)
    vt = np.linalg.svd(matrix, full_matrices=False)[2]
    if p == q == 1:
        return vt[0]
    best, most = vt[0], -1.0
    for start in [*vt[:4], *matrix[:16], np.ones(n)]:
        v = _dual(start, p)
        for _ in range(50):
            image = matrix @ v
            value = float(np.linalg.norm(image, NORMS[q]))
            if value <= most:
                break
            best, most = v, value
            v = _dual(matrix.T @ (np.sign(image) if q == 0 else image), p)
    return best


def _dual(v: np.ndarray, p: int) -> np.ndarray:
    """The vector of norm 1 in p (l2 or l-infinity) with the largest product with v."""
    if p == 2:
        return np.where(v >= 0, 1.0, -1.0)
    length = float(np.linalg.norm(v))
    return v / length if length else np.eye(1, len(v))[0]
