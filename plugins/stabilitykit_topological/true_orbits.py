"""The true orbits of one batch, computed once, and perturbed orbits beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from stabilitykit.dynamics.perturbed import readout_values
from stabilitykit.dynamics.readout import kept_logits, state_vector
from stabilitykit.evaluation.context import Context

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State


@dataclass(frozen=True)
class Perturbed:
    """Perturbed orbits of a batch of B images through T blocks.

    Attributes:
        readouts: float64 (B, T+1, K), g_t of the perturbed orbit.
        jumps: float64 (B, T), the orbit as a pseudo-orbit (Definition 2).
        change: float64 (B, T), ||phi_t(h) - phi^_t(h)||_2 in the space after block t, the larger of h on the true
            orbit and on the perturbed one; relative: the same over ||phi_t(h)||_2.
    """

    readouts: np.ndarray
    jumps: np.ndarray
    change: np.ndarray
    relative: np.ndarray


class TrueOrbits:
    """h_0 .. h_T of one batch, kept.

    Arguments:
        inputs: (B, C, H, W), preprocessed, of the model's dtype.
    """

    @torch.inference_mode()
    def __init__(self, context: Context, inputs: torch.Tensor) -> None:
        self.context, self.inputs = context, inputs
        model = context.model
        with context.running():
            self.states: list[State] = [model.initial_state(inputs)]
            for t in range(model.num_blocks):
                self.states.append(model.block(t, self.states[-1]))
        self._readouts: dict[int, np.ndarray] = {}

    @cached_property
    @torch.inference_mode()
    def decisions(self) -> np.ndarray:
        """int64 (B,): the true decisions."""
        model = self.context.model
        with self.context.running():
            logits = self.context.readout.logits(model.num_blocks, self.states[-1])
        return kept_logits(model, logits).argmax(axis=1)

    def readout(self, t: int) -> np.ndarray:
        """g_t of the true orbits, float64 (B, K)."""
        if t not in self._readouts:
            self._readouts[t] = self._values(t, self.states[t])
        return self._readouts[t]

    @torch.inference_mode()
    def perturbed(self, block: Callable[[int, State], State], only: int | None = None) -> Perturbed:
        """Orbits through the perturbed blocks ``block(t, state)``.

        Arguments:
            only: the one block that differs: what is known to be equal is not computed twice. None: any may.

        Raises:
            CellProblem: a readout is NaN or infinite.
        """
        model, first = self.context.model, only or 0
        depths = model.num_blocks + 1
        zeros = np.zeros(len(self.inputs))
        here: dict[int, np.ndarray] = {t: self.readout(t) for t in range(first + 1)}
        there: dict[int, np.ndarray] = {t: self.readout(t) for t in range(first + 2)}
        change, relative = [zeros] * first, [zeros] * first
        state = self.states[first]
        with self.context.running():
            for t in range(first, model.num_blocks):
                together = t == first  # the orbits have not parted yet: one evaluation serves both
                true = self.states[t + 1] if together else model.block(t, state)
                state = block(t, state) if only in (None, t) else true
                size, share = (zeros, zeros) if state is true else _change(true, state)
                if only is None and not together:
                    beside = _change(self.states[t + 1], block(t, self.states[t]))
                    size, share = np.maximum(size, beside[0]), np.maximum(share, beside[1])
                change.append(size)
                relative.append(share)
                if state is not true and not together:
                    there[t + 1] = self._values(t + 1, true)
                if t + 2 == depths or not self.context.readout.equals_next(t + 1):
                    here[t + 1] = self._values(t + 1, state)
        for t in reversed(range(depths)):
            if t not in here:
                here[t] = there[t + 1]  # g_t = g_{t+1} o phi_t
            there.setdefault(t, here[t])
        jumps = [np.sqrt(np.square(there[t] - here[t]).sum(axis=1)) for t in range(1, depths)]
        readouts = [here[t] for t in range(depths)]
        return Perturbed(*(np.stack(column, axis=1) for column in (readouts, jumps, change, relative)))

    @torch.inference_mode()
    def _values(self, t: int, state: State) -> np.ndarray:
        with self.context.running():
            return readout_values(self.context.model, self.context.readout, t, state, self.context.space)


def _change(true: State, moved: State) -> tuple[np.ndarray, np.ndarray]:
    """||true - moved||_2 of every image, and over ||true||_2: float64 (B,) each."""
    expected = state_vector(true).double()
    size = (expected - state_vector(moved).double()).norm(dim=1)
    share = torch.where(size > 0, size / expected.norm(dim=1), 0.0)
    return size.cpu().numpy(), share.cpu().numpy()
