"""Affine functions of network states: what Linear, convolution, BatchNorm and pooling are folded into.

An `Affine` holds, per state it depends on, a matrix (dense or scipy sparse), a bias and a Frobenius bound on the
rounding done so far, so that the final bound can pay for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from stabilitykit_lipschitz.rounding import UNIT, frobenius, gamma

Matrix = Any  # numpy array or scipy sparse matrix (scipy ships no types)
MOST_BYTES = 6 * 10**9


@dataclass(frozen=True)
class Affine:
    """shape: per sample; maps: {state: (numel, size)}; bias: (numel,); errors: {state: Frobenius bound}."""

    shape: tuple[int, ...]
    maps: dict[int, Matrix]
    bias: np.ndarray
    errors: dict[int, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return prod(self.shape)


def of_state(state: int, shape: tuple[int, ...]) -> Affine:
    """The state itself."""
    size = prod(shape)
    return Affine(shape, {state: sparse.identity(size, format="csr")}, np.zeros(size))


def constant(values: np.ndarray) -> Affine:
    """Numbers that depend on no state."""
    return Affine((len(values),), {}, values)


def norm(matrix: Matrix) -> float:
    """Upper bound on the Frobenius norm."""
    return frobenius(matrix.data if sparse.issparse(matrix) else matrix)


def _is_selection(matrix: Matrix) -> bool:
    """Every row and column holds at most one entry, a 1: products with it are exact."""
    if not sparse.issparse(matrix):
        return False
    return bool((np.diff(matrix.indptr) <= 1).all() and (matrix.data == 1.0).all())


def product(left: Matrix, right: Matrix) -> Matrix:
    if sparse.issparse(right) and not sparse.issparse(left):
        return np.ascontiguousarray((right.T @ left.T).T)
    return left @ right


def apply(matrix: Matrix, value: Affine, shape: tuple[int, ...], error: float = 0.0) -> Affine:
    """matrix @ value, reshaped; error: Frobenius bound on the rounding already in `matrix`."""
    maps, errors = {}, {}
    left = norm(matrix)
    depth = int(np.diff(matrix.indptr).max(initial=1)) if sparse.issparse(matrix) else matrix.shape[1]
    for state, inner in value.maps.items():
        maps[state] = product(matrix, inner)
        old = value.errors.get(state, 0.0)
        loss = 0.0 if _is_selection(inner) or _is_selection(matrix) else gamma(depth) * left * norm(inner)
        total = (left + error) * old + error * norm(inner) + loss
        if total > 0.0:
            errors[state] = total * (1 + 1e-10)
    return Affine(shape, maps, matrix @ value.bias, errors)


def repeated(matrix: np.ndarray, count: int, value: Affine) -> Affine:
    """The same (m, n) matrix on each of ``count`` pieces of n numbers."""
    whole = matrix if count == 1 else sparse.kron(sparse.identity(count), sparse.csr_matrix(matrix), format="csr")
    return apply(whole, value, (count * len(matrix),))


def shifted(value: Affine, by: np.ndarray) -> Affine:
    """value + by."""
    return Affine(value.shape, value.maps, value.bias + by, value.errors)


def scale(factors: np.ndarray, value: Affine, relative: float) -> Affine:
    """Row-wise product with `factors` (numel,), each known to `relative` accuracy."""
    diagonal = sparse.diags(factors, format="csr")
    largest = float(np.abs(factors).max(initial=0.0)) * (1.0 + relative)
    maps, errors = {}, {}
    for state, inner in value.maps.items():
        maps[state] = product(diagonal, inner)
        # entry by entry: the factor's own error and one rounding
        errors[state] = largest * value.errors.get(state, 0.0) + (relative + 2 * UNIT) * norm(maps[state])
    return Affine(value.shape, maps, factors * value.bias, errors)


def gather(index: np.ndarray, value: Affine, shape: tuple[int, ...]) -> Affine:
    """Rows `index` of value (a permutation, a slice, a repetition)."""
    maps = {state: m[index] for state, m in value.maps.items()}
    repeats = np.sqrt(np.bincount(index, minlength=1).max(initial=1))
    return Affine(shape, maps, value.bias[index], {s: e * float(repeats) for s, e in value.errors.items()})


def combine(a: Affine, b: Affine, sign: float = 1.0) -> Affine:
    """a + sign b (sign is 1 or -1)."""
    maps, errors = dict(a.maps), dict(a.errors)
    for state, m in b.maps.items():
        if state in maps:
            total = maps[state] + sign * m
            if not sparse.issparse(total):
                total = np.asarray(total)  # sparse plus dense is a numpy matrix
            errors[state] = errors.get(state, 0.0) + UNIT * norm(total)
            maps[state] = total
        else:
            maps[state] = sign * m
        if state in b.errors:
            errors[state] = errors.get(state, 0.0) + b.errors[state]
    return Affine(a.shape, maps, a.bias + sign * b.bias, errors)


def stack(values: list[Affine], order: np.ndarray, shape: tuple[int, ...]) -> Affine:
    """Concatenate rows, then reorder them by `order` (for torch.cat along any axis)."""
    maps: dict[int, Matrix] = {}
    errors: dict[int, float] = {}
    for state in sorted({s for v in values for s in v.maps}):
        size = next(v.maps[state].shape[1] for v in values if state in v.maps)
        rows = [
            sparse.csr_matrix(v.maps[state]) if state in v.maps else sparse.csr_matrix((v.size, size)) for v in values
        ]
        maps[state] = sparse.vstack(rows, format="csr")
        error = sum(v.errors.get(state, 0.0) for v in values)
        if error:
            errors[state] = error
    bias = np.concatenate([v.bias for v in values])
    return gather(order, Affine((len(bias),), maps, bias, errors), shape)


def dense_blocks(value: Affine, where: str) -> dict[int, np.ndarray]:
    """The maps as dense arrays. Errors: ValueError when they would not fit in memory."""
    size = sum(8 * m.shape[0] * m.shape[1] for m in value.maps.values())
    if size > MOST_BYTES:
        raise ValueError(
            f"{where}: its dense matrix would take {size / 1e9:.1f} GB; expected a head of at most "
            f"{MOST_BYTES / 1e9:.0f} GB. Analyse a later part of the model (after pooling)."
        )
    return {s: np.asarray(m.todense()) if sparse.issparse(m) else m for s, m in value.maps.items()}


def matrix_of(function: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> tuple[Matrix, tuple[int, ...]]:
    """Matrix of a linear function on samples of `shape`, by pushing one-hot inputs through it in batches.

    function: (B, *shape) float64 -> (B, *out). Returns a sparse (numel out, numel in) matrix and out.
    """
    size = prod(shape)
    pieces = []
    out: tuple[int, ...] = ()
    step = max(1, min(size, 2_000_000 // max(size, 1) + 1))
    for start in range(0, size, step):
        stop = min(size, start + step)
        batch = np.zeros((stop - start, size))
        batch[np.arange(stop - start), np.arange(start, stop)] = 1.0
        image = function(batch.reshape(stop - start, *shape))
        out = tuple(image.shape[1:])
        pieces.append(sparse.csr_matrix(image.reshape(stop - start, -1)))
    return sparse.vstack(pieces, format="csr").T.tocsr(), out
