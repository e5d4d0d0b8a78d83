"""Space-to-depth between stages: a map cut into pieces that are stacked as channels, a permutation of coordinates."""

from __future__ import annotations

import torch
from torch import nn


class Patching(nn.Module):
    """(B, C, H, W) -> (B, rows * columns * C, H / rows, W / columns), an l2 isometry.

    Arguments:
        rows, columns: how many pieces along height and width.
        kind: ``tiles``: contiguous tiles (the paper); ``phases``: every rows-th, columns-th pixel (pixel-unshuffle).
    """

    def __init__(self, rows: int, columns: int, kind: str = "tiles") -> None:
        super().__init__()
        self.rows, self.columns, self.kind = rows, columns, kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        small, narrow = height // self.rows, width // self.columns
        if self.kind == "tiles":
            pieces = x.reshape(batch, channels, self.rows, small, self.columns, narrow).permute(0, 2, 4, 1, 3, 5)
        else:
            pieces = x.reshape(batch, channels, small, self.rows, narrow, self.columns).permute(0, 3, 5, 1, 2, 4)
        # Pieces in front, their channels behind: groups of a convolution are then whole pieces.
        return pieces.reshape(batch, self.rows * self.columns * channels, small, narrow)

    def extra_repr(self) -> str:
        return f"{self.rows} x {self.columns} {self.kind}"
