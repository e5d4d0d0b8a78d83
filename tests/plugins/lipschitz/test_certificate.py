"""A certificate rests on what was measured of its factor; multipliers that prove nothing are refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from stabilitykit_lipschitz import certificate, dense, lipschitz, verify
from stabilitykit_lipschitz.blocks import assemble, elimination_order, factorise, scaling
from stabilitykit_lipschitz.certificate import certify, check, forming_error, residual_bound
from stabilitykit_lipschitz.reduce import Part, Problem
from stabilitykit_lipschitz.slopes import named


def problem(weights: np.ndarray, last: np.ndarray, *, per_input: bool = False) -> Problem:
    """One hidden layer of slopes in [0, 1]."""
    size, inputs = weights.shape
    part = Part(
        {0: weights}, np.zeros(size), np.ones(size), False, False, 0, np.arange(size), np.zeros(size, dtype=np.int64)
    )
    return Problem(inputs, [part], {1: last}, len(last), 0, per_input, 0.0, np.ones(inputs, dtype=bool))


def one(seed: int = 0, **more) -> Problem:
    rng = np.random.default_rng(seed)
    return problem(rng.standard_normal((4, 3)), rng.standard_normal((2, 4)), **more)


def multipliers(given: Problem) -> tuple[np.ndarray, list[np.ndarray]]:
    """Some that prove something: large enough for the output, then the level for them."""
    t = [np.full(given.parts[0].size, 4.0 * float(np.linalg.norm(given.outputs[1], 2)) ** 2)]
    return np.ones(given.inputs), t


@pytest.mark.parametrize("per_input", [False, True])
def test_a_certificate_is_a_proof_and_a_tenth_less_is_none(per_input: bool) -> None:
    given = one(per_input=per_input)
    found = certify(given, *multipliers(given))
    assert found is not None and 3 * found.residual <= found.margin
    assert check(given, found.mu * (1 + 1e-9), found.t)
    for less in (0.9, 0.99, 1 - 1e-6):
        assert not check(given, found.mu * less, found.t)
    assert not check(given, found.mu, [found.t[0] * 1e-3])


@pytest.mark.parametrize("bad", [-1.0, 0.0, np.nan, np.inf])
def test_multipliers_that_are_not_positive_prove_nothing(bad: float) -> None:
    given = one()
    mu, t = multipliers(given)
    found = certify(given, mu, t)
    assert found is not None
    spoiled = [np.where(np.arange(4) == 2, bad, s) for s in found.t]
    assert not check(given, found.mu, spoiled) and certify(given, mu, spoiled) is None
    assert not check(given, np.where(np.arange(3) == 1, bad, found.mu), found.t)


@pytest.mark.parametrize("residual", [1e-3, 0.1, np.inf, np.nan])
def test_no_certificate_without_a_small_residual(monkeypatch, residual: float) -> None:
    given = one()
    monkeypatch.setattr(certificate, "residual_bound", lambda *_: residual)
    found = certify(given, *multipliers(given))
    assert found is None or 3 * found.residual <= found.margin
    if not residual < 1:
        mu, t = multipliers(given)
        assert not check(given, 100 * mu, t)


def test_the_residual_is_that_of_the_factor() -> None:
    given = one()
    found = certify(given, *multipliers(given))
    assert found is not None
    mu, t = found.mu * 1.01, found.t
    scaled = assemble(given, mu, t)
    scaled.diagonal[0] = np.ones(given.inputs)
    order = elimination_order(scaled, last=None)
    formed = forming_error(given, mu, t)
    whole = factorise(scaled, 1e-9, order, keep_last=False)
    assert whole.failed is None and residual_bound(scaled, whole, 1e-9, formed) < 1e-9
    for off in (1e-8, 1e-3):  # the factor of a matrix whose diagonal is off by that
        other = factorise(scaled, off, order, keep_last=False)
        assert off - 2e-9 <= residual_bound(scaled, other, 1e-9, formed) < 2 * off
    part = factorise(scaled, 1e-9, order, keep_last=True)
    assert residual_bound(scaled, part, 1e-9, formed) == np.inf


@pytest.mark.parametrize("zero", [True, False])
def test_forming_the_matrix_costs_less_than_its_bound(zero: bool) -> None:
    """D S D in rational arithmetic for the D that was computed; with zero weights only its diagonal is rounded."""
    rng = np.random.default_rng(5)
    given = one(5) if not zero else problem(np.zeros((40, 3)), np.zeros((2, 40)))
    size = given.parts[0].size
    mu, t = rng.random(3) + 0.1, [rng.random(size) * 7 + 0.1]
    scaled, bounds = assemble(given, mu, t), forming_error(given, mu, t)
    d = [[Fraction(float(v)) for v in part] for part in scaling(mu, t, given.classes)]
    weights = given.parts[0].blocks[0]
    lost = False
    for i in range(size):
        multiplier = Fraction(float(t[0][i]))
        row = abs(2 * multiplier * d[1][i] ** 2 - 1)
        for j in range(3):
            true = -multiplier * d[1][i] * Fraction(float(weights[i, j])) * d[0][j]
            row += abs(true - Fraction(float(scaled.blocks[1, 0][i, j])))
        for k in range(given.classes):
            true = Fraction(float(given.outputs[1][k, i])) * d[1][i]
            row += abs(true - Fraction(float(scaled.blocks[2, 1][k, i])))
        assert row <= Fraction(float(bounds[1][i]))
        lost |= row > 0
    assert lost


def test_the_bound_of_the_largest_coordinate_sums_the_multipliers() -> None:
    """|x_1| + ... of a linear map of one output is the sum of its weights' sizes."""
    given = one(per_input=True)
    found = certify(given, *multipliers(given))
    assert found is not None and found.squared >= float(found.mu.sum()) > float(found.mu.max())
    weights = np.array([[1.0, -2.0, 3.0]])
    assert lipschitz(dense([weights, np.ones((1, 1))], None, named("relu")), "inf", search_seconds=0.01).upper >= 6.0


def test_multipliers_of_a_run_prove_its_bound_and_no_smaller_one() -> None:
    rng = np.random.default_rng(1)
    network = dense(
        [rng.standard_normal((5, 3)), rng.standard_normal((4, 5)), rng.standard_normal((2, 4))], None, named("relu")
    )
    found = lipschitz(network, search_seconds=0.01)
    assert found.certified and found.method == "sdp"
    assert verify(network, found.multipliers, found.rho) == pytest.approx(found.upper, rel=1e-9)
    for less in (0.5, 0.9, 0.99):
        assert verify(network, found.multipliers, found.rho * less) is None
