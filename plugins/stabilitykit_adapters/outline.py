"""A recorded network as the search for its course sees it: calls, states, and what happens between two states."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from stabilitykit_adapters.candidates import Candidates
from stabilitykit_adapters.following import Path
from stabilitykit_adapters.functional import modules_within, owners_of, single_cuts
from stabilitykit_adapters.nodes import mixes, node_name
from stabilitykit_adapters.program import Unreachable, image_shape_of
from stabilitykit_adapters.segments import point_of

State = tuple[int, ...]
ADDING = ("identity", "activated", "scaled", "normalised")
"""Kinds of skips that run through an addition (``partial`` ones may)."""
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Outline:
    """Questions about a recorded network.

    Arguments:
        candidates: the recorded network with its blocks.
    """

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.program, self.flow = candidates.program, candidates.flow
        self.singles = single_cuts(self.program, self.flow)
        self.owners = owners_of(self.program)

    def module(self, path: Path) -> nn.Module:
        """The module that a call calls."""
        return self.candidates.modules[self.program.modules[path]]

    def class_of(self, path: Path) -> type:
        """Class of that module."""
        return type(self.module(path))

    def alone(self, path: Path) -> bool:
        """Whether a call makes one call only."""
        return (*path, 0) in self.program.calls and (*path, 1) not in self.program.calls

    def mixing(self, path: Path) -> tuple[list[int], list[int]] | None:
        """(starts, ends) of a call that mixes coordinates, else None."""
        event = self.program.calls[path]
        starts = [v for v in dict.fromkeys(leaf.vertex for leaf in event.inputs) if v is not None]
        ends = [v for v in dict.fromkeys(leaf.vertex for leaf in event.outputs) if v is not None and v not in starts]
        return (starts, ends) if starts and ends and self.mixes(starts, ends) else None

    def mixes(self, start: Sequence[int], end: Sequence[int]) -> bool:
        """Whether a product with weights or attention lies between; pooling alone is no step."""
        return any(
            mixes(name) and name != "AvgPool2DBackward0" for name in map(node_name, self.flow.between(start, end))
        )

    def layers(self, path: Path) -> int:
        """Calls of modules without children that mix coordinates inside a call."""
        below = [self.layers(child) for child in self.program.children(path)]
        return sum(below) if below else int(self.mixing(path) is not None)

    def reachable(self, *states: State) -> bool:
        """Whether the states keep images apart and can be put in place."""
        try:
            for state in states:
                for vertex in state:
                    image_shape_of(self.program, vertex)
                point_of(self.program, state)
        except Unreachable:
            return False
        return True

    def shapes(self, state: State) -> list[tuple[int, ...]]:
        """Shapes of a state's tensors for one image, without the batch."""
        return [image_shape_of(self.program, vertex) for vertex in state]

    def kind(self, start: State, end: State) -> str:
        """How a skip runs from one state to another (one of :data:`stabilitykit_adapters.dataflow.KINDS`)."""
        if len(end) != 1:
            return "none"
        return self.flow.skip(start, end[0])

    def adds(self, start: State, end: State, kind: str) -> bool:
        """Whether the state reaches all of the result through additions: of ``partial`` skips, those that add."""
        fresh = [v for v in end if v not in start]
        return kind in ADDING or (kind == "partial" and all(self.flow.adds(start, v) for v in fresh))

    def permutes(self, start: State, end: State) -> bool:
        """Whether the second of two single states holds the coordinates of the first in another order."""
        return len(start) == len(end) == 1 and self.flow.permutation(start[0], end[0])

    def modules_between(self, start: State, end: State) -> tuple[str, ...]:
        """Outermost modules called between two states."""
        low = max(self.program.first_seen[v] for v in start)
        return modules_within(self.program, low, point_of(self.program, end))

    def step_name(self, names: Sequence[str], end: State) -> str:
        """What people call a step: the module that does its work, the first and the last of several."""
        paths = {self.program.name(path): path for path in self.program.calls}
        working = [self._inner(paths[name]) for name in names if self.mixing(paths[name]) is not None] or list(names)
        if not working:
            return self.owners.get(end[0], "forward")
        return working[0] if len(working) == 1 else f"{working[0]}..{working[-1]}"

    def _inner(self, path: Path) -> str:
        """Name of a call; of the only call inside it where it is a container of one."""
        while isinstance(self.module(path), CONTAINERS) and self.alone(path):
            path = (*path, 0)
        return self.program.name(path)

    def work_between(self, low: float, high: float) -> float:
        """Share of a forward pass spent between two moments."""
        return sum(a for seq, a in self.candidates.flops if low < seq - 1 <= high) / self.candidates.total
