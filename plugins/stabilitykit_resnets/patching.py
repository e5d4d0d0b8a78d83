"""Patching: cut a map into contiguous tiles and stack the tiles as channels (paper section 3, Figure 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Grid = tuple[int, int]


def patch(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """(B, C, H, W) -> (B, R*S*C, H/R, W/S): the R x S contiguous tiles become the outer channel index.

    A permutation of the coordinates, so an l2 isometry. A group convolution with R*S groups then treats each
    tile by itself, which is what the paper's grouped blocks do.
    """
    (rows, columns), (batch, channels, height, width) = grid, x.shape
    tiles = x.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, height // rows, width // columns)


def unpatch(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The inverse of :func:`patch`: (B, R*S*C, h, w) -> (B, C, R*h, S*w)."""
    (rows, columns), (batch, channels, height, width) = grid, x.shape
    tiles = x.reshape(batch, rows, columns, channels // (rows * columns), height, width)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, rows * height, columns * width)


def patch_all(x: torch.Tensor, grids: Sequence[Grid]) -> torch.Tensor:
    """``patch`` with each of ``grids`` in turn: a map of the stem -> the map of a later stage."""
    for grid in grids:
        x = patch(x, grid)
    return x


def unpatch_all(x: torch.Tensor, grids: Sequence[Grid]) -> torch.Tensor:
    """The inverse of :func:`patch_all`: a map of a later stage -> the coordinate order of the stem."""
    for grid in reversed(grids):
        x = unpatch(x, grid)
    return x
