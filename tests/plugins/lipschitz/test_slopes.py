"""Slope bounds contain every difference quotient, and are not wider than they need to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stabilitykit_lipschitz.extract import extract
from stabilitykit_lipschitz.slopes import NAMES, named
from torch import nn

MODULES = [
    nn.ReLU(),
    nn.LeakyReLU(0.2),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Softplus(),
    nn.Softplus(beta=3.0),
    nn.ELU(0.7),
    nn.ELU(2.0),
    nn.CELU(1.5),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.SELU(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Hardtanh(-0.5, 2.0),
    nn.ReLU6(),
    nn.Softsign(),
    nn.Tanhshrink(),
    nn.LogSigmoid(),
    nn.Softshrink(0.3),
    nn.PReLU(),
    nn.RReLU(),
    nn.Identity(),
]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_bounds_contain_and_attain_the_derivative(name: str) -> None:
    activation = named(name)
    z = np.linspace(-40.0, 40.0, 800_001)
    slope = activation.derivative(z)
    low, high = (float(b[0]) for b in activation.bounds(1))
    assert low <= slope.min() and slope.max() <= high
    assert slope.min() - low < 1e-3 and high - slope.max() < 1e-3


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("gelu", -0.12891, 1.12891),
        ("gelu-tanh", -0.12900, 1.12900),
        ("silu", -0.09984, 1.09984),
        ("mish", -0.1126, 1.0885),
        ("selu", 0.0, 1.7581),
        ("hardswish", -0.5, 1.5),
        ("sigmoid", 0.0, 0.25),
    ],
)
def test_documented_slopes(name: str, low: float, high: float) -> None:
    alpha, beta = named(name).bounds(1)
    assert alpha[0] == pytest.approx(low, abs=1e-4) and beta[0] == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize(
    "module", [m for m in MODULES if not isinstance(m, nn.Identity)], ids=lambda m: type(m).__name__
)
def test_values_and_derivatives_are_torchs(module: nn.Module) -> None:
    activation = extract(module, (401,)).layers[0].activation
    x = torch.linspace(-9.017, 8.931, 401, dtype=torch.float64, requires_grad=True)
    y = module.double().eval()(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    z = x.detach().numpy()
    offset = float(activation.value(z)[200] - y.detach().numpy()[200])
    np.testing.assert_allclose(activation.value(z) - offset, y.detach().numpy(), atol=3e-9)
    np.testing.assert_allclose(activation.derivative(z), grad.numpy(), atol=1e-8)


@given(name=st.sampled_from(sorted(NAMES)), a=st.floats(-8, 8), width=st.floats(1e-3, 6), seed=st.integers(0, 99))
def test_interval_bounds_contain_difference_quotients(name: str, a: float, width: float, seed: int) -> None:
    activation = named(name)
    low, high = activation.bounds_on(np.array([a]), np.array([a + width]))
    rng = np.random.default_rng(seed)
    x, y = a + width * rng.random((2, 200))
    keep = np.abs(x - y) > 1e-4 * width
    quotient = ((activation.value(x) - activation.value(y)) / (x - y))[keep]
    assert (quotient >= low[0] - 1e-7).all() and (quotient <= high[0] + 1e-7).all()
    whole = activation.bounds(1)
    assert whole[0][0] <= low[0] <= high[0] <= whole[1][0]


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softplus", "gelu", "silu", "mish", "relu"])
def test_bounds_on_an_interval_are_never_wider_than_everywhere(name: str) -> None:
    """Also near a point where the derivative is almost at its extreme, and is rounded outward."""
    activation = named(name)
    lower = np.concatenate([10.0 ** -np.arange(1.0, 12.0), -(10.0 ** -np.arange(1.0, 12.0)), np.linspace(-40, 40, 33)])
    low, high = activation.bounds_on(lower, lower + 0.5)
    least, most = activation.bounds(len(lower))
    assert (least <= low).all() and (low <= high).all() and (high <= most).all()
