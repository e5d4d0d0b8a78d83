"""Orbits of a perturbed network beside the true one, streamed: states are dropped as soon as they are read out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stabilitykit.base.errors import CellProblem
from stabilitykit.dynamics.readout import Readout, kept_logits, state_vector
from stabilitykit.dynamics.space import Space, to_space

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import Model, State

    # (t, perturbed state h^_t, true image phi_t(h^_t)) -> h^_{t+1}
    Step = Callable[[int, State, State], State]


@dataclass(frozen=True)
class PerturbedOrbits:
    """Orbits h^_{t+1} = phi^_t(h^_t), h^_0 = h_0, of one batch of B images.

    Attributes:
        readouts: float64 (B, T+1, K), g_t(h^_t) in the space asked for.
        jumps: float64 (B, T), d(g_{t+1}(phi_t(h^_t)), g_{t+1}(h^_{t+1})): the orbit as a pseudo-orbit (Definition 2).
        changes: float64 (B, T), ||phi_t(h^_t) - h^_{t+1}||_2 in state space.
        norms: float64 (B, T), ||phi_t(h^_t)||_2.
    """

    readouts: np.ndarray
    jumps: np.ndarray
    changes: np.ndarray
    norms: np.ndarray


@torch.inference_mode()
def perturbed_orbits(model: Model, readout: Readout, inputs: torch.Tensor, step: Step, space: Space) -> PerturbedOrbits:
    """Run one batch, inputs (B, C, H, W), through perturbed blocks, and the true blocks on the perturbed states.

    Arguments:
        inputs: (B, C, H, W), preprocessed, float32 or of the network's own dtype.

    Raises:
        CellProblem: a perturbed readout is NaN or infinite (say, fp16 overflowed), naming the depth.
    """
    state = model.initial_state(inputs)
    readouts = [readout_values(model, readout, 0, state, space)]
    jumps, changes, norms = [], [], []
    for t in range(model.num_blocks):
        true = model.block(t, state)
        state = step(t, state, true)
        expected, found = state_vector(true).double(), state_vector(state).double()
        changes.append((expected - found).norm(dim=1).cpu().numpy())
        norms.append(expected.norm(dim=1).cpu().numpy())
        here = readout_values(model, readout, t + 1, state, space)
        there = here if state is true else readout_values(model, readout, t + 1, true, space)
        jumps.append(np.sqrt(np.square(there - here).sum(axis=1)))
        readouts.append(here)
    return PerturbedOrbits(
        np.stack(readouts, axis=1), np.stack(jumps, axis=1), np.stack(changes, axis=1), np.stack(norms, axis=1)
    )


def readout_values(model: Model, readout: Readout, t: int, state: State, space: Space) -> np.ndarray:
    """g_t of a state (B, ...) of a perturbed orbit, of the network's dtype -> float64 (B, K) in ``space``.

    Raises:
        CellProblem: a readout is NaN or infinite, naming the depth.
    """
    logits = kept_logits(model, readout.logits(t, state))
    if not np.isfinite(logits).all():
        raise CellProblem(
            f"model {model.name}: a perturbed orbit leaves the finite numbers at depth {t}; "
            "take a smaller perturbation (fp16 overflows above 65,504: try bf16)"
        )
    return to_space(logits, space)
