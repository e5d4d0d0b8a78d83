"""Layer-wise Lipschitz bounds of convolutional tails: value, slope realised, processor seconds, peak memory.

    OMP_NUM_THREADS=1 python benchmarks/lipschitz_tails.py benchmarks/results/lipschitz_tails.md

Every tail is measured in a process of its own. Weights are random by seed 0 (torch's own initialisation): the table is
about cost and about which tails are bounded at all, not about trained networks. Peak memory is what the process holds
above what it held with the tail built and nothing bounded.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

TAILS = ("lenet", "lenet-max", "conv-32", "revised-block", "resnet18-block", "resnet18-stage")


def build(name: str) -> tuple[Any, tuple[int, ...]]:
    """(module, shape of one input) of a tail."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if name in ("lenet", "lenet-max"):
        pool = nn.MaxPool2d if name == "lenet-max" else nn.AvgPool2d
        layers = [
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            pool(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            pool(2),
            nn.Flatten(),
        ]
        layers += [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
        return nn.Sequential(*layers), (1, 28, 28)
    if name == "conv-32":
        layers = [nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        layers += [nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(64 * 64, 100), nn.ReLU(), nn.Linear(100, 10)), (3, 32, 32)
    if name.startswith("resnet18"):
        import timm

        net = timm.create_model("resnet18", pretrained=False)
        if name == "resnet18-block":
            return nn.Sequential(net.layer4[1], net.global_pool, net.fc), (512, 7, 7)
        return nn.Sequential(net.layer4, net.global_pool, net.fc), (256, 14, 14)
    from stabilitykit_resnets.model import resnet18 as revised

    whole = revised(depths=(2, 2, 2, 2))

    class Tail(nn.Module):
        """The last block of the revised ResNet-18 and its readout."""

        def __init__(self) -> None:
            super().__init__()
            self.whole = whole.module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.whole.head(self.whole.block(whole.num_blocks - 1, x))

    return Tail(), tuple(whole.state_shape)


def measure(name: str, send: Any) -> None:
    """One tail in this process."""
    import torch

    torch.set_num_threads(1)
    from stabilitykit_lipschitz import lipschitz

    model, shape = build(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    found = lipschitz(model, method="layerwise", input_shape=shape)
    seconds = time.process_time() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    send.send((found.upper, found.lower, seconds, peak, "x".join(map(str, shape))))


def main(target: Path, names: tuple[str, ...]) -> None:
    lines = [
        "# Layer-wise Lipschitz bounds of convolutional tails",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/lipschitz_tails.py`; random weights (seed 0), l2 to l2, all inputs.",
        "",
        "| tail | input | certified upper | slope realised | CPU s | peak MiB above the model |",
        "|---|---|---|---|---|---|",
    ]
    context = multiprocessing.get_context("spawn")
    for name in names:
        receive, send = context.Pipe(False)
        process = context.Process(target=measure, args=(name, send))
        process.start()
        send.close()
        try:
            upper, lower, seconds, peak, shape = receive.recv()
            lines.append(f"| {name} | {shape} | {upper:.6g} | {lower:.6g} | {seconds:.1f} | {peak:.0f} |")
        except EOFError:
            lines.append(f"| {name} | | not measured | | | |")
        process.join()
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(lines[-1], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or TAILS)
