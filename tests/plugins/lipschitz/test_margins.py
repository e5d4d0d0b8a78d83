"""Lip(g_a - g_b) and certified radii: against brute force in float64, projections and attacks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from stabilitykit_lipschitz import Network, dense, margins
from stabilitykit_lipschitz.closed_radii import ClosedRadii
from stabilitykit_lipschitz.extract import extract
from stabilitykit_lipschitz.local_radius import local_radius
from stabilitykit_lipschitz.lower import jacobian
from stabilitykit_lipschitz.margins import (
    MarginBounds,
    certified_margins,
    certified_radii,
    logits_within,
    margin_network,
)
from stabilitykit_lipschitz.slopes import named
from torch import nn


def linear(rows: np.ndarray, offset: np.ndarray) -> Network:
    return Network(rows.shape[1], (), {0: rows}, offset, (rows.shape[1],))


def radius_of(network: Network, states: np.ndarray, decided: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    values, allowance = logits_within(network, states)
    chosen = values.argmax(axis=1) if decided is None else decided
    bounds = MarginBounds(network)
    bounds.prepare(chosen)
    rows = np.stack([bounds.of(int(a)) for a in chosen])
    return certified_radii(certified_margins(values, allowance, chosen), rows)


def projected(state: np.ndarray, row: np.ndarray, lead: float) -> np.ndarray:
    """The point of the plane row y + lead = 0 that is nearest to ``state``, by a general solver."""
    return minimize(
        lambda y: ((y - state) ** 2).sum(),
        state,
        jac=lambda y: 2 * (y - state),
        constraints={"type": "eq", "fun": lambda y: y @ row + lead, "jac": lambda y: row},
        method="SLSQP",
        options={"ftol": 1e-15},
    ).x


def deep(seed: int, activation="tanh", classes: int = 3, scale: float = 1.0) -> Network:
    rng = np.random.default_rng(seed)
    sizes = [4, 6, 5, classes]
    weights = [scale * rng.standard_normal((m, n)) / n**0.5 for n, m in itertools.pairwise(sizes)]
    return dense(weights, [0.3 * rng.standard_normal(m) for m in sizes[1:]], named(activation))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 8), st.sampled_from([1e-150, 1e-6, 1.0, 1e5, 1e150]))
def test_linear_constants_are_lengths_of_differences_rounded_up(seed, classes, size, scale):
    rng = np.random.default_rng(seed)
    rows = scale * rng.standard_normal((classes, size))
    rows[-1] = rows[0] * (1 + 1e-9 * rng.standard_normal(size))  # nearly one row: inner products lose its digits
    bounds = MarginBounds(linear(rows, np.zeros(classes)))
    for a in range(classes):
        found = bounds.of(a)
        for b in range(classes):
            exact = scale * math.sqrt(math.fsum(((x - y) / scale) ** 2 for x, y in zip(rows[a], rows[b])))
            assert exact * (1 - 1e-15) <= found[b] <= exact * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 6))
def test_a_linear_radius_is_the_distance_to_the_decision_boundary(seed, classes, size):
    """Found independently: the nearest point at which another output is as large, by a constrained search (SLSQP)."""
    rng = np.random.default_rng(seed)
    network = linear(rng.standard_normal((classes, size)), rng.standard_normal(classes))
    state = rng.standard_normal(size)
    a = int(network(state[None])[0].argmax())
    (radius,), (other,) = radius_of(network, state[None])
    nearest = {}
    for b in set(range(classes)) - {a}:
        row, lead = network.outputs[0][a] - network.outputs[0][b], network.offset[a] - network.offset[b]
        found = projected(state, row, float(lead))
        nearest[b] = float(np.linalg.norm(found - state))
    assert radius == pytest.approx(min(nearest.values()), rel=1e-6, abs=1e-7)
    assert nearest[other] == pytest.approx(min(nearest.values()), rel=1e-6, abs=1e-7)
    direction = network.outputs[0][other] - network.outputs[0][a]
    step = radius * direction / np.linalg.norm(direction)
    before, after = (network((state + factor * step)[None])[0] for factor in (1 - 1e-9, 1 + 1e-6))
    assert before.argmax() == a and after.argmax() != a  # just inside, and just outside along the worst direction


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("seed", range(3))
def test_no_perturbation_inside_the_radius_changes_a_decision(seed, activation):
    """Ascent towards every other class, projected onto the ball, from many starts; and radii are not all nothing."""
    network, rng = deep(seed, activation), np.random.default_rng(seed)
    states = rng.standard_normal((12, 4))
    decided = network(states).argmax(axis=1)
    radii, _ = radius_of(network, states)
    assert (radii > 0).all()
    for state, a, radius in zip(states, decided, radii):
        at = state + radius * 0.3 * rng.standard_normal((24, 4)) / 2
        towards = np.arange(24) % network.classes
        for _ in range(40):
            u = np.eye(network.classes)[towards] - np.eye(network.classes)[a]
            slope = network.pull(network.slopes_at(at), u)
            at = at + 0.2 * radius * slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
            away = at - state
            length = np.linalg.norm(away, axis=1, keepdims=True)
            at = state + away * np.minimum(1.0, radius * (1 - 1e-12) / np.maximum(length, 1e-300))
            assert (network(at).argmax(axis=1) == a).all()


@pytest.mark.parametrize("classes", [3, 25])
def test_deep_constants_are_above_every_slope_and_below_the_product(classes):
    """Many classes are bounded in another way than few."""
    network, rng = deep(1, classes=classes), np.random.default_rng(0)
    bounds = MarginBounds(network)
    found = np.stack([bounds.of(a) for a in range(classes)])
    if classes == 3:
        assert np.array_equal(found, found.T) and "pair" in bounds.method
    for x in 2 * rng.standard_normal((40, 4)):
        j = jacobian(network, x)
        apart = np.linalg.norm(j[:, None] - j[None], axis=2)
        assert (apart <= found * (1 + 1e-12)).all()
    for a in range(2):
        assert found[a, a] == 0.0
        assert bounds.single(a) >= max(np.linalg.norm(jacobian(network, x)[a]) for x in rng.standard_normal((20, 4)))
        for b in range(classes):
            product = margins.product_bound(margin_network(network, a, b)) if a != b else 0.0
            assert found[a, b] <= product * (1 + 1e-9)


def test_a_scale_of_the_head_leaves_radii_as_they_are_and_one_of_states_scales_them():
    rng = np.random.default_rng(0)
    rows, offset, states = rng.standard_normal((4, 7)), rng.standard_normal(4), rng.standard_normal((20, 7))
    radii, others = radius_of(linear(rows, offset), states)
    for scale in (1e-100, 3.0, 1e100):
        again, same = radius_of(linear(scale * rows, scale * offset), states)
        assert np.allclose(again, radii, rtol=1e-12) and np.array_equal(same, others)
    wider, _ = radius_of(linear(rows / 8, offset), 8 * states)
    assert np.allclose(wider, 8 * radii, rtol=1e-12)


def test_ties_lost_decisions_and_what_is_not_finite_have_radius_zero():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    states = np.array([[2.0, 2.0], [1.0, 3.0], [np.nan, 0.0], [3.0, 1.0], [np.inf, 0.0]])
    radii, others = radius_of(linear(rows, np.zeros(3)), states, np.zeros(5, dtype=np.int64))
    assert radii[[0, 1, 2, 4]].tolist() == [0.0] * 4 and others[1] == 1
    assert radii[3] == pytest.approx(2**0.5, rel=1e-12) and radii[3] < 2**0.5


def test_a_margin_that_no_state_changes_has_an_infinite_radius():
    radii, _ = radius_of(linear(np.ones((2, 3)), np.array([1.0, 0.0])), np.zeros((1, 3)))
    assert radii[0] == math.inf


@pytest.mark.parametrize("known", [True, False])
def test_a_local_radius_holds_and_is_larger_than_the_global_one(known):
    network, rng = deep(2, scale=2.0), np.random.default_rng(0)
    state = rng.standard_normal(4)
    a = int(network(state[None])[0].argmax())
    (radius,), _ = radius_of(network, state[None])
    floors = np.full(3, radius if known else 0.0)
    near = local_radius(network, state, a, floors, steps=3)
    assert near > 1.01 * radius
    away = rng.standard_normal((4000, 4))
    away *= near * (1 - 1e-12) / np.linalg.norm(away, axis=1, keepdims=True)
    assert (network(state + away).argmax(axis=1) == a).all()
    assert local_radius(network, state, (a + 1) % 3, np.zeros(3), steps=2) == 0.0


@pytest.mark.parametrize("kind", ["tanh", "relu", "normalised"])
def test_radii_of_many_images_are_those_of_each_and_hold(kind):
    """In closed form: equal to one by one, never below the floors, and no state inside is decided otherwise."""
    rng = np.random.default_rng(3)
    layers = {"tanh": [nn.Tanh()], "relu": [nn.ReLU()], "normalised": [nn.LayerNorm(7), nn.GELU()]}[kind]
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 7), *layers, nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    network = extract(module, (4,))
    states = rng.standard_normal((6, 4))
    decided = network(states).argmax(axis=1)
    floors = np.zeros((6, 3))
    floors[2] = 1e-4
    closed = ClosedRadii(network)
    many = closed.of(states, decided, floors)
    one = [closed.of(states[i : i + 1], decided[i : i + 1], floors[i : i + 1]) for i in range(6)]
    assert many == pytest.approx(np.concatenate(one), rel=1e-9)
    radii = many.min(axis=1)
    assert (radii > 1e-3).all() and (many >= floors).all()
    for h, a, radius in zip(states, decided, radii, strict=True):
        away = rng.standard_normal((500, 4))
        away *= radius * (1 - 1e-12) / np.linalg.norm(away, axis=1, keepdims=True)
        assert (network(h + away).argmax(axis=1) == a).all()
        jacobians = [jacobian(network, h + step) for step in away[:20]]
        slopes = max(np.linalg.norm(j[a] - j[b]) for j in jacobians for b in range(3))
        assert slopes <= closed.slopes(h[None], np.array([radius]), np.array([a])).max() * (1 + 1e-9)
    wrong = closed.of(states[:1], (decided[:1] + 1) % 3, floors[:1] + 1)
    assert wrong.min() == 0.0


def test_a_radius_where_nothing_bends_is_the_distance_to_the_boundary():
    """Within a linear piece, up to the step of the bisection; and at a radius of 0 slopes are autograd's."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 6), nn.LeakyReLU(0.999999), nn.Linear(6, 3)).double()
    network, state = extract(module, (3,)), np.array([[0.3, -0.2, 0.5]])
    a = network(state).argmax(axis=1)
    (radius,) = ClosedRadii(network).of(state, a, np.zeros((1, 3))).min(axis=1)
    j, g = jacobian(network, state[0]), network(state)[0]
    exact = min((g[a[0]] - g[b]) / np.linalg.norm(j[a[0]] - j[b]) for b in range(3) if b != a[0])
    assert exact / 1.006 <= radius <= exact * (1 + 1e-5)
    slopes = ClosedRadii(network).slopes(state, np.zeros(1), a)[0]
    assert slopes == pytest.approx(np.linalg.norm(j[a[0]] - j, axis=1), abs=1e-9)


def test_margins_in_float64_are_those_of_exact_arithmetic():
    """A margin of nine digits' cancellation is certified no larger than it is."""
    from fractions import Fraction

    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows, state = rng.standard_normal((2, 50)) * 1e4, rng.standard_normal(50)
        offset = np.array([0.0, float(rows[0] @ state - rows[1] @ state) - 1e-9])
        terms = ((Fraction(float(p)) - Fraction(float(q))) * Fraction(float(x)) for p, q, x in zip(*rows, state))
        exact = sum(terms) - Fraction(float(offset[1]))
        found = certified_margins(*logits_within(linear(rows, offset), state[None]), np.array([0]))[0, 1]
        assert exact - 1e-6 < found <= exact
