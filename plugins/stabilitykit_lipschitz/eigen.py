"""Lowest eigenvalues of a dense symmetric matrix, by another algorithm where LAPACK's quickest one gives up."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, eigh


def lowest_of(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` smallest eigenvalues (count,), ascending, and their vectors (n, count), of a matrix (n, n) float64.

    The choice of single eigenvalues (LAPACK's ``syevr``) ends with "Internal Error." on some matrices whose entries
    span hundreds of decades; divide and conquer does not.
    """
    try:
        values, vectors = eigh(matrix, subset_by_index=(0, count - 1), check_finite=False)
    except LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
    return values[:count], vectors[:, :count]
