"""One perturbation measured: how far its blocks are from the true ones, and how well its orbits are traced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stabilitykit.dynamics.perturbed import perturbed_orbits
from stabilitykit.dynamics.readout import kept_logits, state_vector
from stabilitykit.evaluation.context import Context
from stabilitykit.search import best_tracers

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

_NUMBERS = 1 << 22


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
    block: Callable[[int, State], State],
    rows: np.ndarray,
    label: str = "",
    only: int | None = None,
    tracers: np.ndarray | None = None,
) -> Response:
    """Run the images ``rows`` (P,) through perturbed blocks ``block(t, state)``; states are never kept.

    Arguments:
        only: the one block that differs; what is known to be equal is then not computed twice. None: any may.
        tracers: trajectories (T+1, M, K) to trace by; ``tracer`` then counts among those, and ``own`` is NaN. None:
            those of all images.

    Raises:
        CellProblem: the perturbed orbits leave the finite numbers.
    """
    values = context.trajectory.values if tracers is None else tracers
    parts: list[tuple[np.ndarray, ...]] = []
    batches = context.progress(context.batches(rows), f"perturbation: {label}", -(-len(rows) // context.batch_size))
    for part, inputs in batches:
        batch = _Batch(context, block, inputs, only)
        with context.running():
            found = perturbed_orbits(context.model, context.readout, inputs, batch.step, context.space)
        change, relative = batch.on_true_orbit()
        with np.errstate(divide="ignore", invalid="ignore"):
            here = np.where(found.changes > 0, found.changes / found.norms, 0.0)
        tracer, eps = _trace(values, found.readouts)
        parts.append(
            (
                np.maximum(change, found.changes),
                np.maximum(relative, here),
                found.jumps,
                eps,
                tracer,
                _distances(values[:, part], found.readouts).max(axis=1)
                if tracers is None
                else np.full(len(part), np.nan),
                _distances(values[:, tracer], found.readouts),
                batch.decisions() != found.readouts[:, -1].argmax(axis=1),
            )
        )
    return Response(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class _Batch:
    """Follows the true orbit of a batch beside the perturbed one."""

    def __init__(
        self, context: Context, block: Callable[[int, State], State], inputs: torch.Tensor, only: int | None
    ) -> None:
        self.context, self.block, self.inputs, self.only = context, block, inputs, only
        self.state: State | None = None
        self.rows: list[tuple[np.ndarray, np.ndarray]] = []

    def step(self, t: int, state: State, true: State) -> State:
        untouched = self.only is not None and t != self.only
        moved = true if untouched else self.block(t, state)
        if t == 0 or state is self.state:
            # The orbits have not parted yet (both start at h_0): one evaluation serves both.
            following, beside = true, moved
        else:
            assert self.state is not None
            following = self.context.model.block(t, self.state)
            beside = following if untouched else self.block(t, self.state)
        self._compare(following, beside)
        self.state = following
        return moved

    def _compare(self, true: State, moved: State) -> None:
        expected = state_vector(true).double()
        change = (expected - state_vector(moved).double()).norm(dim=1)
        relative = torch.where(change > 0, change / expected.norm(dim=1), 0.0)
        self.rows.append((change.cpu().numpy(), relative.cpu().numpy()))

    def on_true_orbit(self) -> tuple[np.ndarray, np.ndarray]:
        """(change, relative change) at the states of the true orbit -> float64 (B, T) each."""
        change, relative = zip(*self.rows, strict=True)
        return np.stack(change, axis=1), np.stack(relative, axis=1)

    @torch.inference_mode()
    def decisions(self) -> np.ndarray:
        """The true decisions, from the same batch -> int64 (B,)."""
        assert self.state is not None
        model = self.context.model
        with self.context.running():
            logits = self.context.readout.logits(model.num_blocks, self.state)
        return kept_logits(model, logits).argmax(axis=1)


def _trace(values: np.ndarray, readouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    step = max(1, _NUMBERS // readouts[0].size)
    parts = [best_tracers(values, readouts[first : first + step]) for first in range(0, len(readouts), step)]
    tracer, eps = zip(*parts, strict=True)
    return np.concatenate(tracer), np.concatenate(eps)


def _distances(values: np.ndarray, readouts: np.ndarray) -> np.ndarray:
    """Distances of orbits (T+1, P, K) and (P, T+1, K) at every depth -> float64 (P, T+1)."""
    difference = np.asarray(values, dtype=np.float64).transpose(1, 0, 2) - readouts
    return np.sqrt(np.square(difference).sum(axis=2))
