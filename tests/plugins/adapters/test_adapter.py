"""Prefix, blocks and tail of an unmodified network are the network."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.equivalence import certify
from torch import nn

from stabilitykit.dynamics.compiled import CompiledForward
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.trajectory import depth_logits
from tests.plugins.adapters.nets import (
    NETS,
    Features,
    Modular,
    Patched,
    Reversible,
    SideState,
    Skip,
    images,
    make,
    parts,
)


def adapted(kind, seed=0):
    net = make(kind, seed)
    found = discover(net, NETS[kind].input_shape)
    return AdaptedModel(net, found.program, found.runs[0])


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_certificate_is_exact_and_not_vacuous(kind, batch):
    model = adapted(kind)
    report = certify(model, images(batch, NETS[kind].input_shape))
    assert report["bit_exact"] and report["max_abs_difference"] == 0.0
    assert report["tail_reads_only_the_state"] and report["deterministic"]
    assert report["vacuous"] == []
    if NETS[kind].kind == "identity":
        # Holds in the coordinates of h_T only if reordered stages are put in one order.
        assert [entry["with_zero_parameters"] for entry in report["zero_parameters"]] == ["identity"] * model.num_blocks


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_states_have_one_shape_and_the_model_is_used_as_it_is(kind):
    model, expected = adapted(kind), NETS[kind]
    inputs = images(3, expected.input_shape)
    with torch.inference_mode():
        plain = model.module(inputs)
        plain = plain["logits"] if isinstance(plain, dict) else plain
        state = model.initial_state(inputs)
        for t in range(model.num_blocks):
            shapes = [tuple(part.shape) for part in parts(state)]
            assert shapes[: len(expected.shape)] == [(3, *shape) for shape in expected.shape]
            before = [part.clone() for part in parts(state)]
            following = model.block(t, state)
            assert all(torch.equal(a, b) for a, b in zip(before, parts(state))), "a block must not write to its input"
            state = following
        assert torch.equal(model.readout(state), plain)
    assert all("forward" not in m.__dict__ and "_call_impl" not in m.__dict__ for m in model.module.modules())


@given(
    styles=st.lists(st.sampled_from(["skip", "relu", "norm", "inplace", "scaled"]), min_size=2, max_size=5),
    channels=st.sampled_from([2, 4, 6]),
    batch=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_random_networks(styles, channels, batch, seed):
    class Block(nn.Module):
        def __init__(self, style):
            super().__init__()
            self.style, self.conv = style, nn.Conv2d(channels, channels, 3, padding=1)
            self.norm, self.gamma = nn.BatchNorm2d(channels), nn.Parameter(torch.full((channels, 1, 1), 0.5))

        def forward(self, x):
            y = self.conv(x)
            if self.style == "norm":
                return self.norm(x + y)
            if self.style == "inplace":
                y += x
                return y
            out = x + (self.gamma * y if self.style == "scaled" else y)
            return torch.relu(out) if self.style == "relu" else out

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, channels, 3), *(Block(style) for style in styles), nn.Flatten(), nn.Linear(channels * 36, 4)
        )
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_()
    found = discover(net, (3, 8, 8))
    assert found.runs[0].depth == len(styles)
    kinds = {"skip": "identity", "relu": "activated", "norm": "normalised", "inplace": "identity", "scaled": "identity"}
    assert [block.kind for block in found.runs[0].blocks] == [kinds[style] for style in styles]
    report = certify(AdaptedModel(net, found.program, found.runs[0]), images(batch, (3, 8, 8), seed), thorough=False)
    assert report["bit_exact"] and report["tail_reads_only_the_state"]


def test_blocks_are_the_modules_called_alone():
    model = adapted(Modular)
    state = torch.randn(4, 8, 12, 12)
    with torch.inference_mode():
        assert torch.equal(model.block(1, state), model.module.blocks[1](state))
        assert torch.equal(model.readout(state), model.module.head(state.mean((2, 3))))
    assert model.block_modules(1) == [model.module.blocks[1]]


def test_gradients_reach_the_state():
    model = adapted(Modular)
    state = torch.randn(2, 8, 12, 12, requires_grad=True)
    out = model.readout(model.block(2, model.block(1, state)))
    (ours,) = torch.autograd.grad(out.square().sum(), state)
    twin = state.detach().clone().requires_grad_()
    blocks = model.module.blocks
    (theirs,) = torch.autograd.grad(model.module.head(blocks[2](blocks[1](twin)).mean((2, 3))).square().sum(), twin)
    assert torch.equal(ours, theirs)


def test_joined_stages_share_one_coordinate_system():
    """Skipping the blocks altogether leaves the numbers where they are: the tail of h_0 is that of the patched map."""
    model = adapted(Patched)
    inputs = images(2, (3, 12, 12))
    with torch.inference_mode():
        stem = model.module.stem(inputs)
        state = model.initial_state(inputs)
        assert torch.equal(state, nn.functional.pixel_unshuffle(stem, 2))
        assert torch.equal(model.readout(state), model.module.head(state.flatten(1)))


def test_the_side_state_is_held_and_counts():
    model = adapted(SideState)
    inputs = images(2, (3, 12, 12))
    with torch.inference_mode():
        state = model.initial_state(inputs)
        assert len(state) == 2
        later = model.block(0, state)
        assert torch.equal(later[1], state[1]) and not torch.equal(later[0], state[0])
        assert not torch.equal(model.readout(state), model.readout((state[0], state[1] + 1)))


def test_runs_made_before_the_move_know_the_model_by_its_former_module():
    model = adapted(Modular)
    former = copy.copy(model)
    former._kind = "stabilitykit_timm.adapter.AdaptedModel"
    assert former.fingerprint() in model.former_fingerprints()
    assert former.fingerprint() != model.fingerprint()


def test_copies_are_independent():
    model = adapted(Modular)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.block_modules(0)[0].parameters():
            parameter.zero_()
    state = torch.randn(2, 8, 12, 12)
    with torch.inference_mode():
        assert torch.equal(twin.block(0, state), state)
        assert not torch.equal(model.block(0, state), state)


def test_hooks_of_others_are_respected():
    """Hooks come and go (quantisation does that): they act on executed modules and on none that is skipped."""
    model = adapted(Modular)
    state = torch.randn(2, 8, 12, 12)
    with torch.inference_mode():
        block, readout = model.block(1, state), model.readout(state)
        handle = model.module.blocks[1].f.register_forward_hook(lambda module, given, out: out * 0.5 + 0.0)
        assert torch.equal(model.block(1, state), state + model.module.blocks[1].f(state))
        assert not torch.equal(model.block(1, state), block)
        assert torch.equal(model.readout(state), readout)
        handle.remove()
        assert torch.equal(model.block(1, state), block)


def test_runs_in_double_precision():
    model = adapted(Reversible)
    model.module.double()
    inputs = images(2, (3, 12, 12)).double()
    assert certify(model, inputs)["bit_exact"]
    with torch.inference_mode():
        assert model.logits(inputs).dtype == torch.float64


def test_tables_cached_in_the_first_pass_do_not_matter():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.blocks, self.head = nn.Conv2d(3, 4, 3), nn.Sequential(Skip(4), Skip(4)), nn.Linear(4, 3)
            self.table = {}

        def forward(self, x):
            if x.device not in self.table:
                self.table[x.device] = torch.arange(4, device=x.device).float().reshape(1, 4, 1, 1)
            return self.head((self.blocks(self.stem(x)) + self.table[x.device]).mean((2, 3)))

    net = make(Caching)
    found = discover(net, (3, 8, 8))
    assert certify(AdaptedModel(net, found.program, found.runs[0]), images(2, (3, 8, 8)))["bit_exact"]


def test_columns_choose_outputs():
    net = make(Modular)
    found = discover(net, (3, 12, 12))
    model = AdaptedModel(net, found.program, found.runs[0], columns=[4, 1])
    inputs = images(3, (3, 12, 12))
    with torch.inference_mode():
        assert torch.equal(model.logits(inputs), net(inputs)[:, [4, 1]])
        state = torch.randn(3, 8, 12, 12)
        assert model.num_classes == 2
        torch.testing.assert_close(model.head(state), model.readout(state))


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "mobilenetv2_050", "levit_128s", "efficientformer_l1"]
)
def test_timm_round_trips(name):
    from stabilitykit_adapters.equivalence import randomise
    from stabilitykit_timm.names import input_shape_of, skeleton

    module = skeleton(f"timm:{name}", device="cpu")
    randomise(module)
    found = discover(module, input_shape_of(module))
    inputs = images(2, input_shape_of(module))
    report = certify(AdaptedModel(module, found.program, found.runs[0]), inputs, thorough=False)
    assert report["bit_exact"] and report["tail_reads_only_the_state"] and report["vacuous"] == []


def test_readouts_of_networks_that_ask_for_no_gradients_are_differentiable():
    model = adapted(Features)
    state = torch.randn(2, 20, requires_grad=True)
    assert torch.autograd.grad(model.readout(state).sum(), state)[0].abs().sum() > 0


def test_compiled_networks_run_as_written():
    net = make(Modular)
    net.blocks[1].compile(backend="eager")
    net.compile(backend="eager")
    found = discover(net, (3, 12, 12))
    report = certify(AdaptedModel(net, found.program, found.runs[0]), images(2, (3, 12, 12)))
    assert found.runs[0].depth == 3 and report["bit_exact"]


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_what_a_compiler_is_given_is_the_network(kind, monkeypatch):
    """The operations recorded for --compile, run as they are: equal to the blocks run one by one."""
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    model = adapted(kind)
    readout = HeadReadout(model)
    forward = CompiledForward(model, readout, 4)
    for seed in (0, 1):
        inputs = images(4, NETS[kind].input_shape) + seed
        with torch.inference_mode():
            for found, plain in zip(forward(inputs), depth_logits(model, readout, inputs), strict=True):
                assert torch.equal(found, plain)
    assert forward.difference == 0.0
