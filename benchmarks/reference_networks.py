"""Definitions of the public CIFAR-10 networks that benchmarks/reference.py measures, and what each row is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Zeros(nn.Module):
    """Shortcut without parameters: every other pixel, new channels are zero."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.half = added // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """States (B, C, H, W) -> (B, C + added, H/2, W/2)."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.half, self.half))


class Block(nn.Module):
    """Two 3x3 convolutions. Attribute names are those of the checkpoints: ``conv1`` or ``conv_1``."""

    def __init__(self, inside: int, channels: int, join: str, projection: bool) -> None:
        super().__init__()
        stride = 1 if inside == channels else 2
        for number, (entering, step) in enumerate(((inside, stride), (channels, 1)), 1):
            setattr(self, f"conv{join}{number}", nn.Conv2d(entering, channels, 3, step, 1, bias=False))
            setattr(self, f"bn{join}{number}", nn.BatchNorm2d(channels))
        self.join = join
        self.downsample: nn.Module = nn.Identity()
        if inside != channels:
            convolution = nn.Conv2d(inside, channels, 1, stride, bias=False)
            made = nn.Sequential(convolution, nn.BatchNorm2d(channels)) if projection else Zeros(channels - inside)
            self.downsample = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """States (B, C, H, W), float32, to the next."""
        out = x
        for number in (1, 2):
            out = getattr(self, f"bn{self.join}{number}")(getattr(self, f"conv{self.join}{number}")(out))
            out = functional.relu(out) if number == 1 else out
        return functional.relu(out + self.downsample(x))


class ResNet(nn.Module):
    """He et al. 2016, section 4.2, with 3 or 5 blocks a stage.

    Arguments:
        blocks: a stage. join, stages, head: how the checkpoint names things. projection: downsample by convolutions.
    """

    def __init__(self, blocks: int, join: str, stages: str, head: str, projection: bool) -> None:
        super().__init__()
        self.join, self.stages, self.head = join, stages, head
        setattr(self, f"conv{join}1", nn.Conv2d(3, 16, 3, 1, 1, bias=False))
        setattr(self, f"bn{join}1", nn.BatchNorm2d(16))
        inside = 16
        for number, channels in enumerate((16, 32, 64), 1):
            members = [Block(inside if b == 0 else channels, channels, join, projection) for b in range(blocks)]
            setattr(self, f"{stages}{number}", nn.Sequential(*members))
            inside = channels
        setattr(self, head, nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, 32, 32), normalised -> logits (B, 10)."""
        x = functional.relu(getattr(self, f"bn{self.join}1")(getattr(self, f"conv{self.join}1")(x)))
        for number in (1, 2, 3):
            x = getattr(self, f"{self.stages}{number}")(x)
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


def resnet20() -> ResNet:
    """Of cifar10_resnet20.th."""
    return ResNet(3, "", "layer", "linear", False)


def resnet32() -> ResNet:
    """Of cifar10_resnet32.th."""
    return ResNet(5, "", "layer", "linear", False)


def resnet20_projected() -> ResNet:
    """Of cifar10_resnet20_standard.pth and cifar10_resnet20_adversarial.pth."""
    return ResNet(3, "_", "stage_", "fc", True)


@dataclass(frozen=True)
class Network:
    """A row group of the table.

    Attributes:
        name: in the table. about: one phrase on what it is.
        model: spec for ``stabilitykit.evaluate``. data: which images, ``"digits"``, ``"cifar10"`` or ``"mnist"``.
        sizes: numbers of images; 0 for all.
        checkpoint: file name in the folder of checkpoints, or a path given on the command line (``"mnist"``).
    """

    name: str
    about: str
    model: str | Mapping[str, Any]
    data: str
    sizes: tuple[int, ...]
    checkpoint: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def _public(builder: str) -> dict[str, Any]:
    options = {"builder": f"reference_networks:{builder}", "input": "3x32x32", "normalise": "imagenet", "run": "whole"}
    return {"name": "module", "options": options}


SIZES = (1_000, 10_000)
NETWORKS = (
    Network("resnet18-digits", "revised ResNet-18 of width 8, embedded", "resnet18-digits", "digits", (0,)),
    Network("resnet18 untrained", "revised ResNet-18 of width 8, random weights", "resnet18:width=8", "digits", (0,)),
    Network("resnet18 MNIST", "revised ResNet-18, 2 epochs", "resnet18", "mnist", SIZES, "mnist"),
    Network("ResNet-20", "public, whole network", _public("resnet20"), "cifar10", SIZES, "cifar10_resnet20.th"),
    Network("ResNet-32", "public, whole network", _public("resnet32"), "cifar10", SIZES, "cifar10_resnet32.th"),
    Network(
        "ResNet-20 standard",
        "public, whole network",
        _public("resnet20_projected"),
        "cifar10",
        SIZES,
        "cifar10_resnet20_standard.pth",
    ),
    Network(
        "ResNet-20 adversarial",
        "the same trained against PGD, 8/255",
        _public("resnet20_projected"),
        "cifar10",
        SIZES,
        "cifar10_resnet20_adversarial.pth",
    ),
)
