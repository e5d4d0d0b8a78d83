"""What ``audit --list-runs`` shows: the course of a network, then its runs of equal dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from stabilitykit_adapters.adapting import model_class
from stabilitykit_adapters.runs import Course, Discovery, Mode, Run

COLUMNS = ("name", "mode", "T", "state", "dimension", "steps", "cost", "certified")


@dataclass(frozen=True)
class Listed:
    """A run, and the depths t in 0..T at which Lip(g_t) can be certified: g_t is a chain of standard layers."""

    run: Run
    certifiable: tuple[int, ...]

    def row(self) -> tuple[Any, ...]:
        """Values of :data:`COLUMNS`."""
        run = self.run
        state = " + ".join("x".join(map(str, s)) for s in run.shape)
        kinds = run.kinds
        if isinstance(run, Course):
            first = " + ".join("x".join(map(str, s)) for s in run.shapes[0])
            state, kinds = f"{first} to {state}", run.steps
        if run.side_shapes:
            state += " beside " + " + ".join("x".join(map(str, s)) for s in run.side_shapes)
        steps = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return (run.name, run.mode, run.depth, state, run.dimension, steps, f"{run.cost:.2f}", self.certified)

    @property
    def certified(self) -> str:
        """At which depths a bound on Lip(g) can be certified, in words."""
        count, of = len(self.certifiable), self.run.depth + 1
        if count == of:
            return "all depths"
        if self.certifiable == tuple(range(of - count, of)):
            return f"last {count} of {of} depths" if count else "no"
        return f"{count} of {of} depths"

    def to_json(self) -> dict[str, Any]:
        return self.run.to_json() | {"certifiable_depths": list(self.certifiable)}


def listed(module: nn.Module, found: Discovery, mode: Mode | None, columns: Sequence[int] | None) -> list[Listed]:
    """The course first (without ``mode``), then the runs of that mode."""
    runs = found.of_mode(mode)
    if mode is None and isinstance(found.course, Course):
        runs = [found.course, *runs]
    lines = []
    for run in runs:
        model = model_class(run)(module, found.program, run, columns=columns)
        depths = range(run.depth + 1)
        lines.append(Listed(run, tuple(t for t in depths if model.head_at(t) is not None)))
    return lines
