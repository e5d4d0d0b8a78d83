"""Torch modules: what is folded, what is refused, degenerate weights, regions, exact constants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stabilitykit_lipschitz import Ball, Box, Data, lipschitz, verify
from stabilitykit_lipschitz.extract import extract
from stabilitykit_lipschitz.lower import jacobian
from torch import nn


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + torch.relu(self.a(x))
        g = 0.5 * h - self.b(nn.functional.gelu(h))
        return self.c(torch.cat([g, x], dim=1))


def _models() -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    bn = nn.BatchNorm2d(4)
    bn.running_mean.uniform_(-1, 1)
    bn.running_var.uniform_(0.5, 2)
    conv = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        bn,
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    return [
        ("mlp", nn.Sequential(nn.Flatten(), nn.Linear(8, 5), nn.SiLU(), nn.Linear(5, 3)), (2, 2, 2)),
        ("conv", conv, (2, 4, 4)),
        ("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)), (3, 4, 4)),
        ("skips", Skips(), (6,)),
        ("prelu", nn.Sequential(nn.Linear(4, 5), nn.PReLU(5), nn.Linear(5, 1)), (4,)),
        ("bn1d", nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ELU(), nn.Linear(5, 2)), (4,)),
        ("layernorm", nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)), (6,)),
        ("double", nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), (3,)),
    ]


@pytest.mark.parametrize(("name", "model", "shape"), _models(), ids=lambda v: v if isinstance(v, str) else "")
def test_the_network_is_the_model(name: str, model: nn.Module, shape: tuple[int, ...]) -> None:
    model = model.double().eval()
    network = extract(model, shape)
    x = torch.randn(5, *shape, dtype=torch.float64)
    np.testing.assert_allclose(network(x.reshape(5, -1).numpy()), model(x).detach().numpy(), atol=1e-12)
    expected = torch.autograd.functional.jacobian(lambda v: model(v.reshape(1, *shape))[0], x[0].reshape(-1))
    np.testing.assert_allclose(jacobian(network, x[0].reshape(-1).numpy()), expected.numpy(), atol=1e-12)
    if name != "layernorm":
        found = lipschitz(model, input_shape=shape)
        assert np.linalg.norm(expected.numpy(), 2) <= found.upper and found.lower <= found.upper
        assert found.gap < 1e-4


def test_average_pooling_scales_by_a_known_factor() -> None:
    linear = nn.Linear(3, 4)
    pooled = lipschitz(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear), input_shape=(3, 5, 5)).upper
    assert pooled == pytest.approx(lipschitz(linear).upper / 5.0, rel=1e-9)


def test_softmax_halves() -> None:
    mlp = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4))
    plain, soft = lipschitz(mlp), lipschitz(nn.Sequential(*mlp, nn.Softmax(dim=1)))
    assert soft.upper == pytest.approx(plain.upper / 2, rel=1e-9) and soft.lower <= soft.upper


@pytest.mark.parametrize(
    ("model", "shape", "word"),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2)), (1, 4, 4), "MaxPool2d"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1), nn.Linear(3, 2)), (3,), "Linear"),
        (nn.Sequential(nn.Linear(4, 4), nn.GLU(), nn.Linear(2, 2)), (4,), "GLU"),
        (nn.Sequential(nn.Linear(4, 4), nn.Hardshrink(), nn.Linear(4, 2)), (4,), "Hardshrink"),
        (nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.Linear(4, 2)), (4,), "GroupNorm"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)), (4,), "batch"),
        (nn.MultiheadAttention(4, 1), (4,), "MultiheadAttention"),
    ],
)
def test_unknown_layers_are_named(model: nn.Module, shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        lipschitz(model, method="sdp", input_shape=shape)


def test_bad_arguments_say_what_was_expected() -> None:
    mlp = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with pytest.raises(ValueError, match="not valid"):
        lipschitz(mlp, method="network")
    with pytest.raises(ValueError, match="expected one of"):
        lipschitz(mlp, method="guess")
    with pytest.raises(ValueError, match="expected 1, 2 or inf"):
        lipschitz(mlp, norm=3)
    with pytest.raises(ValueError, match="norm_out = 'nuclear'; expected 1, 2 or inf"):
        lipschitz(mlp, norm_out="nuclear")
    with pytest.raises(ValueError, match="method 'exact' is for norm 2 or inf"):
        lipschitz(mlp, norm=1, method="exact")
    with pytest.raises(ValueError, match="input_shape"):
        lipschitz(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(4, 1)))
    mlp[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        lipschitz(mlp)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scales_beyond_float64_are_refused(scale: float) -> None:
    """Their product is no float64 number: neither infinity nor zero would be a bound."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        net[0].weight.mul_(scale)
        net[2].weight.mul_(scale)
    with pytest.raises(ValueError, match="float64"):
        lipschitz(net)


def test_what_is_no_real_network_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a torch"):
        lipschitz(3)
    with pytest.raises(ValueError, match="complex64"):
        lipschitz(nn.Linear(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="radius"):
        Ball(np.zeros(3), -1.0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="before layer '1'"):
        lipschitz(net)


def test_certificates_that_prove_nothing_are_rejected() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    found = lipschitz(net)
    assert verify(net, found.multipliers, found.rho) == pytest.approx(found.upper, rel=1e-12)
    for multipliers, rho in [
        (found.multipliers, found.rho * (1 - 1e-5)),
        (found.multipliers, 0.0),
        (found.multipliers, float("nan")),
        ([2 * t for t in found.multipliers], found.rho),
        ([-t for t in found.multipliers], found.rho),
        ([0 * t for t in found.multipliers], 1e9),
    ]:
        assert verify(net, multipliers, rho) is None
    with pytest.raises(ValueError, match="per hidden layer"):
        verify(net, [], found.rho)
    with torch.no_grad():
        net[2].weight.mul_(1.001)
    assert verify(net, found.multipliers, found.rho) is None


def test_layernorm_needs_a_region_and_states_its_assumption() -> None:
    model = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 3)).double()
    with pytest.raises(ValueError, match="no useful global"):
        lipschitz(model)
    x = torch.randn(50, 12, dtype=torch.float64)
    found = lipschitz(model, region=Data(x.numpy()))
    assert found.assumptions and "at least" in found.assumptions[0]
    norms = [
        float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(lambda v: model(v[None])[0], row), 2))
        for row in x
    ]
    assert max(norms) <= found.upper
    pairs = torch.cdist(model(x), model(x)) / (torch.cdist(x, x) + torch.eye(50))
    assert float(pairs.detach().max()) <= found.upper * (1 + 1e-9)
    ball = lipschitz(model, region=Ball(x[0].numpy(), 0.5))
    near = x[0] + 0.5 * torch.nn.functional.normalize(torch.randn(200, 12, dtype=torch.float64), dim=1)
    quotients = (model(near) - model(x[:1])).norm(dim=1) / 0.5
    assert float(quotients.detach().max()) <= ball.upper


@pytest.mark.parametrize("zero", [0, 2])
def test_zero_weights_give_zero(zero: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[zero].weight.data.zero_()
    for method in ("sdp", "cvxpy", "layer", "product"):
        found = lipschitz(model, method=method)
        assert found.lower == 0.0 and 0.0 <= found.upper < 1e-200


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_wild_scales_cancel_exactly_for_relu(scale: float) -> None:
    rng = np.random.default_rng(1)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    plain = lipschitz(model, tol=1e-6, search_seconds=0.05).upper
    rows = torch.from_numpy(scale ** rng.uniform(0, 1, 9))
    model[0].weight.data *= rows[:, None]
    model[2].weight.data /= rows
    assert lipschitz(model, tol=1e-6, search_seconds=0.05).upper == pytest.approx(plain, rel=1e-5)


def test_dead_and_duplicate_neurons_change_nothing() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    wide = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 2)).double()
    wide[0].weight.data.zero_()
    wide[0].weight.data[:6], wide[2].weight.data[:, :6] = model[0].weight.data, model[2].weight.data
    assert lipschitz(wide).upper == pytest.approx(lipschitz(model).upper, rel=1e-5)


@given(seed=st.integers(0, 10**6), radius=st.floats(0.01, 3.0), boxed=st.booleans())
def test_local_constants_bound_the_region_and_never_exceed_the_global_one(
    seed: int, radius: float, boxed: bool
) -> None:
    torch.manual_seed(seed)
    acts = (nn.ReLU(), nn.GELU(), nn.Tanh(), nn.Hardswish())
    model = nn.Sequential(nn.Linear(4, 7), acts[seed % 4], nn.Linear(7, 5), acts[(seed // 4) % 4], nn.Linear(5, 2))
    model = model.double()
    center = torch.randn(4, dtype=torch.float64).numpy()
    region = Box(center - radius, center + radius) if boxed else Ball(center, radius)
    local, whole = (lipschitz(model, region=r, search_seconds=0.05) for r in (region, None))
    assert local.lower <= local.upper <= whole.upper * (1 + 1e-4)
    assert region.contains(local.witness_input)
    x = region.sample(300, np.random.default_rng(seed))
    y = region.sample(300, np.random.default_rng(seed + 1))
    network = extract(model)
    quotient = np.linalg.norm(network(x) - network(y), axis=1) / np.linalg.norm(x - y, axis=1)
    assert quotient.max() <= local.upper * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_exact_constant_is_the_best_realisable_pattern(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    found = lipschitz(model, method="exact", seconds=30)
    assert found.exact and found.upper <= found.lower * (1 + 1.01e-5)
    network = extract(model)
    # all patterns of a plane arrangement show on a fine sweep along and far beyond its lines
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20_000, 2)) * 10.0 ** rng.uniform(-1, 3, (20_000, 1))
    z = x @ network.layers[0].blocks[0].T + network.layers[0].bias
    best = 0.0
    for pattern in np.unique(z > 0, axis=0):
        best = max(best, float(np.linalg.norm((network.outputs[1] * pattern) @ network.layers[0].blocks[0], 2)))
    assert best <= found.upper * (1 + 1e-12)
    assert found.lower >= best * (1 - 1e-9)


def test_exact_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="two slopes"):
        lipschitz(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)), method="exact")
    with pytest.raises(ValueError, match="one hidden layer"):
        lipschitz(nn.Linear(3, 3), method="exact")


def test_the_witness_realises_the_lower_bound_in_torch() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 4)).double()
    found = lipschitz(model)
    x = torch.from_numpy(found.witness_input)
    j = torch.autograd.functional.jacobian(lambda v: model(v[None])[0], x)
    assert float(torch.linalg.matrix_norm(j, 2)) == pytest.approx(found.lower, rel=1e-9)
