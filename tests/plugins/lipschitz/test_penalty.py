"""The bound to train with: never below a slope, the certified bound itself, with the derivative of its optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stabilitykit_lipschitz import Penalty, lipschitz
from stabilitykit_lipschitz.extract import extract
from stabilitykit_lipschitz.lower import jacobian_norm
from torch import nn

from tests.plugins.lipschitz.zoo import READ, STEEP, chain

# Wirings: plain, smooth, skip, folded statistics, convolution, parametrised, tied, steeper than 1, partly linear.
KINDS = ("F.relu", "F.gelu", "x + f(x)", "BatchNorm", "conv", "weight_norm", "tied", "F.leaky 4", "cat", "closure hook")


def _net(kind: str) -> nn.Module:
    torch.manual_seed(1)
    return READ[kind]().double()


@pytest.mark.parametrize("kind", [*KINDS, "in place on views", "patched closure", "half", "pruned"])
def test_the_value_is_the_certified_bound_and_above_every_slope(kind):
    net = _net(kind) if kind != "half" else READ[kind]()
    bound = Penalty(net, (4,))
    value = bound()
    assert value.shape == () and value.dtype == next(net.parameters()).dtype
    found = lipschitz(net, tol=1e-6, input_shape=(4,), search_seconds=0.01)
    assert found.sdp_dual <= value.item() <= found.upper * (1.001 if kind != "half" else 1.002)
    network = extract(net, (4,))
    points = np.random.default_rng(0).standard_normal((30, 4)) * 3
    assert max(jacobian_norm(network, x) for x in points) <= value.item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_certified_bound_after_solving_anew(kind):
    net = _net(kind)
    weights = [w for w in net.parameters() if w.requires_grad]
    bound = Penalty(net, (4,), tol=1e-8)
    gradient = torch.autograd.grad(bound(), weights)
    torch.manual_seed(2)
    for _ in range(2):
        direction = [torch.randn_like(w) for w in weights]
        along = float(sum((g * d).sum() for g, d in zip(gradient, direction)))
        step, ends = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                for w, d in zip(weights, direction):
                    w += sign * step * d
            ends.append(lipschitz(net, tol=1e-9, input_shape=(4,), search_seconds=0.01).upper)
            with torch.no_grad():
                for w, d in zip(weights, direction):
                    w -= sign * step * d
        assert along == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3, abs=1e-3)


def test_gradcheck():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    bound = Penalty(net, tol=1e-10)
    options = {"eps": 1e-5, "atol": 1e-5, "nondet_tol": 1e-6, "check_undefined_grad": False}
    assert torch.autograd.gradcheck(lambda *_: bound(), tuple(net.parameters()), **options)


def test_the_bound_of_a_linear_map_is_its_spectral_norm():
    net = nn.Linear(5, 3)
    value = Penalty(net)()
    value.backward()
    u, s, vh = torch.linalg.svd(net.weight.detach().double(), full_matrices=False)
    assert s[0] <= value.item() <= s[0] * (1 + 1e-6)
    torch.testing.assert_close(net.weight.grad.double(), torch.outer(u[:, 0], vh[0]), atol=1e-5, rtol=0)
    assert net.bias.grad.abs().max() < 1e-12  # a difference of rows in which the bias cancels


def test_training_lowers_the_certified_constant_and_keeps_the_fit():
    torch.manual_seed(0)
    x = torch.randn(200, 6)
    y = (x[:, 0] * x[:, 1] > 0).long()

    def trained(weight: float) -> tuple[float, float]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
        bound, optimiser = Penalty(net, tol=1e-2), torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(80):
            loss = nn.functional.cross_entropy(net(x), y)
            if weight:
                loss = loss + weight * bound()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        accuracy = float((net(x).argmax(1) == y).double().mean())
        assert bound().item() >= lipschitz(net, search_seconds=0.1).sdp_dual
        return accuracy, lipschitz(net, search_seconds=0.01).upper

    plain, penalised = trained(0.0), trained(0.01)
    assert penalised[1] < 0.75 * plain[1]
    assert penalised[0] >= plain[0] - 0.03


def test_a_call_follows_the_weights_and_the_statistics():
    net = _net("BatchNorm").train()
    bound = Penalty(net)
    before = bound().item()
    with torch.no_grad():
        net[-1].weight *= 3
        net[1].running_var /= 4
    assert bound().item() == pytest.approx(before * 6, rel=1e-3)
    assert net.training


def test_nothing_depends_on_the_input():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(net[2].weight)
    value = Penalty(net)()
    value.backward()
    assert value.item() < 1e-9
    assert all(w.grad is None or torch.isfinite(w.grad).all() for w in net.parameters())


REFUSED = {
    "normalisation": (lambda: chain(nn.LayerNorm(6)), "whole vectors|no useful global"),
    "learned slopes": (READ["PReLU"], "learned slopes"),
    "activation of several operations": (READ["F.swish"], "SiLU"),
    "softsign": (READ["F.softsign"], "cannot follow"),
    "sequence first": (READ["sequence first"], "batch first"),
    "no rule": (lambda: chain(nn.Softmax(1), nn.ReLU()), "last step"),
    "jumps": (STEEP["threshold that jumps"], "no largest slope"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        Penalty(make(), (4,))


def test_bad_arguments_and_weights():
    net = chain()
    with pytest.raises(ValueError, match="tol"):
        Penalty(net, tol=0.0)
    bound = Penalty(net)
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        bound()
