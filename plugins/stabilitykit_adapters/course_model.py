"""A whole unmodified network as a stabilitykit Model: every block, whatever its dimension."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stabilitykit.dynamics.model import Step, state_of, state_parts
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.layout import from_image_first, to_image_first
from stabilitykit_adapters.program import Program
from stabilitykit_adapters.runs import Course, CourseStep
from stabilitykit_adapters.segments import Segment, point_of, segment
from stabilitykit_adapters.tail import joined

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State


class CourseModel(AdaptedModel):
    """The course of an unmodified network, from its stem to its classifier.

    h_t is (B, *shape_at(t)), a tuple where several tensors are alive. The readout at depth t is the rest of the
    network with every remaining residual step replaced by the identity; transitions, and steps between equal shapes
    without a skip, are executed. At depth T it is the network's own classifier.

    Arguments: as of :class:`AdaptedModel`, ``run`` being a :class:`stabilitykit_adapters.runs.Course`.
    """

    run: Course

    def _prepare(self) -> None:
        program, cuts = self.program, self.run.cuts
        self._prefix = segment(program, -1, (program.input_vertex,), cuts[0])
        self._blocks = [_part(program, a, b) for a, b in itertools.pairwise(cuts)]
        self._leads = [
            None if block.before == block.start else _part(program, block.before, block.start)
            for block in self.run.blocks
        ]
        # From a step that is executed to the next one that is not, in one go: (part, the depth it leads to).
        self._stretches: dict[int, tuple[Segment, int]] = {}
        end = self.num_blocks
        for t in range(self.num_blocks, -1, -1):
            if t < self.num_blocks and self.run.blocks[t].step == "residual":
                end = t
            else:
                self._stretches[t] = _part(program, cuts[t], cuts[end] if end < self.num_blocks else ()), end

    @property
    def steps(self) -> Sequence[Step]:
        return [block.step for block in self.run.blocks]

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.shape_at(self.num_blocks)

    def shape_at(self, t: int) -> tuple[int, ...]:
        return self.run.shapes[t][0]

    @property
    def one_readout(self) -> bool:
        return False

    @property
    def without_head(self) -> str:
        if "residual" in self.steps:
            return ""
        return (
            f"none of the {self.num_blocks} steps of its course has a skip that could stand in for it, so the rest of "
            "the network would give the same numbers at every depth"
        )

    def executed(self, t: int) -> bool:
        return self.run.blocks[t].step != "residual"

    def same_readout(self, t: int) -> bool:
        return self.run.blocks[t].step == "residual" and self._leads[t] is None

    def initial_state(self, inputs: torch.Tensor) -> State:
        """Inputs (B, *input_shape), preprocessed -> h_0."""
        return self._given_out(self._replayer.run(self._prefix, (inputs,), inputs.shape[0]), self.run.cuts[0])

    def block(self, t: int, state: State) -> State:
        """phi_t: h_t -> h_{t+1}."""
        return self._led(self._blocks[t], state, self.run.cuts[t + 1])

    def left_out(self, t: int, state: State) -> State:
        """h_t -> h_{t+1} with step t replaced by the identity: what reorders coordinates before it is executed."""
        lead = self._leads[t]
        return state if lead is None else self._led(lead, state, self.run.blocks[t].start)

    def readout(self, state: State, *, fill: float = 0.0) -> torch.Tensor:
        """g_T: everything after the last step, applied to h_T -> logits (B, K)."""
        return self._chosen(self._ran(self._stretches[self.num_blocks][0], state, fill)[0])

    def readout_at(self, t: int, state: State) -> torch.Tensor:
        """The rest of the network on h_t, without its residual steps -> logits (B, K)."""
        for position, block in self._rest(t):
            if block is not None:
                state = self.left_out(position, state)
                continue
            part, end = self._stretches[position]
            if not part.capture:
                return self._chosen(self._ran(part, state)[0])
            state = self._led(part, state, self.run.cuts[end])
        raise AssertionError("a course ends with its tail")

    def hooked_states(self, inputs: torch.Tensor) -> list[State]:
        """All states h_0 .. h_T of one plain forward pass, copied as they are computed (for the certificate)."""
        everything = tuple(dict.fromkeys(v for cut in self.run.cuts for v in cut))
        part = segment(self.program, -1, (self.program.input_vertex,), everything)
        values = dict(zip(everything, self._replayer.run(part, (inputs,), inputs.shape[0])))
        return [self._given_out([values[v] for v in cut], cut) for cut in self.run.cuts]

    @property
    def head(self) -> nn.Module | None:
        return self.head_at(self.num_blocks)

    def head_at(self, t: int) -> nn.Module | None:
        """g_t as a chain of standard layers, where all that it executes is one."""
        if self.without_head and t < self.num_blocks:
            return None
        parts: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        for position, block in self._rest(t):
            if block is None:
                part, end = self._stretches[position]
                parts.append((self.run.cuts[position], self.run.cuts[end] if part.capture else ()))
            elif block.before != block.start:
                parts.append((block.before, block.start))
        return self._layers(parts)

    def _layers(self, parts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> nn.Module | None:
        if not self._has_chain or any(len(a) > 1 or len(b) > 1 for a, b in parts):
            return None
        single = [(a[0], b[0] if b else self.program.output_vertex) for a, b in parts]
        return joined(self.module, self.program, single, self.columns)

    def _rest(self, t: int) -> Iterator[tuple[int, CourseStep | None]]:
        """What the readout at depth t consists of: (depth, residual step), or (depth, None) for an executed stretch."""
        while t <= self.num_blocks:
            if t not in self._stretches:
                yield t, self.run.blocks[t]
                t += 1
                continue
            yield t, None
            part, t = self._stretches[t]
            if not part.capture:
                return

    def _led(self, part: Segment, state: State, vertices: Sequence[int]) -> State:
        """The state of ``vertices`` that ``part`` leads to: tensors that it computes, and those that were there."""
        known = dict(zip(part.inject, state_parts(state)))
        fresh = state_parts(self._given_out(self._ran(part, state), part.capture))
        known |= dict(zip(part.capture, fresh))
        return state_of([known[v] for v in vertices])

    def _ran(self, part: Segment, state: State, fill: float = 0.0) -> tuple[torch.Tensor, ...]:
        batch = state_parts(state)[0].shape[0]
        return self._replayer.run(part, self._taken(state, part.inject), batch, fill=fill)

    def _taken(self, state: State, vertices: Sequence[int]) -> list[torch.Tensor]:
        """A state as the network's tensors, copied where it would write to them."""
        tensors = []
        for part, vertex in zip(state_parts(state), vertices):
            tensor = from_image_first(part, self.program.shapes[vertex])
            tensors.append(tensor.clone() if vertex in self.program.mutated else tensor)
        return tensors

    def _given_out(self, tensors: Sequence[torch.Tensor], vertices: Sequence[int]) -> State:
        return state_of([to_image_first(x, self.program.shapes[v]) for x, v in zip(tensors, vertices)])

    def _fingerprinted(self) -> tuple[Any, ...]:
        return (*super()._fingerprinted(), [block.step for block in self.run.blocks])


def _part(program: Program, start: Sequence[int], end: Sequence[int]) -> Segment:
    return segment(program, point_of(program, start), start, [v for v in end if v not in start])
