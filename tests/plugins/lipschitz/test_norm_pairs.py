"""Pairs of norms: one layer against exact formulas, networks against every corner of their slopes, by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_lipschitz import Ball, Network, dense, lipschitz, norm_pairs
from stabilitykit_lipschitz.network import Layer
from stabilitykit_lipschitz.pairs import NORMS
from stabilitykit_lipschitz.slopes import named

PAIRS = [(p, q) for p in range(3) for q in range(3)]


def exact(matrix: np.ndarray, p: int, q: int) -> float:
    """||A|| from norm p to norm q: the largest image of an extreme point of the unit ball of p, or of the dual's."""
    if p == 0:  # the extreme points are the axes
        return float(np.linalg.norm(matrix, NORMS[q], axis=0).max())
    if p == 1 and q == 1:
        return float(np.linalg.norm(matrix, 2))
    if p == 1:  # the transposed matrix has the same norm, from the dual of q to l2
        return exact(matrix.T, 2 - q, 1)
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=matrix.shape[1])))
    return float(np.linalg.norm(corners @ matrix.T, NORMS[q], axis=1).max())


def jacobians(network: Network, slopes: list[np.ndarray]) -> np.ndarray:
    """The Jacobian where the neurons have these slopes, (K, n)."""
    states = [np.eye(network.inputs)]
    for layer, slope in zip(network.layers, slopes):
        states.append(slope[:, None] * sum(w @ states[k] for k, w in layer.blocks.items()))
    return sum(w @ states[k] for k, w in network.outputs.items())


def random_network(rng: np.random.Generator, skips: bool, activation: str, scale: float) -> Network:
    sizes = [3, 3, 2]
    layers = []
    for level in (1, 2):
        sources = range(level) if skips else (level - 1,)
        blocks = {k: scale * rng.standard_normal((sizes[level], sizes[k])) for k in sources}
        alpha, beta = named(activation).bounds(sizes[level])
        bias = rng.standard_normal(sizes[level])
        layers.append(Layer(blocks, bias, named(activation), alpha, beta))
    outputs = {k: rng.standard_normal((3, sizes[k])) for k in (range(3) if skips else (2,))}
    return Network(3, tuple(layers), outputs, np.zeros(3))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(-100, 100), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_one_linear_layer(m: int, n: int, exponent: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal((m, n)) * 10.0**exponent
    network = dense([matrix], None, named("relu"))
    tables = [norm_pairs.layer_table(network), norm_pairs.slope_table(network)]
    for p, q in PAIRS:
        true = exact(matrix, p, q)
        for table in tables:
            assert table is not None
            assert true * (1 - 1e-12) <= table[p, q]
            if p == 0 or q == 2 or p == q:  # a formula gives these; the others are NP-hard, or of one side only
                assert table[p, q] <= true * (1 + 1e-8)
            assert table[p, q] <= true * math.sqrt(m * n) * (1 + 1e-8)


@given(st.booleans(), st.sampled_from(["relu", "leaky relu", "silu"]), st.sampled_from([0.1, 1.0, 30.0]), st.data())
@settings(max_examples=12, deadline=None)
def test_no_choice_of_slopes_is_above_a_bound(skips: bool, activation: str, scale: float, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    network = random_network(rng, skips, activation, scale)
    tables = [norm_pairs.layer_table(network), norm_pairs.slope_table(network)]
    low, high = (np.concatenate(s) for s in zip(*((layer.alpha, layer.beta) for layer in network.layers)))
    corners = [np.where(np.array(c), high, low) for c in itertools.product((False, True), repeat=5)]
    inner = [low + rng.random(5) * (high - low) for _ in range(8)]
    steepest = np.zeros((3, 3))
    for slopes in [*corners, *inner]:
        j = jacobians(network, [slopes[:3], slopes[3:]])
        steepest = np.maximum(steepest, [[exact(j, p, q) for q in range(3)] for p in range(3)])
    for table in tables:
        assert table is not None
        assert (steepest <= table * (1 + 1e-12)).all()
        assert (table <= 200 * steepest).all()  # a bound that says something


def test_the_interval_of_every_pair_contains_the_steepest_linear_piece() -> None:
    """Of a ReLU network: the corners of the slopes that some input realises, met by a dense sample of inputs."""
    rng = np.random.default_rng(4)
    network = random_network(rng, True, "relu", 1.0)
    pieces = {}
    for x in rng.standard_normal((4000, 3)) * np.geomspace(0.1, 30.0, 4000)[:, None]:
        states = [x]
        for layer in network.layers:
            states.append(np.maximum(sum(w @ states[k] for k, w in layer.blocks.items()) + layer.bias, 0.0))
        pattern = [(s > 0).astype(float) for s in states[1:]]
        pieces[tuple(np.concatenate(pattern))] = pattern
    assert len(pieces) > 5
    all_of_them = [jacobians(network, slopes) for slopes in pieces.values()]
    for p, q in PAIRS:
        true = max(exact(j, p, q) for j in all_of_them)
        found = lipschitz(network, NORMS[p], norm_out=NORMS[q], search_seconds=0.05)
        assert found.certified and (found.norm, found.norm_out) == (NORMS[p], NORMS[q])
        assert 0.5 * true <= found.lower <= true * (1 + 1e-9)
        assert true <= found.upper <= 3 * true
        local = lipschitz(network, NORMS[p], region=Ball(np.ones(3), 1e-3), norm_out=NORMS[q], search_seconds=0.05)
        assert local.lower <= local.upper <= found.upper * (1 + 1e-12)


def test_a_softmax_behind_the_outputs_is_counted() -> None:
    """The Jacobian of softmax(W x) over many x, every pair of norms."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 2))
    plain = dense([w], None, named("relu"))
    network = Network(2, (), plain.outputs, plain.offset, (2,), 0.5)
    steepest = np.zeros((3, 3))
    for x in rng.standard_normal((400, 2)):
        chances = np.exp(w @ x) / np.exp(w @ x).sum()
        j = (np.diag(chances) - np.outer(chances, chances)) @ w
        steepest = np.maximum(steepest, [[exact(j, p, q) for q in range(3)] for p in range(3)])
    table = norm_pairs.layer_table(network)
    assert (steepest <= table * (1 + 1e-12)).all() and (table <= 4 * steepest).all()
    assert norm_pairs.realised_at(network, np.zeros(2), 0, 1) == pytest.approx(
        exact((np.eye(3) / 3 - np.full((3, 3), 1 / 9)) @ w, 0, 1), rel=1e-9
    )
