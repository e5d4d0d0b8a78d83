"""Convolutions of the revised ResNets on their small maps, beside torch's own: forward and backward, one thread.

    python benchmarks/small_maps.py

CPU milliseconds for a batch of 400 images, the best of ten runs, both taken in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from stabilitykit_resnets.convolutions import Conv1x1, Conv3x3
from torch import nn

CASES = [
    (Conv1x1, 256, 64, (4, 4)),
    (Conv1x1, 512, 128, (2, 4)),
    (Conv1x1, 1024, 256, (2, 2)),
    (Conv3x3, 256, 256, (2, 2)),
    (Conv1x1, 2048, 512, (1, 2)),
    (Conv1x1, 512, 2048, (1, 2)),
    (Conv3x3, 512, 512, (1, 2)),
]
BATCH, REPEATS = 400, 10


def milliseconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def main() -> None:
    torch.set_num_threads(1)
    print("| convolution | map | torch | ours | times faster |\n|---|---|---|---|---|")
    for kind, inputs, outputs, size in CASES:
        ours = kind(inputs, outputs, 1)
        theirs = nn.Conv2d(inputs, outputs, ours.kernel_size, padding=ours.padding, bias=False)
        theirs.weight = ours.weight
        x, gradient = (
            torch.randn(BATCH, channels, *size).contiguous(memory_format=torch.channels_last)
            for channels in (inputs, outputs)
        )
        x.requires_grad_()
        best = [
            min(milliseconds(lambda: layer(x).backward(gradient)) for _ in range(REPEATS))  # noqa: B023
            for layer in (theirs, ours)
        ]
        print(
            f"| {ours.kernel_size[0]}x{ours.kernel_size[0]}, {inputs} -> {outputs} | {size[0]} x {size[1]} | "
            f"{best[0]:.1f} | {best[1]:.1f} | {best[0] / best[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
