"""Local bounds: monotone in the radius, below the global bound, and the Jacobian's norm in the limit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from stabilitykit_lipschitz import Ball, Box, lipschitz, verify
from torch import nn

SMOOTH = {
    "selu": nn.SELU(),
    "elu": nn.ELU(),
    "elu 3": nn.ELU(3.0),
    "celu": nn.CELU(0.5),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softsign": nn.Softsign(),
    "hardswish": nn.Hardswish(),
    "relu": nn.ReLU(),
}
RADII = (1e-9, 1e-6, 1e-3, 0.1, 1.0, 1e4)


def _net(act: nn.Module, seed: int = 0, sizes: tuple[int, ...] = (8, 10, 8, 4)) -> nn.Module:
    torch.manual_seed(seed)
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), act)]
    return nn.Sequential(*layers[:-1]).double()


def _slope(model: nn.Module, x: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(lambda v: model(v[None])[0], x), 2))


@pytest.mark.parametrize(
    ("name", "boxed"), [*((name, False) for name in SMOOTH), *((name, True) for name in ("selu", "gelu", "tanh"))]
)
def test_smaller_regions_have_smaller_bounds(name: str, boxed: bool) -> None:
    model = _net(SMOOTH[name])
    center = torch.randn(8, dtype=torch.float64)
    truth, whole = _slope(model, center), lipschitz(model, search_seconds=0.01).upper
    c = center.numpy()
    found = [
        lipschitz(model, region=Box(c - r, c + r) if boxed else Ball(c, r), search_seconds=0.01).upper for r in RADII
    ]
    assert all(a <= b * (1 + 2e-6) for a, b in itertools.pairwise(found))
    assert found[-1] <= whole and truth <= found[0] * (1 + 1e-9)
    assert found[1] <= truth * 1.01


@pytest.mark.parametrize("norm", [2, "inf"])
@pytest.mark.parametrize("method", ["sdp", "layer"])
def test_every_method_tends_to_the_jacobian(method: str, norm: int | str) -> None:
    model = _net(nn.GELU(), 1)
    x = torch.randn(8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: model(v[None])[0], x)
    truth = float(torch.linalg.matrix_norm(jacobian, 2))
    if norm == "inf":
        signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)), dtype=torch.float64)
        truth = float((signs @ jacobian.T).norm(dim=1).max())
    found = lipschitz(model, norm, method, Ball(x.numpy(), 1e-6), search_seconds=0.01)
    # of the l-infinity norm the SDP is only a relaxation
    assert truth <= found.upper <= truth * (1.01 if norm == 2 else 1.26)


@pytest.mark.parametrize("radius", [1e-9, 1e-3, 1.0, 1e6])
def test_local_certificates_are_proofs_by_themselves(radius: float) -> None:
    model = _net(nn.SELU(), 2)
    region = Ball(np.zeros(8), radius)
    found = lipschitz(model, region=region, search_seconds=0.01)
    assert verify(model, found.multipliers, found.rho, region=region) == pytest.approx(found.upper, rel=1e-9)
    assert verify(model, found.multipliers, found.rho * 0.99, region=region) is None


def test_deep_narrow_regions() -> None:
    """Twelve layers: what is split off at every layer must not blow up the bound."""
    model = _net(nn.Tanh(), 3, (6, *[8] * 12, 3))
    x = torch.randn(6, dtype=torch.float64)
    assert lipschitz(model, region=Ball(x.numpy(), 1e-7), search_seconds=0.01).upper <= _slope(model, x) * 1.01


def test_a_jump_outside_the_region_does_not_matter() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Softplus(1, 1)).double()
    net[0].weight.data.fill_(1.0)
    assert lipschitz(net, search_seconds=0.01).upper == np.inf
    near = lipschitz(net, region=Ball(np.array([0.5]), 0.4), search_seconds=0.01).upper
    assert near == pytest.approx(1 / (1 + np.exp(-0.9)), rel=1e-6)
    assert lipschitz(net, region=Ball(np.array([0.5]), 0.6), search_seconds=0.01).upper == np.inf
