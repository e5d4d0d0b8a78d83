"""Audit a network that nobody here trained: a public CIFAR-10 ResNet-20, with its own definition of the architecture.

Run: python examples/outside_checkpoint.py CHECKPOINT TEST.npz [folder]

CHECKPOINT is cifar10_resnet20.th of the public collection of CIFAR-10 ResNets (a pickle, read with weights_only;
its keys begin with ``module.``), TEST.npz holds the 10,000 test images as X (uint8) and y. The published accuracy is
91.73 %. Two runs of equal dimension: every stage after its first block; the last one is read by pooling and one
linear layer. The same on the command line, from this folder:

    stabilitykit audit module:outside_checkpoint:build --input 3x32x32 --normalise imagenet \\
        --checkpoint CHECKPOINT -d npz:TEST.npz
"""

import sys

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions; the shortcut has no parameters: every other pixel, new channels are zero."""

    def __init__(self, inside: int, channels: int) -> None:
        super().__init__()
        stride = 1 if inside == channels else 2
        self.grows = inside != channels
        self.conv1 = nn.Conv2d(inside, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.grows:
            half = (out.shape[1] - x.shape[1]) // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        out += x
        return functional.relu(out)


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, with n = 3."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.avg_pool2d(x, x.shape[3])
        return self.linear(x.view(x.shape[0], -1))


def build() -> ResNet20:
    """What ``module:outside_checkpoint:build`` names."""
    return ResNet20()


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    import stabilitykit
    from stabilitykit.plugins.registry import Registry

    checkpoint, images, *folder = sys.argv[1:]
    model = {
        "name": "module",
        "options": {
            "builder": f"{__name__}:build",
            "checkpoint": checkpoint,
            "run": "layer3",
            "input": "3x32x32",
            "normalise": "imagenet",
        },
    }
    everything = [component.name for component in Registry.load().components("property")]
    run = stabilitykit.evaluate(model, f"npz:{images}", everything, output=folder[0] if folder else None)
    certificate = run.info["pairs"][0]["certificate"]
    print(
        f"blocks and tail equal the network bit for bit: {certificate['bit_exact']}; "
        f"vacuous checks: {certificate['vacuous'] or 'none'}"
    )
    for cell in run.cells:
        if cell.result is None:
            print(f"{cell.property}: failed: {cell.error['message']}")
            continue
        for m in cell.result.measurements:
            value = "undefined" if m.value is None else f"{m.value:.6g}"
            print(f"{cell.property:14} {m.name:44} {value:>12}  ({m.kind}, N = {m.n})")
    sys.exit(run.exit_code)


if __name__ == "__main__":
    main()
