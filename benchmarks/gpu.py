"""Extraction, probes, pair search, neighbours and exact shadowing on a device of torch, beside the CPU's.

    benchmarks/gpu.sh [--device cuda|cpu] [--small] [--output benchmarks/results/gpu.md]

Everything in one process, each piece first on the CPU (the network on all threads; searches compiled, on all cores)
and then on the device, warm: wall seconds of the second of two runs. The searches' answers are compared bit for bit;
readouts and probes, which are float32 arithmetic of another machine, by how far they moved. Without CUDA the device's
columns say "not run", and the CPU's stand. Exit 1 where an answer differs.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from adapter_overhead import processor
from probes import Images
from stabilitykit_shadowing.exact import ExactShadowing

from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.probe import fit_probes
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.space import to_space
from stabilitykit.dynamics.trajectory import extract
from stabilitykit.evaluation.selection import choose
from stabilitykit.plugins.registry import Registry
from stabilitykit.search import (
    REDUCTIONS,
    closest_pair,
    closest_pairs,
    nearest_neighbours,
    nearest_of_other_groups,
    searching_on,
)
from stabilitykit.search.synthetic import softmax_trajectory

TABLE = Path(__file__).parent / "results" / "gpu.md"
HEADER = "| work | size | CPU s | device s | CPU / device | answer |\n|---|---|---:|---:|---:|---|"


@dataclass(frozen=True)
class Sizes:
    """Images of each piece."""

    network: int
    pairs: int
    neighbours: int
    shadowing: int


FULL, SMALL = Sizes(2_000, 200_000, 50_000, 8_000), Sizes(100, 2_000, 1_500, 400)


class Bench:
    """The rows so far.

    Attributes:
        device: where the second column is measured; None: nowhere.
        differs: pieces whose answer on the device is another one.
    """

    def __init__(self, device: str | None) -> None:
        self.device, self.rows, self.differs = device, [], []

    def row(
        self,
        work: str,
        size: str,
        on_cpu: Callable[[], Any],
        on_device: Callable[[str], Any],
        judge: Callable[[Any, Any], str],
    ) -> None:
        """Measure one piece; ``judge`` (CPU's answer, device's answer) says how they compare."""
        cpu, ours = best_of(on_cpu)
        cells = ["not run", "", "not run"]
        if self.device is not None:
            name = self.device
            taken, theirs = best_of(lambda: on_device(name))
            verdict = judge(ours, theirs)
            if verdict == "DIFFERS":
                self.differs.append(work)
            cells = [f"{taken:.3g}", f"{cpu / taken:.2g}", verdict]
        self.rows.append(f"| {work} | {size} | {cpu:.3g} | {cells[0]} | {cells[1]} | {cells[2]} |")
        print(self.rows[-1], flush=True)

    def search(self, work: str, size: str, ask: Callable[[], Any]) -> None:
        """A search, which finds its device by itself."""

        def there(device: str) -> Any:
            with searching_on(device):
                return ask()

        self.row(work, size, ask, there, lambda a, b: "equal to the last bit" if same(a, b) else "DIFFERS")


def best_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the second of two runs, and its answer."""
    for _ in range(2):
        start = time.perf_counter()
        answer = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took = time.perf_counter() - start
    return took, answer


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit: arrays, and what holds them."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    return bool(a == b or (a != a and b != b))


def networks(bench: Bench, count: int) -> None:
    """Extraction and probes of the embedded revised ResNet-18, untrained, on random images."""
    dataset, indices = Images(count), np.arange(count)

    def model_on(device: str) -> Any:
        torch.manual_seed(0)
        model = choose(Registry.load(), "model", "resnet18").make()
        model.module.eval().to(device)
        return model

    models = {device: model_on(device) for device in dict.fromkeys(["cpu", bench.device or "cpu"])}

    def readouts(device: str) -> np.ndarray:
        model = models[device]
        out = np.empty((model.num_blocks + 1, count, 10), dtype=np.float32)
        extraction = Extraction(space="probabilities", batch_size=100)
        extract(model, HeadReadout(model), dataset, indices, out, extraction, device=device)
        return out

    def moved(a: np.ndarray, b: np.ndarray) -> str:
        apart = np.linalg.norm(to_space(a, "probabilities") - to_space(b, "probabilities"), axis=-1)
        return f"a readout moves by at most {apart.max():.1e} (l2, probabilities)"

    bench.row("extraction, resnet18", f"{count} images", lambda: readouts("cpu"), readouts, moved)

    def probes(device: str) -> list[float]:
        fitted = fit_probes(models[device], dataset, indices, num_classes=10, epochs=3, device=device)
        return [depth.accuracy for depth in fitted.fit.depths]

    def other(a: list[float], b: list[float]) -> str:
        return f"an accuracy on its images moves by at most {max(abs(x - y) for x, y in zip(a, b, strict=True)):.2g}"

    bench.row("probes, 3 epochs", f"{count} images", lambda: probes("cpu"), probes, other)


def searches(bench: Bench, sizes: Sizes) -> None:
    """The pair search under every reduction, and neighbours, on softmax trajectories."""
    values, labels = softmax_trajectory(sizes.pairs, 10, 10, seed=1)
    size = f"{sizes.pairs:,} x 10 x 10"
    for reduction in REDUCTIONS:
        bench.search(f"closest pair, {reduction}", size, lambda r=reduction: closest_pair(values, labels, r))
        bench.search(f"class matrix, {reduction}", size, lambda r=reduction: closest_pairs(values, labels, r))
    many = sizes.pairs // 20
    long, classes = softmax_trajectory(many, 5, 100, gain=30, width=32, seed=2)
    bench.search("class matrix of 100 classes, max", f"{many:,} x 5 x 100", lambda: closest_pairs(long, classes, "max"))
    some, groups = np.ascontiguousarray(values[:, : sizes.neighbours]), labels[: sizes.neighbours]
    last = some[-1]
    bench.search("nearest neighbours", f"{sizes.neighbours:,} x 10", lambda: nearest_neighbours(last))
    bench.search(
        "nearest of another class, all reductions",
        f"{sizes.neighbours // 4:,} x 10 x 10",
        lambda: nearest_of_other_groups(
            np.ascontiguousarray(some[:, : sizes.neighbours // 4]), groups[: sizes.neighbours // 4]
        ),
    )


def shadowing(bench: Bench, count: int) -> None:
    """One exact s(eps): sets of all images, unions along depth, and the decisions."""
    values, _ = softmax_trajectory(count, 9, 10, seed=3)

    def decide() -> Any:
        exact = ExactShadowing(np.asarray(values, dtype=np.float64))
        known = np.array([0] * 5 + [int(nearest_neighbours(values[5])[0][0])] * 4)
        return exact.at(0.02, 0.0, known, nodes=500)

    bench.search("exact s(0.02)", f"{count:,} x 9 x 10", decide)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="a device of torch")
    parser.add_argument("--small", action="store_true", help="a try of a minute: small samples")
    parser.add_argument("--output", type=Path, default=TABLE)
    given = parser.parse_args()
    there = not given.device.startswith("cuda") or torch.cuda.is_available()
    bench = Bench(given.device if there else None)
    sizes = SMALL if given.small else FULL
    started = time.monotonic()
    for piece in (
        lambda: networks(bench, sizes.network),
        lambda: searches(bench, sizes),
        lambda: shadowing(bench, sizes.shadowing),
    ):
        piece()
    name = "not run: no CUDA device on this machine"
    if bench.device is not None:
        name = torch.cuda.get_device_name(bench.device) if bench.device.startswith("cuda") else given.device
    command = " ".join(["benchmarks/gpu.sh", *sys.argv[1:]])
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(
        f"# On a GPU and on the CPU\n\n`{command}`, {time.monotonic() - started:.0f} s in all. Device: {name}. "
        f"CPU: {processor()}, {torch.get_num_threads()} threads; torch {torch.__version__}, Python "
        f"{platform.python_version()}. Wall seconds of the second of two runs.\n\n"
        + "\n".join([HEADER, *bench.rows])
        + "\n"
    )
    for work in bench.differs:
        print(f"{work}: the device's answer is not the CPU's", file=sys.stderr)
    return 1 if bench.differs else 0


if __name__ == "__main__":
    sys.exit(main())
