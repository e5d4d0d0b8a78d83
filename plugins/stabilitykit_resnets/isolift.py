"""IsoLift: residual networks whose states are joined by isometries, from the image itself to the last block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from stabilitykit import UsageProblem
from stabilitykit_resnets.convolutions import Conv1x1, Conv3x3
from stabilitykit_resnets.model import RevisedResNetModel, finished
from stabilitykit_resnets.network import STEM_SIZE, PatchStem, RevisedResNet
from stabilitykit_resnets.spectral import AtMostOne, Bias

DEPTHS = {16: (3, 4, 6, 3), 33: (3, 4, 23, 3)}
# Channels inside a block as a share of those of its state.
SHARES = {"residual": 4, "wide": 2, "grouped": 2}
USUAL = {"depth": 16, "variant": "residual", "width": 64, "groups": 32, "spectral": 0.0, "num_classes": 10}


class LiftBlock(nn.Module):
    """x + f(x), nothing after the sum; f = 1x1, 3x3, 1x1 convolutions with ReLU between them.

    Arguments:
        channels: C of the (B, C, H, W) map, in and out.
        inner: channels inside.
        groups: of the 3x3 convolution.
        spectral: 0: BatchNorm after every convolution, no constraint. c > 0: Lip(f) <= c by construction, with biases
            in place of BatchNorm; below 1 the block is invertible and changes distances by factors in [1 - c, 1 + c].
    """

    def __init__(self, channels: int, inner: int, groups: int, spectral: float) -> None:
        super().__init__()
        # Beside the weights, so that fingerprint and checkpoint tell it.
        self.register_buffer("bound", torch.tensor(spectral) if spectral else None)
        self.conv1, self.conv2 = Conv1x1(channels, inner, 1), Conv3x3(inner, inner, groups)
        self.conv3 = Conv1x1(inner, channels, 1)
        norm = Bias if spectral else nn.BatchNorm2d
        self.norm1, self.norm2, self.norm3 = norm(inner), norm(inner), norm(channels)
        if spectral:
            for convolution in (self.conv1, self.conv2, self.conv3):
                parametrize.register_parametrization(convolution, "weight", AtMostOne(convolution.groups))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with parametrize.cached():
            out = F.relu(self.norm1(self.conv1(x)))
            out = F.relu(self.norm2(self.conv2(out)))
            out = self.norm3(self.conv3(out))
        return x + (out if self.bound is None else self.bound * out)


def isolift(
    *,
    depth: int = 16,
    variant: str = "residual",
    width: int = 64,
    groups: int = 32,
    spectral: float = 0.0,
    num_classes: int = 10,
    checkpoint: str | None = None,
    allow_unused: str | None = None,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    init: str = "torch",
    seed: int = 0,
) -> RevisedResNetModel:
    """A network of ``depth`` blocks whose states all have 64 * width numbers: h_0 is the image, padded with zeros.

    Images are cut into tiles that stand as channels, channels of zeros added, and from stage to stage maps are cut
    further: permutations of coordinates and an orthonormal embedding, so nothing between two blocks changes a distance.

    Arguments:
        depth: T, 16 (3-4-6-3 blocks a stage) or 33 (3-4-23-3).
        variant: ``"residual"`` (a quarter of the channels inside a block), ``"wide"`` (half), ``"grouped"`` (half, with
            group convolutions).
        groups: of the 3x3 convolutions, with ``variant="grouped"``.
        spectral: bound of Lip(f) of every block x + f(x); 0: none.

    Raises:
        UsageProblem: options that fit no network; a checkpoint of another architecture.
        DataProblem: an unreadable checkpoint, or NaN or infinite weights.
    """
    if width < PatchStem.channels:
        raise UsageProblem(
            f"isolift: h_0 keeps all {PatchStem.channels} x {STEM_SIZE} x {STEM_SIZE} pixel values, so width is "
            f"at least {PatchStem.channels}; got {width}"
        )
    used = groups if variant == "grouped" else 1
    inner = 4 * width // SHARES[variant]  # of the first stage; the later ones have multiples of it
    if width % 2 or inner % used:
        raise UsageProblem(
            f"isolift: the {inner} channels inside the first blocks do not split into {used} groups; give a width "
            f"that is even, and groups that divide {'half' if SHARES[variant] == 2 else 'a quarter'} of 4 * width"
        )
    options: dict[str, Any] = {
        "depth": depth,
        "variant": variant,
        "width": width,
        "groups": groups,
        "spectral": spectral,
        "num_classes": num_classes,
    }

    def block(channels: int, _: int) -> LiftBlock:
        return LiftBlock(channels, channels // SHARES[variant], used, spectral)

    return finished(
        "isolift",
        options,
        lambda: RevisedResNet(
            DEPTHS[depth], width=width, stem="patch", final_relu=False, num_classes=num_classes, block=block
        ),
        USUAL,
        checkpoint=checkpoint,
        allow_unused=allow_unused,
        weights=weights,
        mean=mean,
        std=std,
        init=init,
        seed=seed,
    )
