"""What could be a block: module calls of a recorded forward pass whose inputs and outputs agree in shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from stabilitykit_adapters.dataflow import KINDS, Dataflow
from stabilitykit_adapters.following import Path
from stabilitykit_adapters.program import Program
from stabilitykit_adapters.tracing import Recording


@dataclass(frozen=True)
class Candidate:
    """A module call whose input-dependent inputs and outputs agree in shape.

    Attributes:
        start, end: vertices of the state before and after the call.
        sides: what else is alive on both sides (empty: the states are cuts); None: it changes.
        around: what else is alive before or after the call, None: too much to say.
        skip: one of :data:`stabilitykit_adapters.dataflow.KINDS`.
    """

    path: Path
    start: tuple[int, ...]
    end: tuple[int, ...]
    sides: frozenset[int] | None
    skip: str
    ticks: tuple[int, int]
    around: frozenset[int] | None = frozenset()

    @property
    def closed(self) -> bool:
        return self.sides is not None and not self.sides


class Candidates:
    """A recorded network and the candidates in it.

    Attributes:
        program, flow: the recorded pass, and who feeds whom in it.
        modules: of the network, in the order of ``named_modules``; ``weights``: which of them hold parameters.
        flops: (autograd sequence number, floating point operations) of every kernel; ``total``: their sum, at least 1.
        by_path: the candidates.
    """

    def __init__(self, module: nn.Module, program: Program, flow: Dataflow, recording: Recording) -> None:
        self.program, self.flow = program, flow
        self.modules = list(module.modules())
        self.weights = [any(True for _ in m.parameters()) for m in self.modules]
        self.flops = recording.flops
        self.total = sum(amount for _, amount in self.flops) or 1.0
        self.by_path = {c.path: c for path in program.calls if path and (c := self._candidate(path)) is not None}

    def size(self, state: Iterable[int]) -> int:
        """Elements of one image's state, given by its vertices."""
        return sum(self.flow.vertices[v].numel for v in state)

    def _candidate(self, path: Path) -> Candidate | None:
        event, flow = self.program.calls[path], self.flow
        starts = _unique(leaf.vertex for leaf in event.inputs)
        ends = [v for v in _unique(leaf.vertex for leaf in event.outputs) if v not in starts]
        if not starts or not ends or not self.weights[self.program.modules[path]]:
            return None
        paired = _pair(starts, ends, lambda v: flow.vertices[v].shape)
        if paired is None or not flow.parameters_between(paired, ends):
            return None
        start, end = tuple(paired), tuple(ends)
        sides: frozenset[int] | None = frozenset()
        around: frozenset[int] | None = sides
        ticks = (-1, -1)
        if not (self._cut(start) and self._cut(end)):
            before, after = flow.live(event.seq_start - 0.5), flow.live(event.seq_end - 0.5)
            sides = around = None
            if before is not None and after is not None and set(end) <= after:
                around, ticks = (before - set(start)) | (after - set(end)), (event.start, event.end)
                sides = around if before - set(start) == after - set(end) else None
        return Candidate(path, start, end, sides, self.skip(start, end, sides or frozenset()), ticks, around)

    def _cut(self, state: tuple[int, ...]) -> bool:
        live = self.flow.live(self.flow.birth(state))
        return live is not None and live <= set(state)

    def skip(self, start: tuple[int, ...], end: tuple[int, ...], sides: frozenset[int]) -> str:
        """How the skip from ``start`` to ``end`` runs, beside ``sides``: one of KINDS, the worst of all parts."""
        kinds = [self.flow.skip(start, vertex) for vertex in end]
        worst = max(kinds, key=KINDS.index)
        if worst == "none" and self.flow.inner_skip(start, end, sides):
            return "inner"
        return worst


def _unique(vertices: Iterable[int | None]) -> list[int]:
    return list(dict.fromkeys(v for v in vertices if v is not None))


def _pair(starts: list[int], ends: list[int], shape) -> list[int] | None:  # type: ignore[no-untyped-def]
    """For every end the first unused start of its shape; None when one has none."""
    free, chosen = list(starts), []
    for end in ends:
        match = next((v for v in free if shape(v) == shape(end)), None)
        if match is None:
            return None
        free.remove(match)
        chosen.append(match)
    return chosen
