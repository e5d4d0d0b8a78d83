"""How fast trajectories are extracted, and what the faster ways do to the readouts.

    python benchmarks/extraction.py [--models NAME ...] [--batch 16] [--repeats 3]

Untrained timm networks and the embedded revised ResNet on random images of their own size; all ways and the plain
forward pass in turn in one process, wall seconds, the best of the repeats. "moved" is the largest l2 distance by which
a readout (probabilities) differs from plain float32 extraction. Writes benchmarks/results/extraction.md.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapter_overhead import processor

from stabilitykit.dynamics.compiled import CompiledForward
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.space import to_space
from stabilitykit.dynamics.trajectory import batch_logits
from stabilitykit.evaluation.selection import choose
from stabilitykit.plugins.registry import Registry

TABLE = Path(__file__).parent / "results" / "extraction.md"
MODELS = ("timm:vit_tiny_patch16_224", "timm:mixer_s32_224", "timm:resnet50", "timm:efficientnet_b0", "resnet18")
WAYS = ("float32", "channels last", "bfloat16", "compiled", "compiled bfloat16")
HEADER = (
    "| model | way | trajectory s | plain forwards | images/s | compiling s | moved |\n|---|---|---|---|---|---|---|"
)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, batch: int, repeats: int) -> list[str]:
    """One row for every way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = choose(Registry.load(), "model", name).make()
    model.module.eval()
    shape = model.program.input_shape if hasattr(model, "program") else (3, 32, 32)
    inputs = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
    last = inputs.to(memory_format=torch.channels_last)
    readout = HeadReadout(model)
    compiling = {}
    work: dict[str, Callable[[], np.ndarray]] = {
        "float32": lambda: batch_logits(model, readout, inputs),
        "channels last": lambda: batch_logits(model, readout, last),
        "bfloat16": lambda: batch_logits(model, readout, inputs, torch.bfloat16),
    }
    for way, dtype in (("compiled", None), ("compiled bfloat16", torch.bfloat16)):
        forward = CompiledForward(model, readout, batch)
        compiling[way] = seconds(lambda: batch_logits(model, readout, inputs, dtype, forward))  # noqa: B023
        work[way] = lambda dtype=dtype, forward=forward: batch_logits(  # type: ignore[misc]
            model, readout, inputs, dtype, forward
        )
    logits = {way: run() for way, run in work.items()}  # warm: kernels chosen, tables cached
    plain, best = [], {way: [] for way in WAYS}
    with torch.inference_mode():
        for _ in range(repeats):
            plain.append(seconds(lambda: model.logits(inputs)))
            for way in WAYS:
                best[way].append(seconds(work[way]))
    values = {way: to_space(found, "probabilities") for way, found in logits.items()}
    rows = []
    for way in WAYS:
        took = min(best[way])
        moved = float(np.linalg.norm(values[way] - values["float32"], axis=-1).max())
        rows.append(
            f"| {name} | {way} | {took:.3f} | {took / min(plain):.2f} | {batch / took:.0f} | "
            f"{f'{compiling[way]:.0f}' if way in compiling else ''} | {moved:.1e} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="model specs")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=TABLE)
    given = parser.parse_args()
    rows = []
    for name in given.models:
        rows += measure(name, given.batch, given.repeats)
        print("\n".join(rows[-len(WAYS) :]), flush=True)
    command = "python benchmarks/extraction.py" + "".join(f" {argument}" for argument in sys.argv[1:])
    given.output.write_text(
        f"# Speed of extraction\n\n`{command}`: all readouts along depth of {given.batch} images, the best of "
        f"{given.repeats}; {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}.\n\n"
        + "\n".join([HEADER, *rows])
        + "\n"
    )


if __name__ == "__main__":
    main()
