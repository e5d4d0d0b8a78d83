"""Courses through whole networks: steps, cost of all head readouts, bit-exactness.

    python benchmarks/courses.py [--models NAME ...] [--batch 8] [--repeats 5]

Untrained networks with random weights on random images of their own size. Cost: processor seconds of a whole
trajectory (every state and every head readout) over those of a plain forward pass, both in turn in one process, the
medians of the repeats; "predicted" counts floating point operations. Exact: states and logits of the chained steps are
those of the plain pass, bit for bit. Writes benchmarks/results/courses.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from adapter_overhead import processor
from stabilitykit_adapters.course_model import CourseModel
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.equivalence import certify, randomise
from stabilitykit_adapters.runs import Course
from stabilitykit_timm.names import input_shape_of, skeleton

from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.trajectory import depth_logits

TABLE = Path(__file__).parent / "results" / "courses.md"
MODELS = (
    "timm:resnet18",
    "timm:resnet50",
    "timm:vit_tiny_patch16_224",
    "timm:mixer_s32_224",
    "timm:convnext_tiny",
    "timm:swin_tiny_patch4_window7_224",
    "timm:efficientnet_b0",
    "timm:vgg11",
)
HEADER = (
    "| model | T | steps | first state | last state | certified heads | exact | predicted cost | cost in forwards |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, batch: int, repeats: int) -> str:
    """The row of one network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = skeleton(name, device="cpu").eval()
    randomise(network, seed=0)
    shape = input_shape_of(network)
    found = discover(network, shape)
    course = found.course
    if not isinstance(course, Course):
        return f"| {name} | no course: {course} |"
    model = CourseModel(network, found.program, course)
    inputs = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    report = certify(model, inputs[:2], thorough=False)
    readout = HeadReadout(model)
    plain, whole = [], []
    with torch.inference_mode():
        for turn in range(repeats + 1):
            first, second = seconds(lambda: model.logits(inputs)), 0.0
            if not model.without_head:
                second = seconds(lambda: list(depth_logits(model, readout, inputs)))
            if turn:  # the first is warm-up
                plain.append(first)
                whole.append(second)
    cost = f"{statistics.median(whole) / statistics.median(plain):.2f}" if not model.without_head else "no head"
    chains = sum(model.head_at(t) is not None for t in range(course.depth + 1))
    first, last = (" + ".join("x".join(map(str, s)) for s in state) for state in (course.shapes[0], course.shape))
    steps = ", ".join(f"{count} {kind}" for kind, count in course.steps.items())
    return (
        f"| {name} | {course.depth} | {steps} | {first} | {last} | {chains} of {course.depth + 1} | "
        f"{'yes' if report['bit_exact'] else report['max_abs_difference']} | {course.cost:.2f} | {cost} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm:NAME or torchvision:NAME")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=TABLE)
    given = parser.parse_args()
    rows = []
    for name in given.models:
        rows.append(measure(name, given.batch, given.repeats))
        print(rows[-1], flush=True)
    command = "python benchmarks/courses.py" + "".join(f" {argument}" for argument in sys.argv[1:])
    given.output.write_text(
        f"# Courses through whole networks\n\n`{command}`: all states and all head readouts of {given.batch} images, "
        f"processor seconds over those of plain forward passes, medians of {given.repeats}; {processor()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}.\n\n" + "\n".join([HEADER, *rows]) + "\n"
    )


if __name__ == "__main__":
    main()
