"""The solver: what its points are, that one elimination serves the proof, and what is proven without any solver."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from stabilitykit_lipschitz import dense, lipschitz
from stabilitykit_lipschitz.backward import backward
from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.certificate import certify, check, eliminate, first_margin
from stabilitykit_lipschitz.dual import Dual
from stabilitykit_lipschitz.lbfgs import minimise
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import product_bound
from stabilitykit_lipschitz.proofs import quickly, solve_certified
from stabilitykit_lipschitz.reduce import prepare
from stabilitykit_lipschitz.slopes import named
from stabilitykit_lipschitz.solver import solve
from stabilitykit_lipschitz.units import constant


def net(*sizes: int, seed: int = 0, activation: str = "relu") -> Network:
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    return dense(weights, None, named(activation))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("per_input", [False, True])
def test_the_slope_of_the_dual_is_its_gradient(shared: bool, per_input: bool) -> None:
    problem = prepare(net(4, 5, 3, 2, activation="gelu"), per_input, shared)
    dual = Dual(problem, 1e-3)
    raw = np.random.default_rng(1).standard_normal((problem.rows, 3))

    def value(flat: np.ndarray) -> float:
        return 0.5 * dual.evaluate(flat.reshape(raw.shape)).value

    expected = approx_fprime(raw.ravel(), value, 1e-7)
    assert dual.slope(dual.evaluate(raw)).ravel() == pytest.approx(expected, abs=2e-6 * np.abs(expected).max())


def test_in_float32_the_dual_is_the_same_to_its_digits() -> None:
    problem = prepare(net(6, 8, 7, 3), False, False)
    raw = np.random.default_rng(2).standard_normal((problem.rows, 4))
    there, here = Dual(problem).evaluate(raw), Dual(problem, 0.0, np.float32).evaluate(raw)
    assert here.units.dtype == here.grads.dtype == np.float32
    assert here.value == pytest.approx(there.value, rel=1e-5) and here.value != there.value
    assert np.abs(here.grads - there.grads).max() < 1e-5 * np.abs(there.grads).max()


def test_an_ascent_that_begins_in_float32_ends_at_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from stabilitykit_lipschitz import solver

    problem = prepare(net(30, 60, 60, 10), False, False)
    plain = solve(problem, 1e-6)
    kinds = []
    ascend = solver._ascend
    monkeypatch.setattr(solver, "HEAVY", 0)
    monkeypatch.setattr(solver, "_ascend", lambda dual, *rest: kinds.append(dual.dtype) or ascend(dual, *rest))
    light = solve(problem, 1e-6)
    assert np.float32 in kinds and np.float64 in kinds
    assert light.level == pytest.approx(plain.level, rel=2e-6) and light.dual <= plain.level


def test_the_solvers_elimination_proves_what_one_made_anew_does() -> None:
    problem = prepare(net(10, 20, 15, 4), False, False)
    solution = solve(problem, 1e-6)
    assert solution.eliminated is not None
    anew = certify(problem, solution.mu, solution.t)
    once = certify(problem, solution.mu, solution.t, found=solution.eliminated)
    assert anew is not None and once is not None
    assert once.squared == pytest.approx(anew.squared, rel=1e-12) and once.squared >= solution.dual
    assert check(problem, once.mu * (1 + 1e-9), once.t) and not check(problem, once.mu * (1 - 1e-5), once.t)


def test_an_elimination_of_other_multipliers_is_no_proof() -> None:
    problem = prepare(net(10, 20, 15, 4), False, False)
    solution = solve(problem, 1e-6)
    foreign = eliminate(problem, solution.mu, [2.0 * t for t in solution.t], first_margin(problem))
    foreign.level *= 0.5
    found = certify(problem, solution.mu, solution.t, found=foreign)
    assert found is None or check(problem, found.mu * (1 + 1e-9), found.t)


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "leaky relu", "silu"])
def test_one_pass_over_the_layers_proves_no_more_than_the_product_of_norms(activation: str) -> None:
    network = net(8, 12, 12, 12, 3, seed=3, activation=activation)
    for norm in (2, np.inf):
        for shared in (False, True):
            problem = prepare(network, norm != 2, shared)
            found = quickly(problem)
            assert found is not None
            bound = constant(problem, found)
            best = lipschitz(network, norm, method="layer" if shared else "sdp", search_seconds=0.01).upper
            assert best * (1 - 1e-6) <= bound <= product_bound(network, norm != 2) * 1.002
            assert check(problem, found.mu * (1 + 1e-9), found.t)


def test_one_pass_reads_skips() -> None:
    rng = np.random.default_rng(7)
    network = net(5, 6, 6, 2)
    layers = list(network.layers)
    layers[1].blocks[0] = rng.standard_normal((6, 5))
    network.outputs[1] = rng.standard_normal((2, 6))
    problem = prepare(network, False, False)
    multipliers = backward(problem)
    assert multipliers is not None
    found = certify(problem, *multipliers)
    assert found is not None and constant(problem, found) <= product_bound(network) * 1.002


def test_where_the_solver_proves_nothing_one_pass_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from stabilitykit_lipschitz import proofs

    network = net(6, 10, 10, 3)
    problem = prepare(network, False, False)

    def hopeless(*args: object, **kwargs: object) -> object:
        found = solve(problem, 1e-2, budget=Budget(0.0))
        found.level, found.t = np.inf, [np.full(len(t), 1e-12) for t in found.t]
        return found

    monkeypatch.setattr(proofs, "solve", hopeless)
    found = solve_certified(problem, 1e-4, 0.001, 0)
    assert found is not None and found[3] == proofs.REPAIRED
    assert constant(problem, found[0]) <= product_bound(network) * 1.002


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_descent_finds_the_minimum_of_a_quadratic(dtype: type) -> None:
    scales = np.geomspace(1.0, 300.0, 40).astype(dtype)
    end = minimise(lambda x: (float(0.5 * (scales * x * x).sum()), scales * x), np.ones(40, dtype), 1e-4, 400)
    assert end.converged and end.x.dtype == dtype and np.abs(end.x).max() < 2e-4
