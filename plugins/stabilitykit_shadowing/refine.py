"""Refined tracers: from the best image's h_0, descend on the input state until its true orbit follows more closely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stabilitykit import CellProblem
from stabilitykit.dynamics.model import Model, state_of, state_parts
from stabilitykit.dynamics.readout import Readout, kept_logits, state_vector
from stabilitykit.dynamics.space import Space, to_space, to_space_torch
from stabilitykit.evaluation.context import Context

# The maximum over depths is smoothed to this p-norm for its gradient; eps itself is always the true maximum.
_POWER = 8.0


@dataclass(frozen=True)
class Refined:
    """Outcome for B pseudo-orbits.

    Attributes:
        eps: float64 (B,), tracing error; at most the one given.
        moved: float64 (B,), ||h_0 - h_0 of the data tracer||_2 / ||h_0||_2; 0 where nothing better was found.
        distances: float64 (B, T+1), distance at every depth; NaN rows where nothing better was found.
    """

    eps: np.ndarray
    moved: np.ndarray
    distances: np.ndarray


def refine(context: Context, tracer: np.ndarray, eps: np.ndarray, targets: np.ndarray, steps: int) -> Refined:
    """Refine the tracers of B pseudo-orbits, in batches.

    Arguments:
        tracer: int64 (B,), rows of the data tracers to start from. eps: float64 (B,), what they attain.
        targets: float64 (B, T+1, K), readouts of the pseudo-orbits.
        steps: gradient steps.
    """
    found = Refined(eps.copy(), np.zeros(len(eps)), np.full(targets.shape[:2], np.nan))
    first = 0
    batches = context.batches(tracer)
    for part, inputs in context.progress(batches, "shadowing: refined tracers", -(-len(eps) // context.batch_size)):
        rows = slice(first, first + len(part))
        with context.running():
            one = refine_batch(context.model, context.readout, context.space, inputs, targets[rows], eps[rows], steps)
        found.eps[rows], found.moved[rows], found.distances[rows] = one.eps, one.moved, one.distances
        first += len(part)
    return found


def refine_batch(
    model: Model, readout: Readout, space: Space, inputs: torch.Tensor, targets: np.ndarray, eps: np.ndarray, steps: int
) -> Refined:
    """One batch, inputs (B, C, H, W) of the data tracers. A step is kept only where it lowers that orbit's eps.

    Every eps is measured in inference mode, in float64 from the logits, exactly as trajectories are.
    """
    with torch.no_grad():
        start = list(state_parts(model.initial_state(inputs)))
        best = [part.clone() for part in start]
    aim = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.float64)).to(inputs.device)
    lowest = eps.astype(np.float64).copy()
    distances = np.full(targets.shape[:2], np.nan)
    # Polyak's step eps / |gradient|, scaled per orbit: longer after success, shorter after failure.
    factor = np.full(len(eps), 0.5)
    for _ in range(steps):
        directions, slope = _gradient(model, readout, space, best, aim)
        usable = np.isfinite(slope) & (slope > 0)
        length = np.where(usable, factor * lowest / np.where(usable, slope, 1.0) ** 2, 0.0)
        scale = torch.from_numpy(length).to(inputs.device)
        trial = [
            part - (_wide(scale, part) * d.double()).to(part.dtype) for part, d in zip(best, directions, strict=True)
        ]
        apart = _distances(model, readout, space, trial, targets)
        reached = apart.max(axis=1)
        better = usable & (reached < lowest)
        lowest[better], distances[better] = reached[better], apart[better]
        mask = torch.from_numpy(better).to(inputs.device)
        best = [torch.where(_wide(mask, old), new, old) for old, new in zip(best, trial, strict=True)]
        factor = np.where(better, np.minimum(factor * 1.5, 4.0), factor * 0.4)
        if not usable.any():
            break
    with torch.no_grad():
        origin = state_vector(tuple(start)).double()
        gone = (state_vector(tuple(best)).double() - origin).norm(dim=1) / origin.norm(dim=1).clamp_min(1e-300)
    return Refined(lowest, gone.cpu().numpy(), distances)


def _gradient(
    model: Model, readout: Readout, space: Space, point: list[torch.Tensor], aim: torch.Tensor
) -> tuple[list[torch.Tensor], np.ndarray]:
    """Gradient, by part, of the smoothed tracing error of every orbit, and its norm (B,)."""
    with torch.enable_grad():
        leaves = [part.detach().clone().requires_grad_(part.is_floating_point()) for part in point]
        state = state_of(leaves)
        apart = [_apart(readout.logits(0, state), aim[:, 0], space)]
        for t in range(model.num_blocks):
            state = model.block(t, state)
            apart.append(_apart(readout.logits(t + 1, state), aim[:, t + 1], space))
        stacked = torch.stack(apart, dim=1)
        largest = stacked.detach().amax(dim=1, keepdim=True).clamp_min(1e-150)
        smooth = largest[:, 0] * (stacked / largest).pow(_POWER).sum(dim=1).pow(1 / _POWER)
        if not smooth.requires_grad:
            raise CellProblem(f"model {model.name} lets no gradient through its blocks; use tracers=data")
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        grads = iter(torch.autograd.grad(smooth.sum(), wanted, allow_unused=True))
    full = []
    for leaf in leaves:
        grad = next(grads) if leaf.requires_grad else None
        full.append(torch.zeros_like(leaf) if grad is None else grad.detach())
    return full, state_vector(tuple(full)).double().norm(dim=1).cpu().numpy()


def _apart(logits: torch.Tensor, aim: torch.Tensor, space: Space) -> torch.Tensor:
    # The tiny summand keeps the root's gradient finite where the orbits meet exactly.
    return ((to_space_torch(logits, space) - aim).square().sum(dim=1) + 1e-60).sqrt()


@torch.inference_mode()
def _distances(
    model: Model, readout: Readout, space: Space, point: list[torch.Tensor], targets: np.ndarray
) -> np.ndarray:
    """Distance at every depth between the true orbits from ``point`` and the targets -> float64 (B, T+1)."""
    state = state_of(point)
    apart = np.empty(targets.shape[:2])
    for t in range(targets.shape[1]):
        if t:
            state = model.block(t - 1, state)
        values = to_space(kept_logits(model, readout.logits(t, state)), space)
        apart[:, t] = np.sqrt(np.square(values - targets[:, t]).sum(axis=1))
    return np.where(np.isfinite(apart), apart, np.inf)


def _wide(per_orbit: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    return per_orbit.reshape(-1, *[1] * (part.ndim - 1))
