"""Blocks beside which something else is alive: states of several tensors, and courses that see most of a network."""

from __future__ import annotations

import torch
from stabilitykit_adapters.course_model import CourseModel
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.equivalence import certify
from stabilitykit_adapters.runs import Course
from torch import nn

SHAPE = (3, 8, 8)


class Block(nn.Module):
    """x + f(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.conv(x))


class Net(nn.Module):
    """A stem, two parts that ``between`` reduces, and a classifier."""

    def __init__(self, part: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.between, self.second = part(), nn.Conv2d(8, 8, 3, 2, 1), part()
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.between(self.first(self.stem(x))))
        return self.classifier(x.mean((2, 3)))


class Halves(nn.Module):
    """Blocks in one half of the channels; the other half is carried past them."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.join = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.split(4, dim=1)
        return self.join(torch.cat([left, self.blocks(right)], dim=1))


class Tree(nn.Module):
    """Every block's result is kept for the root: what is alive grows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Block(8), Block(8)
        self.root = nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        return self.root(torch.cat([x, self.two(x)], dim=1))


def course_of(part):
    network = Net(part).eval()
    found = discover(network, SHAPE)
    assert isinstance(found.course, Course), found.course
    return network, found.course, CourseModel(network, found.program, found.course)


def test_blocks_in_one_half_of_the_channels_are_residual_steps():
    network, course, model = course_of(Halves)
    names = [block.name for block in course.blocks]
    assert [n for n in names if ".blocks." in n] == [f"{p}.blocks.{k}" for p in ("first", "second") for k in (0, 1)]
    assert course.steps["residual"] == 4 and len(course.shapes[0]) == 2
    # The last state is one tensor again, and nothing but the classifier is left behind it.
    assert course.shapes[-1] == ((8, 4, 4),) and "second.join" in names[-1]
    x = torch.randn(3, *SHAPE)
    assert certify(model, x, thorough=False)["bit_exact"]
    with torch.inference_mode():
        # The head in front of the first block, written by hand: blocks are left out, everything else runs.
        h = network.first.join(network.stem(x))
        h = network.second.join(network.between(h))
        byhand = network.classifier(h.mean((2, 3)))
        assert torch.equal(model.readout_at(0, model.initial_state(x)), byhand)
        # Leaving one block out keeps every part where it was.
        state = model.initial_state(x)
        following = model.block(0, state)
        same = [torch.equal(a, b) for a, b in zip(model.left_out(0, state), following)]
        assert sorted(same) == [False, True]


def test_a_tree_whose_states_grow_is_cut_at_every_block():
    _network, course, model = course_of(Tree)
    ends = [block.name for block in course.blocks]
    assert {"first.two", "second.two"} <= set(ends) and "second.root" in ends[-1]
    assert certify(model, torch.randn(3, *SHAPE), thorough=False)["bit_exact"]
