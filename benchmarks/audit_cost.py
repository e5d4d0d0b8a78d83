"""What an audit of all properties costs, in forward passes per image and in CPU seconds beside plain forwards.

    OMP_NUM_THREADS=1 python benchmarks/audit_cost.py [--images 100 1000] [--models NAME ...] [--of MODEL DATASET]

Untrained networks on seeded random images, one thread; with --of another network on a seeded choice of images, which
is printed only. Forwards are counted by the products in every convolution and linear layer that runs, of perturbed
copies, too; the first property of an audit pays for the trajectory, the certificate and what stands in the record.
Writes benchmarks/results/audit_cost.md.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit import Dataset, evaluate
from stabilitykit.evaluation.selection import choose
from stabilitykit.plugins.registry import Registry
from stabilitykit.testing.cost import Products

TABLE = Path(__file__).parent / "results" / "audit_cost.md"
HERE = "module:benchmarks.audit_cost:{},input=3x32x32,run=whole"
MODELS = {
    "ResNet-32, whole": HERE.format("resnet32"),
    "15 equal blocks": "module:benchmarks.audit_cost:equal15,input=3x32x32",
}
PROPERTIES = (
    *("expansivity", "shadowing", "lipschitz", "topological", "perturbation", "blocks", "table2"),
    *("entropy", "window", "outlying", "precision"),
)
CLASSES = 10


class Basic(nn.Module):
    """A basic block; its skip is a convolution where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.down = nn.Conv2d(before, after, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.down(x))


class Net(nn.Module):
    """Stem, stages of basic blocks, pooling and a linear map."""

    def __init__(self, stages: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        width = stages[0][0]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        blocks: list[nn.Module] = []
        for number, (channels, count) in enumerate(stages):
            for block in range(count):
                blocks.append(Basic(width, channels, 2 if number and not block else 1))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.stem(x)))


def resnet32() -> nn.Module:
    """ResNet-32 of CIFAR-10: 15 blocks in three stages."""
    return Net([(16, 5), (32, 5), (64, 5)])


def equal15() -> nn.Module:
    """As many blocks, all of one dimension."""
    return Net([(32, 15)])


class Noise(Dataset):
    """Seeded random images of ``CLASSES`` brightness patterns."""

    name = "noise"

    def __init__(self, count: int) -> None:
        generator = np.random.default_rng(0)
        self._labels = np.arange(count) % CLASSES
        patterns = generator.random((CLASSES, 3, 32, 32))
        noise = generator.random((count, 3, 32, 32))
        self._images = (0.5 * patterns[self._labels] + 0.5 * noise).astype(np.float32)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return [str(c) for c in range(CLASSES)]

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        return [self._images[i] for i in indices]

    def fingerprint(self) -> str:
        return hashlib.sha256(self._images.tobytes()).hexdigest()


def measure(spec: str, count: int, dataset: str = "") -> dict[str, Any]:
    """Forwards per image and CPU seconds of each property, in the order measured; ``plain``: CPU seconds of all images
    through the network once."""
    registry = Registry.load()
    data = choose(registry, "dataset", dataset).make() if dataset else Noise(count)
    network = choose(registry, "model", spec).make()
    inputs = network.preprocess(data.images(range(count)))
    plain = []
    with torch.inference_mode():
        for _ in range(3):
            start = time.process_time()
            with Products() as products:
                for first in range(0, count, 100):
                    network.logits(inputs[first : first + 100])
            plain.append(time.process_time() - start)
    one = products.count
    found: dict[str, Any] = {"plain": min(plain), "T": network.num_blocks, "forwards": {}, "seconds": {}}
    last = [0, time.process_time()]

    def on_cell(cell: Any) -> None:
        if not cell.ok:
            raise SystemExit(f"{cell.property}: {cell.error['message']}")
        now = time.process_time()
        found["forwards"][cell.property] = (counted.count - last[0]) / one
        found["seconds"][cell.property] = now - last[1]
        last[:] = [counted.count, now]

    with Products() as counted:
        evaluate(spec, data, list(PROPERTIES), limit=count, cache=False, device="cpu", on_cell=on_cell)
    # what follows the last cell: the recheck of the record
    found["forwards"]["after"] = (counted.count - last[0]) / one
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--of", nargs=2, metavar=("MODEL", "DATASET"), help="specs, in place of the models above")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = [
        "# Cost of an audit",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/audit_cost.py`: all properties with their defaults; "
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}. Forwards per image, in "
        "brackets CPU seconds of the audit; the first property pays for the trajectory and the certificate. `plain`: "
        "CPU seconds of one forward pass of all images.",
        "",
        f"| model | T | images | plain | {' | '.join(PROPERTIES)} | all | all in plain forwards (CPU) |",
        "|---|" + "---|" * (len(PROPERTIES) + 5),
    ]
    chosen = [(name, MODELS[name], "") for name in options.models]
    for name, spec, dataset in [(options.of[0].partition(",")[0], *options.of)] if options.of else chosen:
        for count in options.images:
            found = measure(spec, count, dataset)
            cells = [f"{found['forwards'][p]:.2f} ({found['seconds'][p]:.1f})" for p in PROPERTIES]
            total, seconds = sum(found["forwards"].values()), sum(found["seconds"].values())
            lines.append(
                f"| {name} | {found['T']} | {count} | {found['plain']:.2f} | {' | '.join(cells)} | "
                f"**{total:.1f}** ({seconds:.1f}) | {seconds / found['plain']:.1f} |"
            )
            print(lines[-1], flush=True)
    if not options.of:
        TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
