"""method="exact": patterns are ruled out by proof, never by a linear program's tolerance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stabilitykit_lipschitz import Ball, lipschitz
from stabilitykit_lipschitz.farkas import impossible, impossible_in_box
from torch import nn


def _needle(tiny: float) -> nn.Module:
    """Steepest only near x = (-1, 4 / tiny): the second weight of the second neuron is all that turns it on there."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    net[0].weight.data = torch.tensor([[-1.0, 0.0], [1.0, tiny], [0.3, 1.0]]).double()
    net[0].bias.data = torch.tensor([0.0, -1.0, 0.0]).double()
    net[2].weight.data = torch.tensor([[-1.0, 1.0, 0.01]]).double()
    return net


@pytest.mark.parametrize("tiny", [1e-12, 1e-9, 1e-7, 1e-3])
def test_tiny_weights_are_not_rounded_away(tiny: float) -> None:
    net = _needle(tiny)
    found = lipschitz(net, method="exact", search_seconds=0.1)
    x = torch.tensor([-1.0, 4.0 / tiny]).double()
    slope = float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(lambda v: net(v[None])[0], x), 2))
    assert slope <= found.upper * (1 + 1e-12)
    assert not found.exact or found.lower >= slope * (1 - 1e-5)
    near = lipschitz(net, method="exact", region=Ball(np.zeros(2), 10.0), search_seconds=0.1)
    assert near.upper >= near.lower and (tiny > 1e-4 or near.upper < 0.8 * slope)


@given(seed=st.integers(0, 10**6), power=st.floats(-9, 9))
def test_only_empty_systems_are_ruled_out(seed: int, power: float) -> None:
    """A solution x is planted, so nothing may prove that there is none, whatever the multipliers."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((6, 3)) * 10.0 ** rng.uniform(-abs(power), abs(power) + 1e-9, (6, 3))
    x = rng.standard_normal(3) * 10.0**power
    b = a @ x + np.abs(a @ x) * 1e-12 * (rng.random(6) < 0.5) + np.abs(a) @ np.abs(x) * 1e-15
    for y in (rng.random(6), rng.random(6) * (rng.random(6) < 0.6), np.ones(6)):
        assert not impossible(a, b, y)
        assert not impossible_in_box(a, b, y, x - 1.0, x + 1.0)


@given(seed=st.integers(0, 10**6))
def test_empty_systems_are_ruled_out_by_their_own_multipliers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(1, 5, 4).astype(float)
    a = rng.integers(-4, 5, (4, 3)).astype(float)
    a[3] = -(y[:3] @ a[:3])
    y[3] = 1.0
    b = rng.standard_normal(4)
    b[3] = -(y[:3] @ b[:3]) - 0.1
    if np.linalg.matrix_rank(a) == 3:
        assert impossible(a, b, y * (1 + 1e-9 * rng.standard_normal(4)))
    assert impossible_in_box(a, b, y, -np.ones(3), np.ones(3))
