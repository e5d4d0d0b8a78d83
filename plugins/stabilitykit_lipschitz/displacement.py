"""What number formats move: ||h_t in the format - h_t||, and which decisions change by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from stabilitykit.dynamics.lowprecision import LowPrecision, round_to
from stabilitykit.dynamics.readout import state_vector
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.radii import Bounded, Radii, clean_states
from stabilitykit_lipschitz.rounding import gamma

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State


class Moves:
    """How far states of n images at depths 0..T are moved; NaN and False at depths without radii.

    Attributes:
        moved: float64 (T+1, n), ||the moved state - h_t||, rounded up; infinite where it is not finite.
        flipped: bool (T+1, n), the readout g_t decides the moved state otherwise than the clean one.
        certified: bool (T+1, n), the radius is larger than ``moved``.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.moved = np.full(shape, np.nan)
        self.flipped, self.certified = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)

    @property
    def contradictions(self) -> int:
        """Decisions that changed although they were certified: 0, or a bound is wrong."""
        return int((self.flipped & self.certified).sum())

    def take(self, t: int, part: slice, bounded: Bounded, radius: np.ndarray, clean: State, moved: State) -> None:
        """States of the images ``part`` at depth t, and their radii (B,)."""
        before, after = (state_vector(s).double().cpu().numpy() for s in (clean, moved))
        self.moved[t, part] = _distances(before, after)
        self.flipped[t, part] = _decided(bounded, after) != _decided(bounded, before)
        self.certified[t, part] = radius > self.moved[t, part]


class Displacement:
    """What one format does to n images at depths 0..T; the readouts stay as they are, and are computed in float64.

    Arguments:
        format: one of :data:`stabilitykit.dynamics.lowprecision.FORMATS`.
        rows: int64 (n,), row numbers of the images.

    Attributes:
        together: stem and blocks run in the format, and errors of all blocks before a depth add up in its state.
        alone: only the block before a depth runs in it (at depth 0 the stem), on the clean state it is given.
    """

    def __init__(self, context: Context, format: str, rows: np.ndarray) -> None:
        """Copy the model in the format.

        Raises:
            CellProblem: the model cannot be copied.
        """
        self.context, self.format, self.rows = context, format, rows
        self._low = LowPrecision(context.model, format)
        shape = (context.model.num_blocks + 1, len(rows))
        self.together, self.alone = Moves(shape), Moves(shape)

    @property
    def contradictions(self) -> int:
        """Decisions that changed although they were certified: 0, or a bound is wrong."""
        return self.together.contradictions + self.alone.contradictions

    @torch.inference_mode()
    def measure(self, bounded: Sequence[Bounded], radii: Radii) -> None:
        """Fill in the depths that the readouts ``bounded`` serve: one batch and one depth are held at a time."""
        served = {t: b for b in bounded if b.bounds is not None for t in b.depths}
        if not served:
            return
        count = -(-len(self.rows) // self.context.batch_size)
        batches = self.context.batches(self.rows)
        place = 0
        for chosen, inputs in self.context.progress(batches, f"certified radii: {self.format}", count):
            part = slice(place, place + len(chosen))
            place += len(chosen)
            state = before = None
            for t, clean in clean_states(self.context, inputs, max(served)):
                state = self._step(t, inputs, state)
                if t in served:
                    radius = radii.radius[t, chosen]
                    own = state if before is None else self._step(t, inputs, before)
                    self.together.take(t, part, served[t], radius, clean, state)
                    self.alone.take(t, part, served[t], radius, clean, own)
                before = clean

    def _step(self, t: int, inputs: torch.Tensor, state: State | None) -> State:
        """h_t in the format, of ``inputs`` (B, C, H, W) or the ``state`` before."""
        with self.context.running():
            if state is not None:
                return self._low.block(t - 1, state)
            return self._low.twin.initial_state(inputs if self.format == "int8" else round_to(inputs, self.format))


def _distances(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """float64 (B,): l2 distances of rows (B, n), rounded up; infinite where one is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.linalg.norm(after - before, axis=1) * (1 + gamma(before.shape[1] + 4))
    return np.where(np.isfinite(apart), apart, np.inf)


def _decided(bounded: Bounded, states: np.ndarray) -> np.ndarray:
    """int64 (B,): the class decided at ``states`` (B, n), the lowest on ties; -1 where outputs are not finite."""
    assert bounded.bounds is not None
    values, _ = bounded.bounds.logits(states)
    finite = np.isfinite(values).all(axis=1)
    return np.where(finite, np.where(finite[:, None], values, 0.0).argmax(axis=1), -1)
