"""Translators of states: affine along the features, started at the identity (the tuned lens's A_t).

Inside X_t a translator is one standard layer. Into X_T, for networks whose classifier cannot read the other depths, the
grid is resized first: averaged over the cells of the last state's grid, or wholly where the last state is a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stabilitykit.base.errors import CellProblem


class Moved(nn.Module):
    """The axis ``old`` of one sample becomes its axis ``new``."""

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        self.old, self.new = old, new

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ...) of any dtype -> the same numbers, axes in another order."""
        return x.movedim(self.old + 1, self.new + 1)


def identity_translator(shape: Sequence[int], axis: int) -> nn.Module:
    """X_t -> X_t: states (B, *shape), float32, affine along ``axis`` (counted without the batch).

    Raises:
        CellProblem: states without an axis of features.
    """
    if not 0 <= axis < len(shape):
        raise CellProblem(f"a state of shape {tuple(shape)} has no axis {axis} to translate; use --readout probe")
    return _affine(shape[axis], shape[axis], axis, len(shape))


def jump_translator(shape: Sequence[int], axis: int, last: Sequence[int], last_axis: int) -> nn.Module:
    """X_t -> X_T: states (B, *shape), float32 -> (B, *last), resized and then affine from features to features.

    It starts with every feature of X_t in its own place in X_T, as far as there is one.

    Raises:
        CellProblem: grids that cannot be resized into one another.
    """
    grid, wanted = _grid(shape, axis), _grid(last, last_axis)
    if grid == wanted and axis == last_axis:
        return _affine(shape[axis], last[axis], axis, len(shape))
    if len(grid) > 2 or len(wanted) not in (0, len(grid)):
        raise CellProblem(f"no lens leads from states of shape {tuple(shape)} to {tuple(last)}; use --readout probe")
    layers: list[nn.Module] = [Moved(axis, 0)] if axis else []
    if grid != wanted:
        cells = wanted or (1,) * len(grid)
        layers.append(nn.AdaptiveAvgPool2d(cells) if len(grid) == 2 else nn.AdaptiveAvgPool1d(cells[0]))
    layers += [] if wanted else [nn.Flatten()]
    layers.append(_affine(shape[axis], last[last_axis], 0, len(last)))
    return nn.Sequential(*layers, *([Moved(0, last_axis)] if last_axis else []))


def _grid(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(side for number, side in enumerate(shape) if number != axis)


def _affine(given: int, wanted: int, axis: int, dimensions: int) -> nn.Module:
    """Affine along one of the axes of a sample, from ``given`` to ``wanted`` features; (partial) identity."""
    layer: nn.Conv1d | nn.Conv2d | nn.Linear
    if axis == dimensions - 1:
        layer = nn.Linear(given, wanted)
        nn.init.eye_(layer.weight)
    elif axis == 0 and dimensions <= 3:
        layer = nn.Conv2d(given, wanted, 1) if dimensions == 3 else nn.Conv1d(given, wanted, 1)
        nn.init.dirac_(layer.weight)
    else:
        return nn.Sequential(
            Moved(axis, dimensions - 1), _affine(given, wanted, dimensions - 1, dimensions), Moved(dimensions - 1, axis)
        )
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
