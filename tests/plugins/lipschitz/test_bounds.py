"""The interval really contains the constant: against realised norms, exhaustive patterns, cvxpy and products."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stabilitykit_lipschitz import dense, lipschitz, verify
from stabilitykit_lipschitz.lower import jacobian
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import product_bound
from stabilitykit_lipschitz.slopes import leaky, named

from tests.plugins.lipschitz.random_nets import as_scaled, random_network


def worst_pattern(network: Network) -> float:
    """Largest Jacobian norm over all corner slope matrices of one hidden layer (an upper bound of the truth)."""
    layer = network.layers[0]
    best = 0.0
    for corner in itertools.product((0, 1), repeat=layer.size):
        d = np.where(np.array(corner) == 1, layer.beta, layer.alpha)
        j = network.outputs.get(0, 0.0) + (network.outputs[1] * d) @ layer.blocks[0]
        best = max(best, float(np.linalg.norm(j, 2)))
    return best


@given(seed=st.integers(0, 10**6), infinite=st.booleans())
def test_never_below_a_realised_jacobian_nor_above_the_product(seed: int, infinite: bool) -> None:
    network = random_network(seed)
    found = lipschitz(network, norm="inf" if infinite else 2, search_seconds=0.05)
    assert found.lower <= found.upper
    assert found.upper <= product_bound(network, infinite) * (1 + 1e-6) + 1e-300
    assert found.gap <= 1e-4 or found.method == "product"
    if not infinite:
        x = np.random.default_rng(seed).standard_normal((20, network.inputs)) * 3
        for point in x:
            assert np.linalg.norm(jacobian(network, point), 2) <= found.upper * (1 + 1e-12)


@given(seed=st.integers(0, 10**6))
def test_difference_quotients_stay_below(seed: int) -> None:
    network = random_network(seed)
    found = lipschitz(network, search_seconds=0.01)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, network.inputs)) * 5
    y = x + rng.standard_normal(x.shape) * 10.0 ** rng.uniform(-2, 1, (200, 1))
    apart = np.linalg.norm(network(x) - network(y), axis=1)
    noise = 1e-12 * (1 + np.abs(network(x)).max() + np.abs(network(y)).max())
    assert (apart <= found.upper * np.linalg.norm(x - y, axis=1) * (1 + 1e-9) + noise).all()


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_every_slope_pattern(alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = dense([rng.standard_normal((7, 4)), rng.standard_normal((2, 7))], None, leaky(alpha))
    worst = worst_pattern(network)
    for method in ("sdp", "layer", "product"):
        assert lipschitz(network, method=method, search_seconds=0.01).upper >= worst * (1 - 1e-12)
    assert lipschitz(network, search_seconds=0.01).upper <= 1.6 * worst


@pytest.mark.parametrize(
    ("sizes", "name", "infinite"),
    [
        ((4, 8, 3), "relu", False),
        ((6, 8, 6, 2), "gelu", False),
        ((5, 6, 5, 1), "leaky relu", False),
        ((5, 8, 2), "relu", True),
        ((4, 5, 4, 3), "tanh", True),
    ],
)
@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
def test_agrees_with_cvxpy(sizes: tuple[int, ...], name: str, infinite: bool, solver: str) -> None:
    rng = np.random.default_rng(len(sizes))
    network = dense([rng.standard_normal((b, a)) for a, b in itertools.pairwise(sizes)], None, named(name))
    norm = "inf" if infinite else 2
    ours = lipschitz(network, norm, "sdp", tol=1e-6, search_seconds=0.01)
    theirs = lipschitz(network, norm, "cvxpy", solver=solver, search_seconds=0.01)
    assert theirs.method == f"cvxpy-{solver.lower()}"
    assert ours.upper == pytest.approx(theirs.upper, rel=1e-4)
    assert theirs.upper >= ours.sdp_dual * (1 - 1e-9)


def test_layer_multipliers_agree_with_cvxpy() -> None:
    from stabilitykit_lipschitz.cvxpy_solver import propose
    from stabilitykit_lipschitz.reduce import prepare

    rng = np.random.default_rng(3)
    network = dense([rng.standard_normal(s) for s in ((8, 5), (6, 8), (3, 6))], None, named("relu"))
    problem = prepare(network, False, True)
    value = math.ldexp(math.sqrt(propose(problem).level), problem.exponent)
    found = lipschitz(network, method="layer", tol=1e-6, search_seconds=0.01)
    assert found.upper == pytest.approx(value, rel=1e-5)
    assert found.upper >= lipschitz(network, method="sdp", tol=1e-6, search_seconds=0.01).upper * (1 - 1e-6)


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("name", ["relu", "gelu", "selu"])
def test_the_papers_construction_is_the_spectral_norm(n: int, name: str) -> None:
    w = np.random.default_rng(n).standard_normal((10, n))
    activation = named(name)
    alpha, beta = activation.bounds(1)
    steepest = max(abs(alpha[0]), beta[0])
    found = lipschitz(dense([np.eye(n), w], None, activation), tol=1e-7, search_seconds=0.01)
    assert found.upper == pytest.approx(steepest * np.linalg.norm(w, 2), rel=1e-6)


def test_one_linear_layer_is_its_spectral_norm_on_both_sides() -> None:
    w = np.random.default_rng(0).standard_normal((10, 300))
    found = lipschitz(dense([w], None, named("relu")))
    truth = np.linalg.norm(w, 2)
    assert found.lower <= truth * (1 + 1e-14) and truth * (1 - 1e-14) <= found.upper
    assert found.upper / found.lower - 1 < 1e-9


@given(seed=st.integers(0, 10**6), power=st.integers(-60, 60))
def test_scaling_the_output_scales_the_interval(seed: int, power: int) -> None:
    network = random_network(seed)
    factor = 2.0**power
    a, b = (lipschitz(n, search_seconds=0.01) for n in (network, as_scaled(network, factor)))
    assert b.upper == pytest.approx(a.upper * factor, rel=1e-9)


@given(seed=st.integers(0, 10**6))
def test_permuting_neurons_and_rotating_the_input_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w1, w2 = rng.standard_normal((6, 5)), rng.standard_normal((3, 6))
    order = rng.permutation(6)
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    plain = lipschitz(dense([w1, w2], None, named("relu")), tol=1e-6, search_seconds=0.01)
    moved = lipschitz(dense([w1[order] @ q, w2[:, order]], None, named("relu")), tol=1e-6, search_seconds=0.01)
    assert plain.upper == pytest.approx(moved.upper, rel=3e-6)


@given(seed=st.integers(0, 10**6))
def test_composition_is_below_the_product_of_constants(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = [rng.standard_normal((4, 4)) for _ in range(4)]
    relu = named("relu")
    first = lipschitz(dense(w[:2], None, relu), search_seconds=0.01).upper
    second = lipschitz(dense(w[2:], None, relu), search_seconds=0.01).upper
    both = lipschitz(dense([w[0], w[2] @ w[1], w[3]], None, relu), search_seconds=0.01)
    assert both.upper <= first * second * (1 + 1e-4)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), infinite=st.booleans())
def test_multipliers_are_a_proof_by_themselves(seed: int, infinite: bool) -> None:
    network = random_network(seed)
    norm = "inf" if infinite else 2
    found = lipschitz(network, norm, search_seconds=0.01)
    assume(found.method != "product" and found.upper > 0)
    args = {"norm": norm, "input_multipliers": found.input_multipliers}
    assert verify(network, found.multipliers, found.rho, **args) == pytest.approx(found.upper, rel=1e-9)
    if found.upper > found.sdp_dual * (1 + 1e-9) or not network.layers:
        shrunk = None if found.input_multipliers is None else found.input_multipliers * 0.998
        args["input_multipliers"] = shrunk
        assert verify(network, found.multipliers, found.rho * 0.998, **args) is None


@pytest.mark.slow
def test_ten_thousand_random_networks() -> None:
    below = []
    for seed in range(10_000):
        found = lipschitz(random_network(seed), norm="inf" if seed % 5 == 0 else 2, search_seconds=0.05)
        if found.lower > found.upper:
            below.append((seed, found.lower, found.upper))
    assert not below
