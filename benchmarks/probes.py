"""What fitting probes and a lens costs beyond the optimisation itself, in forward passes over the same images.

    python benchmarks/probes.py [--model resnet18] [--images 5000] [--epochs 10] [--readout probe lens] [--anew N]

Seeded random images of 32 x 32 (what they show costs nothing), states kept where `evaluate` keeps them. "Beyond" is
everything but the steps of the optimiser and the judging at the end: computing the states, writing and reading them.
`--anew` also measures, for up to N images, the way without room for states, where the network runs once per epoch.
CPU seconds of all threads and wall seconds side by side; on a machine that others use only the former compare.
Writes benchmarks/results/probes.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapter_overhead import processor

from stabilitykit.dynamics import lens, probe
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.states import Batch, StateBatches
from stabilitykit.dynamics.trajectory import batches
from stabilitykit.evaluation.fitting import room_for_states
from stabilitykit.evaluation.selection import choose
from stabilitykit.plugins.registry import Registry

TABLE = Path(__file__).parent / "results" / "probes.md"
HEADER = (
    "| readout | images | epochs | states | GB | one forward s | states computed and kept | read | optimisation | "
    "total | beyond, in forwards |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


class Images(Dataset):
    """Seeded random pictures, made on demand; labels 0..9 in turn."""

    name = "random"

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> np.ndarray:
        return np.arange(self.count) % 10

    @property
    def class_names(self) -> list[str]:
        return [str(number) for number in range(10)]

    def images(self, indices: Any) -> list[np.ndarray]:
        return [np.random.default_rng(index).random((3, 32, 32), dtype=np.float32) for index in indices]

    def fingerprint(self) -> str:
        return f"random-{self.count}"


class Clock:
    """Seconds of (CPU, wall) since the start."""

    def __init__(self) -> None:
        self.start = self._now()

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.process_time(), time.perf_counter()])

    @property
    def seconds(self) -> np.ndarray:
        return self._now() - self.start


class Timed(StateBatches):
    """States that note how long they kept whoever visits them waiting."""

    spent = np.zeros((2, 2))  # (keeping, reading) x (CPU, wall)

    def keep(self, *given: Any) -> bool:
        clock = Clock()
        kept = super().keep(*given)
        Timed.spent[0] += clock.seconds
        return kept

    def _visit(self, numbers: Any) -> Iterator[Batch]:
        source = super()._visit(numbers)
        while True:
            clock = Clock()
            batch = next(source, None)
            Timed.spent[1] += clock.seconds
            if batch is None:
                return
            yield batch


def forward(model: Any, data: Images) -> np.ndarray:
    """Seconds of one plain pass of the network over all images."""
    clock = Clock()
    with torch.inference_mode():
        for _, inputs in batches(model, data, np.arange(len(data)), 100, "cpu"):
            model.logits(inputs)
    return clock.seconds


def measure(model: Any, data: Images, readout: str, epochs: int, anew: bool, one: np.ndarray) -> str:
    """A row of the table."""
    Timed.spent = np.zeros((2, 2))
    sizes: list[int] = []
    room = room_for_states(None, model.name)

    def allocate(shape: tuple[int, int], dtype: str) -> np.ndarray | None:
        sizes.append(shape[0] * shape[1] * 4)
        return None if anew else room(shape, dtype)

    given: dict[str, Any] = {"epochs": epochs, "allocate": allocate}
    clock = Clock()
    if readout == "lens":
        fit = lens.fit_lens(model, data, np.arange(len(data)), **given)
    else:
        fit = probe.fit_probes(model, data, np.arange(len(data)), num_classes=10, held_out=True, **given)
    total = clock.seconds
    kept, read = Timed.spent
    beyond = kept + read
    how = f"computed anew ({fit.fit.passes} passes)" if anew else f"kept ({fit.fit.passes} pass)"
    columns = (kept, read, total - beyond, total)
    return (
        f"| {readout} | {len(data):,} | {epochs} | {how} | {sizes[0] / 1e9:.2f} | {_both(one)} | "
        + " | ".join(map(_both, columns))
        + f" | {beyond[0] / one[0]:.2f} CPU, {beyond[1] / one[1]:.2f} wall |"
    )


def _both(seconds: np.ndarray) -> str:
    return f"{seconds[0]:.1f} / {seconds[1]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", help="model spec, for images of 3 x 32 x 32")
    parser.add_argument("--images", type=int, nargs="+", default=[5000])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--readout", nargs="+", default=["probe", "lens"], choices=("probe", "lens"))
    parser.add_argument("--anew", type=int, default=0, metavar="N", help="also without room for states, for N images")
    parser.add_argument("--output", type=Path, default=TABLE)
    given = parser.parse_args()
    model = choose(Registry.load(), "model", given.model).make()
    model.module.eval()
    probe.StateBatches = lens.StateBatches = Timed  # type: ignore[misc]
    forward(model, Images(200))  # warm
    rows = []
    for count in given.images:
        data = Images(count)
        one = forward(model, data)
        for readout in given.readout:
            for anew in (False, True) if count <= given.anew else (False,):
                rows.append(measure(model, data, readout, given.epochs, anew, one))
                print(rows[-1], flush=True)
    command = "python benchmarks/probes.py" + "".join(f" {argument}" for argument in sys.argv[1:])
    load = os.getloadavg()[0]
    given.output.write_text(
        f"# What probes and lenses cost\n\n`{command}`: {given.model}, {model.num_blocks} blocks, states of "
        f"{'x'.join(map(str, model.state_shape))}; seconds are CPU / wall. {processor()}, {torch.get_num_threads()} "
        f"thread(s), torch {torch.__version__}, load {load:.1f} on {os.cpu_count()} cores.\n\nOthers used the machine: "
        "CPU seconds compare, wall seconds hardly. Making the images is part of every pass; training and judging the "
        "second set of probes, which tells the held-out accuracy, is part of the optimisation.\n\n"
        + "\n".join([HEADER, *rows])
        + "\n"
    )


if __name__ == "__main__":
    main()
