"""Networks whose public CIFAR-10 weights ``whole_audits.py`` audits: the same architecture under two sets of names.

``module:nets:resnet20`` and ``resnet32`` read ``cifar10_resnetN.th`` (parameter-free shortcuts), ``strided20`` reads
the pair ``cifar10_resnet20_standard.pth`` and ``_adversarial.pth`` (shortcuts of a strided convolution).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

WIDTHS = (16, 32, 64)


class Padded(nn.Module):
    """Two 3x3 convolutions; the shortcut takes every other pixel and fills new channels with zeros."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.new = after - before
        self.conv1 = nn.Conv2d(before, after, 3, 2 if self.new else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.new:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.new // 2, self.new // 2))
        return functional.relu(out + x)


class PaddedNet(nn.Module):
    """He et al. 2016, section 4.2, with n blocks a stage."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = _stages(Padded, n)
        self.linear = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Strided(nn.Module):
    """Two 3x3 convolutions; where the shape changes the shortcut is a strided 1x1 convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv_1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn_1 = nn.BatchNorm2d(after)
        self.conv_2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn_2 = nn.BatchNorm2d(after)
        self.downsample = (
            None
            if stride == 1
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn_2(self.conv_2(functional.relu(self.bn_1(self.conv_1(x)))))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class StridedNet(nn.Module):
    """The same with 3 blocks a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn_1 = nn.BatchNorm2d(16)
        self.stage_1, self.stage_2, self.stage_3 = _stages(Strided, 3)
        self.fc = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn_1(self.conv_1(x)))
        x = self.stage_3(self.stage_2(self.stage_1(x)))
        return self.fc(x.mean((2, 3)))


def _stages(block: type[nn.Module], n: int) -> list[nn.Sequential]:
    before, stages = WIDTHS[0], []
    for width in WIDTHS:
        stages.append(nn.Sequential(*(block(before if turn == 0 else width, width) for turn in range(n))))
        before = width
    return stages


def resnet20() -> nn.Module:
    return PaddedNet(3)


def resnet32() -> nn.Module:
    return PaddedNet(5)


def strided20() -> nn.Module:
    return StridedNet()
