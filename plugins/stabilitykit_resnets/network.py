"""The revised ResNets: every residual block maps R^n to R^n (paper section 3, Figure 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from stabilitykit_resnets.convolutions import Conv1x1, Conv3x3
from stabilitykit_resnets.patching import Grid, patch, patch_all, unpatch_all

# Tiles (rows, columns) cut on entering stages 1..4, and the groups of the grouped blocks of each stage.
GRIDS: tuple[Grid, ...] = ((2, 2), (2, 1), (1, 2), (2, 1))
GROUPS = (4, 8, 16, 32)
STEM_SIZE = 8
IMAGE_CHANNELS, IMAGE_SIZE = 3, 32


class Bottleneck(nn.Module):
    """x + f(x), f = 1x1, 3x3, 1x1 convolutions (C -> C/4 -> C/4 -> C) with BatchNorm; ReLU after the sum.

    Arguments:
        channels: C of the (B, C, H, W) map, in and out.
        groups: of all three convolutions.
        final_relu: False leaves out the ReLU after the addition: phi(x) = x + f(x) exactly.
    """

    def __init__(self, channels: int, groups: int, final_relu: bool) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = Conv1x1(channels, inner, groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = Conv3x3(inner, inner, groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = Conv1x1(inner, channels, groups)
        self.bn3 = nn.BatchNorm2d(channels)
        self.final_relu = final_relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = x + self.bn3(self.conv3(out))
        return F.relu(out) if self.final_relu else out


class ConvStem(nn.Module):
    """Images (B, 3, 32, 32) -> (B, width, 8, 8): 7x7 stride 2, BatchNorm, ReLU, 3x3 max-pool stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(IMAGE_CHANNELS, width, 7, stride=2, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.relu(self.bn(self.conv(images))), 3, stride=2, padding=1)


class PatchStem(nn.Module):
    """Images (B, 3, 32, 32) -> (B, width, 8, 8) without parameters: 4x4 tiles as 48 channels, the rest zeros.

    An isometric embedding of the 3,072 pixels: h_0 is the image itself.
    """

    grid: Grid = (IMAGE_SIZE // STEM_SIZE, IMAGE_SIZE // STEM_SIZE)
    channels = IMAGE_CHANNELS * grid[0] * grid[1]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.padding = width - self.channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.pad(patch(images, self.grid), (0, 0, 0, 0, 0, self.padding))


class RevisedResNet(nn.Module):
    """Stem, blocks of four stages, one fully connected layer; no downsampling, no pooling at the end.

    A state is kept in the coordinate order of the stem, (B, width, 8, 8): 64 * width numbers at every depth.
    Block t patches it to the map of its stage and puts the result back, both permutations, so ``head`` sees
    every state in the same order.

    Arguments:
        depths: blocks of the four stages.
        width: channels of the stem (64 in the paper), a multiple of 4.
        stem: ``"conv"`` or ``"patch"``.
        grouping: ``"first"`` (only the first block of a stage is grouped) or ``"all"``.
        final_relu: False for the pure x + f(x).
        num_classes: K.
        block: makes a block of (channels, groups); default the paper's bottleneck.
    """

    def __init__(
        self,
        depths: Sequence[int],
        *,
        width: int = 64,
        stem: str = "conv",
        grouping: str = "first",
        final_relu: bool = True,
        num_classes: int = 10,
        block: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        made = block or partial(Bottleneck, final_relu=final_relu)
        self.width, self.final_relu, self.num_classes = width, final_relu, num_classes
        self.stem = ConvStem(width) if stem == "conv" else PatchStem(width)
        self.blocks = nn.ModuleList()
        self.grids: list[tuple[Grid, ...]] = []
        channels = width
        for stage, (depth, grid, groups) in enumerate(zip(depths, GRIDS, GROUPS)):
            channels *= grid[0] * grid[1]
            for number in range(depth):
                grouped = groups if number == 0 or grouping == "all" else 1
                self.blocks.append(made(channels, grouped))
                self.grids.append(GRIDS[: stage + 1])
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * STEM_SIZE**2, num_classes))

    def initial_state(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 32, 32) -> h_0 (B, width, 8, 8)."""
        return self.stem(_laid_out(images))

    def block(self, t: int, state: torch.Tensor) -> torch.Tensor:
        """phi_t: (B, width, 8, 8) -> (B, width, 8, 8)."""
        return unpatch_all(self.blocks[t](_laid_out(patch_all(state, self.grids[t]))), self.grids[t])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 32, 32) -> logits (B, K). Equal, bit for bit, to chaining :meth:`block`.

        Inside a stage the map stays patched: putting it back and patching it again would only copy it.
        """
        x, cut = self.initial_state(images), 0
        for module, grids in zip(self.blocks, self.grids):
            x = patch_all(x, grids[cut:])
            x, cut = module(_laid_out(x)), len(grids)
        return self.head(unpatch_all(x, GRIDS[:cut]))


def _laid_out(x: torch.Tensor) -> torch.Tensor:
    # One memory format wherever convolutions start: the choice of kernel, and so the last bits, depend on it.
    return x.contiguous(memory_format=torch.channels_last)
