"""Convolutions of the revised ResNets, fast on their tiny maps.

Stages 3 and 4 convolve maps of 2 x 2 and 1 x 2 pixels. General convolution kernels spend most of their time there on
layout and padding; the same sums as one matrix product take a fifth of it (``benchmarks/small_maps.py``).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

REACH = 2
"""On maps of at most 2 x 2 pixels a 3x3 kernel with padding 1 joins every pixel to every other."""


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution without bias; ungrouped, it is one matrix product over all pixels of all images.

    Arguments:
        inputs, outputs: channels of the (B, C, H, W) maps.
        groups: as in ``nn.Conv2d``.
    """

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(inputs, outputs, 1, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.groups > 1:
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0]).permute(0, 3, 1, 2)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1, without bias; ungrouped on the smallest maps it is one dense linear map.

    There the padding meets most of the kernel: between pixels p and q only the entry of offset q - p is ever used.
    Arguments as of :class:`Conv1x1`.
    """

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = x.shape
        if self.groups > 1 or max(height, width) > REACH:
            if height == 1:  # the upper and lower kernel rows only ever meet the padding
                return F.conv2d(x, self.weight[:, :, 1:2], padding=(0, 1), groups=self.groups)
            return super().forward(x)
        flat = x.permute(0, 2, 3, 1).reshape(batch, -1)
        result = F.linear(flat, self._dense(height, width))
        return result.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def _dense(self, height: int, width: int) -> torch.Tensor:
        """(H*W*outputs, H*W*inputs): pixels in row order, the channels of a pixel side by side."""
        pixels = [(row, column) for row in range(height) for column in range(width)]
        offsets = [(q[0] - p[0] + 1) * 3 + q[1] - p[1] + 1 for p in pixels for q in pixels]
        taken = self.weight.flatten(2)[:, :, offsets].view(self.out_channels, self.in_channels, len(pixels), -1)
        return taken.permute(2, 0, 3, 1).reshape(len(pixels) * self.out_channels, -1)
