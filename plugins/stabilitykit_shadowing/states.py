"""Pseudo-orbits through states that are no image's: blocks in low precision, or a kick after every block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stabilitykit.dynamics.lowprecision import LowPrecision
from stabilitykit.dynamics.perturbed import PerturbedOrbits, perturbed_orbits
from stabilitykit.dynamics.readout import state_vector
from stabilitykit.evaluation.context import Context
from stabilitykit_shadowing.orbits import PseudoOrbits

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State


class PrecisionFamily:
    """h^_{t+1} = phi^_t(h^_t) with the blocks in bf16, fp16 or int8: the pseudo-orbit that users really meet."""

    def __init__(self, context: Context, format: str) -> None:
        self.context = context
        self.blocks = LowPrecision(context.model, format)
        self.name = f"blocks in {format}"

    def run(self, rows: np.ndarray, inputs: torch.Tensor) -> PerturbedOrbits:
        """The orbits that start at the images ``rows`` (B,), ``inputs`` (B, C, H, W) of one batch."""
        with self.context.running():
            return perturbed_orbits(
                self.context.model,
                self.context.readout,
                inputs,
                lambda t, state, true: self.blocks.block(t, state),
                self.context.space,
            )


class NoiseFamily:
    """h^_{t+1} = phi_t(h^_t) + kick, a Gaussian direction of length ``scale`` ||phi_t(h^_t)||_2.

    The kicks of an image depend on the seed and its dataset index alone, not on the batch it is in.
    """

    def __init__(self, context: Context, scale: float) -> None:
        self.context = context
        self.scale = scale
        self.name = f"relative noise {scale:g}"

    def run(self, rows: np.ndarray, inputs: torch.Tensor) -> PerturbedOrbits:
        """The orbits that start at the images ``rows`` (B,), ``inputs`` (B, C, H, W) of one batch."""
        generators = [
            np.random.Generator(np.random.Philox(key=[self.context.seed % 2**64, int(index)]))
            for index in self.context.indices[rows]
        ]

        def step(t: int, state: State, true: State) -> State:
            points = state_vector(true)
            size = points.shape[1]
            draw = np.stack([generator.standard_normal(size, dtype=np.float32) for generator in generators])
            direction = torch.from_numpy(draw).to(points)
            length = points.norm(dim=1, keepdim=True) / direction.norm(dim=1, keepdim=True)
            return _like(points + self.scale * length * direction, true)

        with self.context.running():
            return perturbed_orbits(self.context.model, self.context.readout, inputs, step, self.context.space)


def _like(points: torch.Tensor, state: Any) -> Any:
    """Points (B, n) in the form of ``state``: the inverse of state_vector."""
    if isinstance(state, tuple):
        sizes = [part[0].numel() for part in state]
        return tuple(piece.reshape(part.shape) for piece, part in zip(points.split(sizes, dim=1), state, strict=True))
    return points.reshape(state.shape)


def state_orbits(family: PrecisionFamily | NoiseFamily, rows: np.ndarray | None = None) -> PseudoOrbits:
    """The family's orbits from the images ``rows`` (default: all), each run in its batch of the extraction."""
    context = family.context
    wanted = np.arange(len(context.indices)) if rows is None else np.asarray(rows, dtype=np.int64)
    readouts: np.ndarray | None = None
    jumps = np.empty((len(wanted), context.model.num_blocks))
    numbers = np.unique(wanted // context.batch_size)
    for part, inputs in context.progress(_whole_batches(context, numbers), f"shadowing: {family.name}", len(numbers)):
        orbits = family.run(part, inputs)
        if readouts is None:
            dtype = np.float64 if rows is not None else context.trajectory.values.dtype
            readouts = np.empty((len(wanted), *orbits.readouts.shape[1:]), dtype=dtype)
        places = np.flatnonzero((wanted >= part[0]) & (wanted <= part[-1]))
        readouts[places] = orbits.readouts[wanted[places] - part[0]]
        jumps[places] = orbits.jumps[wanted[places] - part[0]]
    assert readouts is not None
    return PseudoOrbits(wanted, jumps, readouts=readouts)


def _whole_batches(context: Context, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    if len(numbers) * context.batch_size >= len(context.indices):
        yield from context.batches()
        return
    for number in numbers:
        first = int(number) * context.batch_size
        yield from context.batches(np.arange(first, min(first + context.batch_size, len(context.indices))))
