"""Courses through whole networks: every block whatever its dimension, against chains written by hand."""

from __future__ import annotations

import copy

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from stabilitykit_adapters.adapting import View, adapt
from stabilitykit_adapters.choosing import choose_run
from stabilitykit_adapters.course_model import CourseModel
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.equivalence import certify, randomise
from stabilitykit_adapters.runs import Course
from torch import nn

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.trajectory import batch_logits
from tests.plugins.adapters.nets import Functional, Modular, Reversible


class Step(nn.Module):
    """relu(shortcut(x) + f(x)); without a skip: f(x)."""

    def __init__(self, inputs, outputs, stride, skip, activated):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Tanh(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if (inputs, stride) != (outputs, 1) else nn.Identity()
        self.skip, self.activated = skip, activated

    def forward(self, x):
        y = self.f(x) + self.shortcut(x) if self.skip else self.f(x)
        return torch.relu(y) if self.activated else y


class Staged(nn.Module):
    """Stages of steps, a linear classifier; ``kinds`` says what each step is."""

    def __init__(self, plan, activated):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.kinds, stages, width = [], [], 4
        for number, (wider, kinds) in enumerate(plan):
            steps, stride = [], 1
            for kind in (["transition"] if number or wider else []) + list(kinds):
                change = kind == "transition"
                stride = 2 if change else 1
                steps.append(Step(width, 2 * width if change else width, stride, kind != "equal", activated))
                width = 2 * width if change else width
                self.kinds.append(kind)
            stages.append(nn.Sequential(*steps))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, 5)

    def blocks(self):
        return [step for stage in self.stages for step in stage]

    def forward(self, x):
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def built(network, shape=(3, 16, 16), seed=0):
    network.eval()
    randomise(network, seed=seed)
    found = discover(network, shape)
    assert isinstance(found.course, Course), found.course
    return CourseModel(network, found.program, found.course)


def images(batch=2, shape=(3, 16, 16)):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


plans = st.lists(
    st.tuples(st.booleans(), st.lists(st.sampled_from(["residual", "residual", "equal"]), min_size=1, max_size=3)),
    min_size=2,
    max_size=3,
).filter(lambda plan: any("residual" in kinds for _, kinds in plan))


@settings(max_examples=8)
@given(plans, st.booleans(), st.integers(1, 3))
def test_readouts_are_the_chain_written_by_hand(plan, activated, batch):
    network = Staged(plan, activated)
    model = built(network)
    blocks, kinds = network.blocks(), network.kinds
    assert list(model.steps) == kinds
    assert [name.rpartition(".")[0].split("#")[0] for name in model.block_names] == [
        f"stages.{n}" for n, stage in enumerate(network.stages) for _ in stage
    ]
    x = images(batch)
    with torch.no_grad():
        state, mine = network.stem(x), model.initial_state(x)
        for t in range(model.num_blocks + 1):
            assert torch.equal(state, mine) and model.shape_at(t) == tuple(state.shape[1:])
            rest = state
            for block, kind in zip(blocks[t:], kinds[t:], strict=True):
                rest = rest if kind == "residual" else block(rest)  # the identity replaces residual steps alone
            assert torch.equal(model.readout_at(t, mine), network.head(rest.mean((2, 3))))
            if t < model.num_blocks:
                state, mine = blocks[t](state), model.block(t, mine)
        assert torch.equal(model.readout_at(model.num_blocks, mine), network(x))
    logits = batch_logits(model, HeadReadout(model), x)
    for t, kind in enumerate(kinds):
        assert (logits[t] == logits[t + 1]).all() or kind == "residual"


def test_certificate_of_a_course_is_exact_and_not_vacuous():
    model = built(Staged([(False, ["residual"]), (True, ["residual", "equal"])], True))
    report = certify(model, images(), thorough=True)
    assert report["bit_exact"] and report["tail_reads_only_the_state"] and not report["vacuous"]
    assert report["zero_parameters"][0]["with_zero_parameters"] != "other"


class Converting(nn.Module):
    """x + f(x), where f computes in another dtype and gives back the one that came in."""

    def __init__(self, wide):
        super().__init__()
        self.f, self.wide = nn.Conv2d(4, 4, 3, padding=1), wide

    def forward(self, x):
        y = x.to(self.wide)
        return x + self.f((y - y.mean(1, keepdim=True)).to(x.dtype))


@pytest.mark.parametrize("wide", [torch.float32, torch.float64, torch.bfloat16])
def test_conversions_of_dtype_inside_blocks_follow_the_network_into_another_dtype(wide):
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        *(Converting(wide) for _ in range(3)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    model = built(network)
    assert certify(model, images())["bit_exact"] and model.num_blocks == 3
    twin = copy.deepcopy(model)
    twin.module.to(torch.bfloat16)
    with torch.inference_mode():
        state = twin.initial_state(images().to(torch.bfloat16))
        for t in range(3):
            state = twin.block(t, state)
            assert state.dtype == torch.bfloat16
        by_hand = copy.deepcopy(model.module).to(torch.bfloat16)(images().to(torch.bfloat16))
        assert torch.equal(twin.readout(state), by_hand) and by_hand.dtype == torch.bfloat16


class Branches(nn.Module):
    """Two resolutions side by side, then a third one: states are tuples that grow."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.first = nn.ModuleList(Exchange(2) for _ in range(2))
        self.more = nn.Conv2d(4, 4, 3, 2, 1)
        self.second = nn.ModuleList(Exchange(3) for _ in range(2))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        parts = [x, self.down(x)]
        for block in self.first:
            parts = block(parts)
        parts = [*parts, self.more(parts[-1])]
        for block in self.second:
            parts = block(parts)
        return self.head(torch.cat([p.mean((2, 3)) for p in parts], 1))


class Exchange(nn.Module):
    def __init__(self, branches):
        super().__init__()
        self.f = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(branches))

    def forward(self, parts):
        means = sum(p.mean((2, 3), keepdim=True) for p in parts)
        return [p + f(p) * torch.sigmoid(means) for p, f in zip(parts, self.f)]


def test_states_of_several_branches():
    network = Branches()
    model = built(network)
    assert list(model.steps) == ["residual", "residual", "transition", "residual", "residual"]
    assert model.block_names[0] == "first.0" and model.block_names[2] == "more"
    assert [len(shapes) for shapes in model.run.shapes] == [2, 2, 2, 3, 3, 3]
    x = images()
    assert certify(model, x, thorough=False)["bit_exact"]
    with torch.no_grad():
        state = model.initial_state(x)
        means = [p.mean((2, 3)) for p in (*state, network.more(state[1]))]
        assert torch.equal(model.readout_at(0, state), network.head(torch.cat(means, 1)))


class Cells(nn.Module):
    """Every cell takes the results of the two before it: nowhere is a single tensor all that is alive."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.cells = nn.ModuleList(Cell() for _ in range(4))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        before, x = x[:, :1].repeat(1, 4, 1, 1), self.stem(x)
        for cell in self.cells:
            before, x = x, cell(x, before)
        return self.head((x + before).mean((2, 3)))


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.g = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x, before):
        return torch.tanh(self.f(x)) * self.g(before)


def test_cuts_of_several_tensors_where_no_single_one_will_do():
    model = built(Cells())
    assert model.num_blocks >= 2 and all(name.startswith("cells.") for name in model.block_names)
    assert certify(model, images(), thorough=False)["bit_exact"]


class Patched(nn.Module):
    """Stages joined by a reordering (feature map to tokens) and a normalisation that are no blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.maps = nn.Sequential(*(Step(4, 4, 1, True, False) for _ in range(2)))
        self.tokens = nn.Sequential(*(Token(4) for _ in range(2)))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.maps(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.tokens(x).mean(1))


class Token(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.f = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.f(self.norm(x)))


def test_a_reordering_between_blocks_is_executed_where_the_block_behind_it_is_left_out():
    network = Patched()
    model = built(network)
    assert list(model.steps) == ["residual"] * 4 and model.shape_at(2) == (4, 16, 16) and model.shape_at(3) == (256, 4)
    x = images()
    assert certify(model, x, thorough=False)["bit_exact"]
    with torch.no_grad():
        state = model.initial_state(x)
        expected = network.head(state.flatten(2).transpose(1, 2).mean(1))
        torch.testing.assert_close(model.readout_at(0, state), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("network", "depth"), [(Functional(), 4), (Modular(), 3), (Reversible(), 3)])
def test_runs_that_are_the_network_stay_the_default(network, depth):
    found = discover(network.eval(), (3, 12, 12))
    run = choose_run(found, "auto", None, "net")
    assert (run.mode, run.depth) == ("closed", depth) and run == choose_run(found, "longest", None, "net")
    assert isinstance(choose_run(found, "whole", None, "net"), Course)


def plain_net():
    layers = [layer for n in (4, 8, 8, 16) for layer in (nn.LazyConv2d(n, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 5)).eval()
    network(torch.zeros(1, 3, 16, 16))
    return network


def test_a_chain_without_skips_has_steps_but_no_head():
    model = built(plain_net())
    # The first convolution is the stem, the last layer the classifier; pooling belongs to what it follows.
    assert list(model.block_names) == ["3", "6", "9"] and list(model.steps) == ["transition"] * 3
    assert "no" in model.without_head or "none" in model.without_head
    assert model.head_at(0) is None and isinstance(model.head_at(3), nn.Module)
    assert certify(model, images(), thorough=False)["bit_exact"]


def test_head_of_a_chain_without_skips_is_refused_and_others_offered(tmp_path, monkeypatch):
    from stabilitykit import evaluate

    monkeypatch.chdir(tmp_path)
    view = View(run="whole", classes=(0, 1, 2, 3))
    model = adapt(plain_net(), (3, 16, 16), name="plain", preprocess=None, preprocessing={}, view=view)
    pixels = np.arange(4 * 16 * 16 * 3, dtype=np.uint8).reshape(4, 16, 16, 3)
    np.savez("set.npz", X=pixels, y=np.arange(4))
    with pytest.raises(UsageProblem, match=r"plain has no readout `head`.*--readout lens.*--readout probe"):
        evaluate([model], ["npz:path=set.npz"], ["expansivity"])


def test_certifiable_heads_share_the_layers_of_the_network():
    network = Staged([(False, ["residual"]), (False, ["residual", "residual"])], False)
    model = built(network)
    heads = [model.head_at(t) for t in range(model.num_blocks + 1)]
    assert heads[0] is None and heads[1] is None  # the transition adds its shortcut: no chain of layers
    x = images()
    with torch.no_grad():
        state = model.initial_state(x)
        for t, head in enumerate(heads):
            if head is not None:
                torch.testing.assert_close(head(state), model.readout_at(t, state), rtol=1e-5, atol=1e-5)
                assert head[-1] is network.head
            if t < model.num_blocks:
                state = model.block(t, state)


def test_unknown_runs_and_modes_are_refused_with_advice():
    found = discover(Staged([(False, ["residual", "residual"]), (False, ["residual"])], True).eval(), (3, 16, 16))
    assert isinstance(choose_run(found, "auto", None, "net"), Course)
    assert choose_run(found, "longest", None, "net").mode == "closed"
    with pytest.raises(UsageProblem, match=r"did you mean whole\?.*runs: auto, whole, longest, cheapest"):
        choose_run(found, "whol", None, "net")
    with pytest.raises(UsageProblem, match="run=whole is none of them"):
        choose_run(found, "whole", "closed", "net")


def test_a_network_without_a_course_says_why():
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(48, 5)

        def forward(self, x):
            return self.f(x.flatten(1))

    found = discover(One().eval(), (3, 4, 4))
    with pytest.raises(CellProblem, match="no course through the whole network: "):
        choose_run(found, "auto", None, "net")


def test_runs_recorded_before_courses_mean_the_longest_run():
    from stabilitykit.evaluation.selection import choose, choose_recorded
    from stabilitykit.plugins.registry import Registry

    registry = Registry.load()
    label = choose(registry, "model", "timm:resnet18").label
    former, now = (choose_recorded(registry, "model", label, schema=schema) for schema in (2, 3))
    assert (former.options["run"], now.options["run"]) == ("longest", "auto")
    assert former.label == now.label == label
    assert choose_recorded(registry, "model", label + ",run=whole", schema=2).options["run"] == "whole"
