"""The lower bound is bought: more work never lowers it, load changes nothing, and it is a slope of a real input."""

from __future__ import annotations

import threading
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_lipschitz import Ball, lipschitz
from stabilitykit_lipschitz.lower import jacobian_norm, search
from stabilitykit_lipschitz.network import Network, dense
from stabilitykit_lipschitz.slopes import named
from stabilitykit_lipschitz.steering import look

from tests.plugins.lipschitz.random_nets import as_scaled, random_network


def _chain(sizes: list[int], activation: str = "relu", seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) / np.sqrt(a) for a, b in pairwise(sizes)]
    return dense(weights, [0.3 * rng.standard_normal(b) for b in sizes[1:]], named(activation))


@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), infinite=st.booleans(), softmax=st.booleans())
def test_more_work_never_finds_less(seed: int, infinite: bool, softmax: bool) -> None:
    network = random_network(seed)
    if softmax:
        network = Network(network.inputs, network.layers, network.outputs, network.offset, (), 0.5)
    with np.errstate(all="ignore"):
        values = [search(network, None, None, infinite, 0, s).value for s in (0.001, 0.01, 0.05, 0.15, 0.4)]
    assert values == sorted(values)


def test_load_changes_nothing() -> None:
    network = _chain([12, 20, 15, 4])
    quiet = search(network, seconds=0.3)
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [sum(range(1000)) for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        loaded = search(network, seconds=0.3)
    finally:
        stop.set()
        busy.join()
    assert loaded.value == quiet.value and loaded.x.tobytes() == quiet.x.tobytes()


def _every_pattern(w: np.ndarray, bias: np.ndarray, c: np.ndarray) -> float:
    """The constant of c relu(w x + bias) for linearly independent rows of w, where every pattern has an input."""
    assert np.linalg.matrix_rank(w) == len(w)
    return max(float(np.linalg.norm((c * np.array(d)) @ w, 2)) for d in product((0.0, 1.0), repeat=len(w)))


@pytest.mark.parametrize("seed", range(3))
def test_all_patterns_of_one_layer_are_reached(seed: int) -> None:
    network = _chain([10, 8, 3], seed=seed)
    layer = network.layers[0]
    truth = _every_pattern(layer.blocks[0], layer.bias, network.outputs[1])
    found = search(network, seconds=1.0)
    assert truth * (1 - 1e-6) <= found.value <= truth
    interval = lipschitz(network, method="exact")
    assert interval.exact and interval.lower <= truth * (1 + 1e-12) and truth <= interval.upper


def test_the_budget_is_used() -> None:
    """A search that stops early keeps its first value."""
    network = _chain([64, 64, 64, 10], "leaky relu", 3)
    early, late = search(network, seconds=0.2).value, search(network, seconds=2.0).value
    assert late > 1.05 * early


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), power=st.integers(-150, 150))
def test_never_above_the_certified_bound(seed: int, power: int) -> None:
    """Skips, odd activations, tiny and huge scales."""
    network = as_scaled(random_network(seed), 10.0**power)
    found = lipschitz(network, search_seconds=0.1)
    assert found.lower <= found.upper
    x = np.ravel(found.witness_input)
    assert jacobian_norm(network, x) == found.lower


def test_a_ball_is_not_left() -> None:
    region = Ball(np.ones(12), 0.5)
    found = search(_chain([12, 20, 15, 4]), region, seconds=0.3)
    assert region.contains(found.x) and found.value > 0


@pytest.mark.parametrize("softmax", [False, True])
def test_steering_points_where_the_slope_grows(softmax: bool) -> None:
    """For a smooth network the direction is the gradient of ||J v||, which torch takes by differentiating twice."""
    network = _chain([5, 7, 6, 3], "tanh")
    network = Network(5, network.layers, network.outputs, network.offset, (), 0.5 if softmax else 1.0)
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((2, 5)), rng.standard_normal((2, 5))
    seen = look(network, x, v, np.full((2, 1), 1e-4))

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = x
        for index, layer in enumerate(network.layers):
            y = torch.tanh(y @ torch.from_numpy(layer.blocks[index]).T + torch.from_numpy(layer.bias))
        out = y @ torch.from_numpy(network.outputs[2]).T + torch.from_numpy(network.offset)
        return out.softmax(-1) if softmax else out

    for row in range(2):
        at = torch.from_numpy(x[row]).requires_grad_()
        image = torch.autograd.functional.jvp(forward, at, torch.from_numpy(v[row]), create_graph=True)[1]
        (gradient,) = torch.autograd.grad(image.norm(), at)
        assert seen.size[row] == pytest.approx(float(image.detach().norm()), rel=1e-12)
        np.testing.assert_allclose(seen.ahead[row], gradient.numpy(), rtol=1e-5, atol=1e-7)
