"""Bounds on rounding against exact rational arithmetic, and proofs that trust no numerical routine."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stabilitykit_lipschitz import dense, lipschitz
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import fold_slack, product_bound
from stabilitykit_lipschitz.rounding import TINY, frobenius, gamma, is_positive, norm_bound, times, up
from stabilitykit_lipschitz.slopes import named

seeds = st.integers(0, 10**6)


def exact(array: np.ndarray) -> list[Fraction]:
    return [Fraction(float(v)) for v in array.ravel()]


@given(seeds, st.integers(2, 300))
def test_sums_are_off_by_gamma_at_most(seed: int, terms: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, terms))
    true = sum(x * y for x, y in zip(exact(a), exact(b)))
    size = sum(abs(x * y) for x, y in zip(exact(a), exact(b)))
    assert abs(Fraction(float(a @ b)) - true) <= Fraction(gamma(terms)) * size
    assert 0 < gamma(terms) < 2 * (terms + 2) * 2.0**-53


@given(st.floats(1e-280, 1e280))
def test_up_is_above_what_a_few_roundings_lose(value: float) -> None:
    assert Fraction(up(value)) >= Fraction(value) * (1 + Fraction(1, 10**15))
    assert up(0.0) == TINY > 0 and up(value) <= value * (1 + 1e-13)


@given(st.lists(st.floats(0, 1e150), max_size=6))
def test_products_of_bounds_are_above_the_exact_one_and_zero_only_for_a_zero(bounds: list[float]) -> None:
    product = times(*bounds)
    assert product == math.inf or Fraction(product) * (1 + Fraction(1, 2**50)) >= math.prod(exact(np.array(bounds)))
    assert (product == 0) == (0 in bounds)


@pytest.mark.parametrize("power", [-80, -200, -320])
def test_a_norm_product_below_float64_is_no_zero(power: int) -> None:
    """Weights of 10^power, four layers: the constant 10^(4 power) is below the smallest float64, but not 0."""
    weights = 4 * [np.array([[10.0**power]])]
    network = dense(weights, None, named("relu"))
    assert product_bound(network) > 0 and fold_slack(network, {(1, 0): 10.0**power}, False) > 0
    assert lipschitz(network, method="product").upper > 0
    assert product_bound(dense([*weights[:3], np.zeros((1, 1))], None, named("relu"))) == 0


@given(seeds, st.integers(-250, 150))
def test_the_frobenius_norm_is_above_the_exact_one(seed: int, power: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal((4, 7)) * 10.0**power
    found = Fraction(frobenius(matrix)) ** 2
    true = sum(v * v for v in exact(matrix))
    assert true <= found <= true * (1 + Fraction(1, 10**12))


@given(seeds, st.integers(-250, 100))
def test_norms_of_rank_one_are_above_the_exact_one(seed: int, power: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-9, 10, (2, 6)).astype(float)
    matrix = np.outer(a, b) * 2.0**power  # exact
    found = Fraction(norm_bound(matrix)) ** 2
    true = sum(v * v for v in exact(a)) * sum(v * v for v in exact(b)) * Fraction(2) ** (2 * power)
    assert true <= found <= true * (1 + Fraction(1, 10**8))


@pytest.mark.parametrize("factor", [0.0, 0.5, 1 - 1e-6, 2.0, -1.0, float("nan")])
def test_a_norm_is_proven_whatever_the_eigenvalues_are_said_to_be(monkeypatch, factor: float) -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 8))
    true = float(np.linalg.norm(matrix, 2))
    plain = np.linalg.eigvalsh
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda gram: factor * plain(gram))
    assert norm_bound(matrix) >= true


def test_positivity_is_that_of_everything_within_the_error() -> None:
    assert is_positive(np.eye(3), 0.3) and is_positive(np.diag([1.0, 1e-6]), 1e-8)
    for matrix, error in (
        (np.diag([1.0, 0.0]), 1e-3),
        (np.diag([1.0, 1e-3]), 2e-3),
        (np.diag([1.0, -1e-12]), 0.0),
        (np.array([[1.0, 1.0 + 1e-9], [1.0 + 1e-9, 1.0]]), 0.0),
        (-np.eye(2), 0.0),
    ):
        assert not is_positive(matrix, error)


@pytest.mark.parametrize("wrong", [1e-6, 1e-3, 0.1])
def test_positivity_is_proven_whatever_factor_is_given(monkeypatch, wrong: float) -> None:
    """The factor of a nearby matrix, which is positive, is no proof for this one, which is not."""
    matrix = np.diag([1.0, 1.0, -wrong / 2])
    plain = np.linalg.cholesky
    monkeypatch.setattr(np.linalg, "cholesky", lambda shifted: plain(shifted + wrong * np.eye(3)))
    assert not is_positive(matrix, 0.0)


def moved(network: Network, index: int, error: float) -> Network:
    """One block moved by ``error`` in the direction that matters most."""
    block = network.layers[index].blocks[index]
    left, _, right = np.linalg.svd(block)
    network.layers[index].blocks[index] = block + error * np.outer(left[:, 0], right[0])
    return network


@pytest.mark.parametrize("index", [0, 1])
def test_rounding_while_folding_is_allowed_for(index: int) -> None:
    def net() -> Network:
        rng = np.random.default_rng(3)
        return dense([rng.standard_normal((4, 4)) for _ in range(3)], None, named("relu"))

    network, error = net(), 1e-3
    before = product_bound(network)
    network.errors[index + 1, index] = error
    after = product_bound(moved(net(), index, error))
    assert after > before * (1 + 1e-6)
    assert product_bound(network) >= after * (1 - 1e-12)
    slack = fold_slack(network, network.errors, False)
    assert slack >= (after - before) * (1 - 1e-9) and math.isfinite(slack)
    assert fold_slack(network, {}, False) == 0.0
