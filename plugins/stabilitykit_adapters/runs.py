"""Runs of equal-dimension blocks: what discovery finds and the adapter executes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from stabilitykit.dynamics.model import Step
from stabilitykit_adapters.program import Program

Mode = Literal["closed", "open", "plain", "whole"]
MODES: tuple[Mode, ...] = ("closed", "open", "plain")
"""Kinds of runs of equal dimension; ``whole`` is the course through the network."""


@dataclass(frozen=True)
class Block:
    """One block phi_t: from one state to the next.

    Attributes:
        name: dotted names of the modules it runs, or of the code that holds it.
        kind: how its skip runs (see :data:`stabilitykit_adapters.dataflow.KINDS`).
        start, end: vertices of the state before and after (several: a product space).
        modules: dotted names of the modules it consists of.
        ticks: events before which nothing may be skipped when the state before, after is put in place (open
            runs: the side state may be computed later than the state); -1 where the state itself decides.
    """

    name: str
    kind: str
    start: tuple[int, ...]
    end: tuple[int, ...]
    modules: tuple[str, ...] = ()
    ticks: tuple[int, int] = (-1, -1)


@dataclass(frozen=True)
class CourseStep(Block):
    """One step of a course.

    Attributes:
        step: what it is.
        lead: vertices of the state given out before the step, where something without weights (reordering,
            normalisation) lies between it and ``start``: it is executed even where the step is replaced by the
            identity. Empty: ``start``.
    """

    step: Step = "equal"
    lead: tuple[int, ...] = ()

    @property
    def before(self) -> tuple[int, ...]:
        """Vertices of the state given out before the step."""
        return self.lead or self.start


@dataclass(frozen=True)
class Run:
    """T consecutive blocks between states of equal dimension.

    Attributes:
        name: where it is in the network, e.g. ``"blocks"`` or ``"layer3"``; unique within a model.
        mode: ``closed``: every state is a cut of the network (all that follows is a function of it) and every block
            has a skip. ``open``: the same, beside a side state that the blocks leave as it is. ``plain``: cuts
            without a skip.
        blocks: phi_0 .. phi_{T-1}.
        sides: vertices of the side state (open runs), constant along the run.
        shape: shape of h_T for one image; a product space gives one shape per part.
        side_shapes: the same for the side state.
        tail: share of a forward pass spent after h_T, in floating point operations.
        share: share of a forward pass spent inside the run.
        history: whether the side state holds earlier states of the run itself (open runs only): they too are held
            at the values of the image's own forward pass.
    """

    name: str
    mode: Mode
    blocks: tuple[Block, ...]
    sides: tuple[int, ...]
    shape: tuple[tuple[int, ...], ...]
    side_shapes: tuple[tuple[int, ...], ...] = ()
    tail: float = 0.0
    share: float = 0.0
    history: bool = False

    @property
    def depth(self) -> int:
        """T, the number of blocks."""
        return len(self.blocks)

    @property
    def dimension(self) -> int:
        """n, the number of elements of one state of one image (without the side state)."""
        return sum(_numel(shape) for shape in self.shape)

    @property
    def cost(self) -> float:
        """Cost of a whole trajectory in forward passes: one pass, and the tail once for each of T earlier states."""
        return 1.0 + self.depth * self.tail

    @property
    def kinds(self) -> dict[str, int]:
        """Residual kind -> number of blocks of that kind."""
        counts: dict[str, int] = {}
        for block in self.blocks:
            counts[block.kind] = counts.get(block.kind, 0) + 1
        return counts

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "mode": self.mode,
            "T": self.depth,
            "dimension": self.dimension,
            "shape": [list(s) for s in self.shape],
            "side_shapes": [list(s) for s in self.side_shapes],
            "side_holds_earlier_states": self.history,
            "kinds": self.kinds,
            "cost_forwards": round(self.cost, 4),
            "tail_share": round(self.tail, 6),
            "run_share": round(self.share, 6),
            "blocks": [b.name for b in self.blocks],
        }


@dataclass(frozen=True)
class Course(Run):
    """The course of a whole network: states of any shape, mode ``whole``, no side state.

    Attributes:
        blocks: phi_0 .. phi_{T-1}.
        cuts: vertices of h_0 .. h_T.
        shapes: of h_0 .. h_T for one image, one per part.
        readouts: share of a forward pass that each head readout takes that is no other one's, by rising depth.
    """

    blocks: tuple[CourseStep, ...]
    cuts: tuple[tuple[int, ...], ...] = ()
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = ()
    readouts: tuple[float, ...] = ()

    @property
    def cost(self) -> float:
        """Cost of a whole trajectory in forward passes: one pass, and a readout before each residual step."""
        return 1.0 + sum(self.readouts)

    @property
    def steps(self) -> dict[str, int]:
        """Kind of step -> how many."""
        counts: dict[str, int] = {}
        for block in self.blocks:
            counts[block.step] = counts.get(block.step, 0) + 1
        return counts

    def is_all_of(self, run: Run, births: Mapping[int, float]) -> bool:
        """Whether ``run`` reaches from the course's first state to its last: it is the network.

        Arguments:
            births: vertex -> moment it is computed.
        """
        ends = [max(births[v] for v in state) for state in (self.cuts[0], self.cuts[-1])]
        own = [max(births[v] for v in state) for state in (run.blocks[0].start, run.blocks[-1].end)]
        return own[0] <= ends[0] and ends[1] <= own[1]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {
            "shapes": [[list(s) for s in state] for state in self.shapes],
            "steps": [block.step for block in self.blocks],
        }


@dataclass(frozen=True)
class Reason:
    """Why a candidate did not become (part of) a closed run.

    Attributes:
        code: one of the names in :data:`REASONS`.
        candidate: class of the modules concerned and how many, or the place in the code.
        detail: shapes and names.
    """

    code: str
    candidate: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.candidate}: {REASONS[self.code]}" + (f" ({self.detail})" if self.detail else "")


REASONS = {
    "side state": "the states are no cut: the network also carries something past these blocks",
    "changing side state": "the network carries something past these blocks and it changes along the way",
    "one block per stage": "only one block of this state shape in a row, a run needs at least two",
    "batch layout": "the state's layout does not keep images apart",
    "out of reach": "the state cannot be put in place from outside",
    "concatenation growth": "the output is the input with new channels appended",
    "no skip": "equal dimensions, but the input does not reach the output past the layers",
    "changing widths": "input and output differ in size",
    "no candidate": "no module maps its input to something of the same size",
}
"""Named reasons, the nearest misses first."""


@dataclass
class Discovery:
    """Everything :func:`stabilitykit_adapters.discovery.discover` finds in one network.

    Attributes:
        runs: longest first.
        reasons: why the other candidates failed, the nearest misses first.
        program: what re-execution needs.
        course: through the whole network, or the reason why there is none.
    """

    runs: list[Run]
    reasons: list[Reason]
    program: Program
    course: Course | str
    flops: float = 0.0
    notes: list[str] = field(default_factory=list)

    def of_mode(self, mode: Mode | None) -> list[Run]:
        return [run for run in self.runs if mode is None or run.mode == mode]


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
