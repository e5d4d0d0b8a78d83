"""What a trajectory costs beside a plain forward pass: all readouts g(h_0) .. g(h_T) of networks that are not ours.

    OMP_NUM_THREADS=1 python benchmarks/adapter_overhead.py [--models NAME ...] [--batch 16] [--repeats 3]

Untrained timm networks on random images at their own size, one thread, wall and CPU seconds, the best of the repeats
with both taken in turn. ``predicted`` is 1 + T tau as `audit --list-runs` prints it, tau being the tail's share of the
floating point operations. Writes benchmarks/results/adapter_overhead.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stabilitykit_timm.models import build

from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.trajectory import batch_logits

TABLE = Path(__file__).parent / "results" / "adapter_overhead.md"
MODELS = (
    "vit_tiny_patch16_224",
    "mixer_b16_224",
    "resnet50",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "efficientnet_b0",
)
HEADER = (
    "| model | run | T | plain s (wall) | plain s (CPU) | trajectory s (wall) | trajectory s (CPU) | "
    "times (CPU) | predicted |\n|---|---|---|---|---|---|---|---|---|"
)


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """(wall, CPU) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(name: str, batch: int, repeats: int) -> str:
    """One row of the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build(f"timm:{name}")
    inputs = torch.randn(batch, *model.program.input_shape, generator=torch.Generator().manual_seed(0))
    readout = HeadReadout(model)
    plain: list[tuple[float, float]] = []
    whole: list[tuple[float, float]] = []
    with torch.inference_mode():
        model.logits(inputs), batch_logits(model, readout, inputs)  # warm: kernels chosen, tables cached
        for _ in range(repeats):
            plain.append(seconds(lambda: model.logits(inputs)))
            whole.append(seconds(lambda: batch_logits(model, readout, inputs)))
    (wall, cpu), (all_wall, all_cpu) = (tuple(map(min, zip(*times))) for times in (plain, whole))
    return (
        f"| {name} | {model.run.name} | {model.num_blocks} | {wall:.3f} | {cpu:.3f} | {all_wall:.3f} | "
        f"{all_cpu:.3f} | {all_cpu / cpu:.2f} | {model.run.cost:.2f} |"
    )


def processor() -> str:
    """The machine's processor as it calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm names")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=TABLE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.models:
        rows.append(measure(name, given.batch, given.repeats))
        print(rows[-1], flush=True)
    command = "python benchmarks/adapter_overhead.py" + "".join(f" {argument}" for argument in sys.argv[1:])
    given.output.write_text(
        f"# Cost of a trajectory\n\n`OMP_NUM_THREADS=1 {command}`: all readouts along depth of {given.batch} images "
        f"against one plain forward pass, the best of {given.repeats}; {processor()}, one thread, torch "
        f"{torch.__version__}.\n\n" + "\n".join([HEADER, *rows]) + "\n"
    )


if __name__ == "__main__":
    main()
