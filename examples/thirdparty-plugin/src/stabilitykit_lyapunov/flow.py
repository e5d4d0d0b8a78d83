"""A model's blocks as maps R^n -> R^n on flat vectors, whatever shape (or tuple of shapes) its states have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from stabilitykit import Model

Map = Callable[[torch.Tensor], torch.Tensor]
Shapes = tuple[tuple[int, ...], ...]


class Flow:
    """Trajectories of a batch of images, and the maps between depths.

    Attributes:
        points: states h_0..h_T of the batch, each (B, n).
    """

    def __init__(self, model: Model, inputs: torch.Tensor) -> None:
        """``inputs``: preprocessed (B, C, H, W), in the dtype of the model."""
        self.model = model
        self._shapes: list[Shapes] = []
        self.points: list[torch.Tensor] = []
        with torch.no_grad():
            state = model.initial_state(inputs)
            self._record(state)
            for t in range(model.num_blocks):
                state = model.block(t, state)
                self._record(state)

    def between(self, start: int, stop: int) -> Map:
        """The map h_start -> h_stop, (B, n) -> (B, n) for any batch size B."""

        def apply(vectors: torch.Tensor) -> torch.Tensor:
            state = unflatten(vectors, self._shapes[start])
            for t in range(start, stop):
                state = self.model.block(t, state)
            return flatten(state)

        return apply

    def _record(self, state: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        self._shapes.append(tuple(tuple(part.shape[1:]) for part in parts))
        self.points.append(flatten(state))


def flatten(state: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """A state, a tensor (B, ...) or a tuple of them, as one vector per image: (B, n)."""
    parts = state if isinstance(state, tuple) else (state,)
    return torch.cat([part.reshape(part.shape[0], -1) for part in parts], dim=1)


def unflatten(vectors: torch.Tensor, shapes: Shapes) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Inverse of :func:`flatten` for states whose parts have these shapes; one shape gives a plain tensor."""
    sizes = [int(torch.Size(shape).numel()) for shape in shapes]
    parts = vectors.split(sizes, dim=1)
    states = tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))
    return states[0] if len(states) == 1 else states
