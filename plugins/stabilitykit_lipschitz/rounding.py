"""Bounds on float64 rounding, and norms rounded upward."""

from __future__ import annotations

import math

import numpy as np

UNIT = 2.0**-53
TINY = 1e-290  # absolute floor added to bounds, far above underflow
SMALLEST = float(np.finfo(np.float64).tiny)  # below it float64 loses digits, and then the number


def gamma(terms: int) -> float:
    """Relative error of a float64 inner product of `terms` products, any order of summation (Higham, gamma_n)."""
    k = (terms + 2) * UNIT
    return k / (1.0 - k) * (1.0 + 1e-10)


def up(value: float) -> float:
    """A number at least `value` plus what a handful of roundings can have lost."""
    return float(np.nextafter(value * (1.0 + 1e-14), np.inf)) if value > 0 else TINY


def times(*bounds: float) -> float:
    """The product of upper bounds, none negative; where it underflows an upper bound of it, and 0 only if one is 0."""
    if not all(bounds):
        return 0.0
    product = 1.0
    for bound in bounds:
        product = max(float(product * bound), SMALLEST)
    return product


def frobenius(matrix: np.ndarray) -> float:
    """Upper bound on the Frobenius norm; overflow and underflow are scaled away."""
    top = float(np.abs(matrix).max(initial=0.0))
    if top == 0.0:
        return 0.0
    scale = math.ldexp(1.0, math.frexp(top)[1])
    scaled = matrix / scale
    return times(scale, math.sqrt(float(np.sum(scaled * scaled))) * (1.0 + gamma(matrix.size)))


def norm_bound(matrix: np.ndarray) -> float:
    """A proven upper bound on the spectral norm, normally within 1e-9 of it.

    s^2 I - G is shown positive semidefinite by a Cholesky factor whose residual is measured; G is the smaller Gram
    matrix. Falls back to the Frobenius norm.
    """
    top = float(np.abs(matrix).max(initial=0.0))
    if top == 0.0:
        return 0.0
    scale = math.ldexp(1.0, math.frexp(top)[1])
    a = matrix / scale  # exact unless denormal
    if a.shape[0] > a.shape[1]:
        a = a.T
    gram = a @ a.T
    rows = np.sqrt(np.einsum("ij,ij->i", a, a))
    error = gamma(a.shape[1] + 4) * float(rows.max() * rows.sum())
    try:
        largest = float(np.linalg.eigvalsh(gram)[-1])
        for margin in (1e-11, 1e-9, 1e-7):
            level = largest * (1.0 + margin) + 8.0 * error
            if is_positive(level * np.eye(len(gram)) - gram, error + 4 * UNIT * (level + rows.max() ** 2)):
                return times(scale, math.sqrt(level) * (1.0 + 1e-14))
    except np.linalg.LinAlgError:
        pass
    return frobenius(matrix)


def is_positive(a: np.ndarray, error: float | np.ndarray) -> np.ndarray:
    """True only if every symmetric matrix within `error` (2-norm) of `a` is positive semidefinite; bool (...).

    a: (..., n, n), error: (...); of several matrices of which one has no factor none is said to be.
    """
    size, error = a.shape[-1], np.asarray(error)
    top = np.abs(np.diagonal(a, axis1=-2, axis2=-1)).max(-1)
    shift = 2.0 * error + 4.0 * gamma(size + 2) * top * math.sqrt(size)
    shifted = a - shift[..., None, None] * np.eye(size)
    try:
        factor = np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return np.zeros(shift.shape, dtype=bool)
    residual = np.abs(shifted - factor @ np.swapaxes(factor, -1, -2)).sum(-1).max(-1)
    absolute = np.abs(factor)
    lost = gamma(size + 4) * (absolute @ absolute.sum(-2)[..., None]).max((-2, -1))
    lost = lost + 4.0 * UNIT * (top + shift)
    proven: np.ndarray = (residual + lost + error) * (1.0 + 1e-10) <= shift
    return proven
