"""Perturbations measured: how far their blocks are from the true ones, and how well their orbits are traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stabilitykit import CellProblem, Model
from stabilitykit.evaluation.context import Context
from stabilitykit.search import best_tracers
from stabilitykit_topological.true_orbits import TrueOrbits

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

    Block = Callable[[int, State], State]

_NUMBERS = 1 << 22


class System(Protocol):
    """A perturbed system, built when it is run; ``block``: the only block that differs, None when any may."""

    @property
    def label(self) -> str: ...

    @property
    def block(self) -> int | None: ...

    def build(self, model: Model, seed: int) -> Block: ...


@dataclass(frozen=True)
class Given:
    """Perturbed blocks that are there already."""

    blocks: Block
    block: int | None = None
    label: str = ""

    def build(self, model: Model, seed: int) -> Block:
        return self.blocks


@dataclass(frozen=True)
class Response:
    """What P perturbed orbits of T blocks show.

    Attributes:
        change: float64 (P, T), ||phi_t(h) - phi^_t(h)||_2, the larger of h on the true orbit and on the perturbed one.
        relative: float64 (P, T), the same over ||phi_t(h)||_2.
        jumps: float64 (P, T), jumps of the perturbed orbit as a pseudo-orbit (at most Lip(g) change).
        eps: float64 (P,), tracing error by the best true orbit; tracer: int64 (P,), its row.
        own: float64 (P,), tracing error by the true orbit from the same image.
        distances: float64 (P, T+1), to the best tracer at every depth.
        changed: bool (P,), the decision differs.
    """

    change: np.ndarray
    relative: np.ndarray
    jumps: np.ndarray
    eps: np.ndarray
    tracer: np.ndarray
    own: np.ndarray
    distances: np.ndarray
    changed: np.ndarray

    @property
    def delta(self) -> float:
        """sup over samples and blocks of d(phi_t, phi^_t) in state space."""
        return float(self.change.max())


def respond(
    context: Context,
    block: Block,
    rows: np.ndarray,
    label: str = "",
    only: int | None = None,
    tracers: np.ndarray | None = None,
) -> Response:
    """One perturbation, given by its blocks ``block(t, state)``; as :func:`responses`.

    Arguments:
        only: the one block that differs. None: any may.

    Raises:
        CellProblem: the perturbed orbits leave the finite numbers.
    """
    (found,) = responses(context, [Given(block, only, label)], rows, tracers)
    if isinstance(found, CellProblem):
        raise found
    return found


def responses(
    context: Context, systems: Sequence[System], rows: np.ndarray, tracers: np.ndarray | None = None
) -> list[Response | CellProblem]:
    """Run the images ``rows`` (P,) through perturbed blocks, batch by batch.

    The true orbits of a batch are computed once for all ``systems``; where one block differs alone, its orbits start
    at the true state before that block. States are kept for one batch, perturbed copies for one batch each.

    Arguments:
        tracers: trajectories (T+1, M, K) to trace by; ``tracer`` then counts among those, and ``own`` is NaN. None:
            those of all images.

    Returns:
        what each system shows, or why it cannot be measured: its orbits leave the finite numbers, say.
    """
    values = context.trajectory.values if tracers is None else tracers
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in systems]
    failed: dict[int, CellProblem] = {}
    count = -(-len(rows) // context.batch_size)
    told = "perturbation" + (f": {systems[0].label}" if len(systems) == 1 else "")
    work = ((batch, k) for batch in context.batches(rows) for k in range(len(systems)))
    true: TrueOrbits | None = None
    for (part, inputs), k in context.progress(work, told, count * len(systems)):
        if true is None or true.inputs is not inputs:
            true = TrueOrbits(context, inputs)
        if k in failed:
            continue
        try:
            found = true.perturbed(systems[k].build(context.model, context.seed), systems[k].block)
        except CellProblem as problem:
            failed[k] = problem
            continue
        tracer, eps = _trace(values, found.readouts)
        own = np.full(len(part), np.nan)
        if tracers is None:
            own = _distances(values[:, part], found.readouts).max(axis=1)
        apart = _distances(values[:, tracer], found.readouts)
        changed = true.decisions != found.readouts[:, -1].argmax(axis=1)
        parts[k].append((found.change, found.relative, found.jumps, eps, tracer, own, apart, changed))
    return [
        failed[k] if k in failed else Response(*(np.concatenate(column) for column in zip(*parts[k], strict=True)))
        for k in range(len(systems))
    ]


def _trace(values: np.ndarray, readouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, _NUMBERS // readouts[0].size)
    parts = [best_tracers(values, readouts[first : first + step]) for first in range(0, len(readouts), step)]
    tracer, eps = zip(*parts, strict=True)
    return np.concatenate(tracer), np.concatenate(eps)


def _distances(values: np.ndarray, readouts: np.ndarray) -> np.ndarray:
    """Distances of orbits (T+1, P, K) and (P, T+1, K) at every depth -> float64 (P, T+1)."""
    difference = np.asarray(values, dtype=np.float64).transpose(1, 0, 2) - readouts
    return np.sqrt(np.square(difference).sum(axis=2))
