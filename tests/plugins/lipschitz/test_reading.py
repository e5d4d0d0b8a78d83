"""Whatever a module runs in eval mode is what is bounded; what is not understood is refused, never bounded wrongly."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from stabilitykit_lipschitz import lipschitz
from stabilitykit_lipschitz.extract import Reading, extract
from torch import nn

from tests.plugins.lipschitz.zoo import INPUTS, READ, REFUSED, STEEP, assemble, chain


def realised(model: nn.Module, points: torch.Tensor) -> float:
    """The largest ||J|| that autograd realises at the points (B, n) in float64 and eval mode."""
    norms = [
        torch.linalg.matrix_norm(torch.autograd.functional.jacobian(lambda v: model(v[None])[0], x), 2) for x in points
    ]
    return float(torch.stack(norms).max())


def points(seed: int, count: int = 24) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((count, INPUTS)) * 10.0 ** rng.uniform(-2, 2, (count, 1)))


@pytest.mark.parametrize("name", READ)
def test_the_bound_is_of_the_function_torch_computes(name: str) -> None:
    torch.manual_seed(0)
    twin = READ[name]()
    torch.manual_seed(0)
    model = READ[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    found = lipschitz(model, input_shape=(INPUTS,), search_seconds=0.02)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state()) and states[2] == random.getstate()
    assert (states[1] == np.random.get_state()[1]).all()
    plain = twin.double().eval()
    x = torch.cat([points(1), torch.from_numpy(found.witness_input)[None]])
    if name != "in place on views":  # torch has no gradients there
        assert realised(plain, x) <= found.upper * (1 + 1e-9)
        at = realised(plain, x[-1:])
        assert at == pytest.approx(found.lower, rel=1e-6)
    with torch.no_grad():
        gaps = (plain(x) - plain(x.flip(0))).norm(dim=1) / (x - x.flip(0)).norm(dim=1)
    assert float(gaps.nan_to_num().max()) <= found.upper * (1 + 1e-9)
    assert found.upper < 1e4


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_for_one_reason(name: str) -> None:
    torch.manual_seed(0)
    build, word = REFUSED[name]
    with pytest.raises(ValueError, match=word) as caught:
        lipschitz(build(), input_shape=(INPUTS,), search_seconds=0.02)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", STEEP)
def test_a_jump_has_no_finite_constant(name: str) -> None:
    torch.manual_seed(0)
    found = lipschitz(STEEP[name](), input_shape=(INPUTS,), search_seconds=0.02)
    assert found.upper == np.inf and found.method == "unbounded" and "no largest slope" in found.notes[0]


@pytest.mark.parametrize("seed", range(200))
def test_random_nets_are_never_steeper_than_their_bound(seed: int) -> None:
    """Product bounds of the same extracted network: hundreds of nets in seconds; the SDP has tests of its own."""
    model = assemble(seed)
    method = "product" if seed % 6 else "auto"
    try:
        found = lipschitz(model, input_shape=(INPUTS,), search_seconds=0.005, method=method)
    except ValueError as error:
        pytest.fail(f"nothing in these nets is unknown: {error}")
    plain = model.double().eval()
    x = torch.cat([points(seed, 10), torch.from_numpy(found.witness_input)[None]])
    with torch.no_grad():
        step = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for size in (1e-4, 1.0, 30.0):
            gap, noise = plain(x + size * step) - plain(x), 1e-11 * (1 + plain(x).abs().max())
            assert bool((gap.norm(dim=1) <= found.upper * size * step.norm(dim=1) * (1 + 1e-9) + noise).all())
    if not any(getattr(getattr(m, "act", None), "__name__", "") == "_in_place_on_views" for m in model.modules()):
        assert realised(plain, x[::2]) <= found.upper * (1 + 1e-9)


def test_a_forward_that_names_the_module_as_a_global() -> None:
    scope: dict = {"nn": nn, "net": chain(nn.Dropout(0.9), nn.ReLU())}
    exec("net.forward = lambda x: 3 * nn.Sequential.forward(net, x)", scope)
    plain = lipschitz(nn.Sequential(*scope["net"]), search_seconds=0.01)
    assert lipschitz(scope["net"], search_seconds=0.01).upper == pytest.approx(3 * plain.upper, rel=1e-6)


def test_weights_of_the_original_are_never_used() -> None:
    """A container no copier looks into: the copy would run on the weights that were given."""
    net = chain()
    hidden = {"net": [{0: net[0]}]}

    class Reaching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return net(x) + hidden["net"][0][0](x).sum(1, keepdim=True)

    outer = Reaching()
    outer.net = net
    with pytest.raises(ValueError, match="instead of the copy"):
        lipschitz(outer, input_shape=(INPUTS,))


def test_global_hooks_count() -> None:
    net = chain()
    plain = lipschitz(net, search_seconds=0.01).upper
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda m, i, o: 2 * o if isinstance(m, nn.ReLU) else None
    )
    try:
        assert lipschitz(net, search_seconds=0.01).upper == pytest.approx(2 * plain, rel=1e-6)
    finally:
        handle.remove()


def test_spectral_norm_gives_the_same_bound_at_every_call() -> None:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16))
    layer.parametrizations.weight.original.data.normal_()
    model = nn.Sequential(layer, nn.Linear(16, 3))
    first, second = (lipschitz(model, search_seconds=0.01).upper for _ in range(2))
    product = model[1].weight @ model.eval()[0].weight
    assert first == second >= float(torch.linalg.matrix_norm(product.detach().double(), 2)) * (1 - 1e-6)


def test_inputs_given_later_are_compared_too() -> None:
    """A branch no random input takes is seen where the caller's data take it."""

    class Rare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.seen = nn.Linear(INPUTS, 2), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return self.a(x) * (1.0 if self.seen < 8 else 2.0)

    reading = Reading(Rare())
    with pytest.raises(ValueError, match="does not compute"):
        for _ in range(8):
            reading.compare(np.ones((1, INPUTS)))


def test_gates_keep_their_tight_slopes() -> None:
    torch.manual_seed(0)
    net = READ["F.swish"]()
    twin = chain(nn.SiLU())
    twin[0], twin[2] = net.a, net.b
    assert lipschitz(net, input_shape=(INPUTS,)).upper == pytest.approx(lipschitz(twin).upper, rel=1e-5)


@pytest.mark.parametrize("name", ["F.silu", "x + f(x)", "sequence first", "in place on views", "conv"])
def test_the_network_is_the_module(name: str) -> None:
    torch.manual_seed(0)
    model = READ[name]().double().eval()
    x = points(5)
    with torch.no_grad():
        np.testing.assert_allclose(extract(model, (INPUTS,))(x.numpy()), model(x).numpy(), rtol=1e-9, atol=1e-9)
