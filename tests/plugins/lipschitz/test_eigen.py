"""The lowest eigenvalues, also where LAPACK's choice of single ones gives up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import LinAlgError
from stabilitykit_lipschitz import dense, eigen, lipschitz
from stabilitykit_lipschitz.eigen import lowest_of
from stabilitykit_lipschitz.slopes import named


def gives_up(*_: object, **__: object) -> None:
    raise LinAlgError("Internal Error.")


@pytest.mark.parametrize("failing", [False, True])
def test_the_lowest_values_and_vectors(monkeypatch, failing: bool) -> None:
    matrix = np.random.default_rng(0).standard_normal((7, 7))
    matrix += matrix.T
    if failing:
        monkeypatch.setattr(eigen, "eigh", gives_up)
    values, vectors = lowest_of(matrix, 3)
    assert values.shape == (3,) and vectors.shape == (7, 3)
    np.testing.assert_allclose(values, np.sort(np.linalg.eigvals(matrix).real)[:3], rtol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-12)


def test_a_bound_is_certified_where_lapack_gives_up(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    network = dense([rng.standard_normal(s) for s in ((6, 4), (5, 6), (2, 5))], None, named("relu"))
    usual = lipschitz(network).upper
    monkeypatch.setattr(eigen, "eigh", gives_up)
    assert lipschitz(network).upper == pytest.approx(usual, rel=1e-5)
