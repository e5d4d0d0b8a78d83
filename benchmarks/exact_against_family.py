"""Exact s(eps)/eps against its bracket and the family's ratio, and T_g before and after, on three kinds of networks.

    python benchmarks/exact_against_family.py --checkpoints DIR --cifar10 TEST.npz --mnist DIR --mnist-weights FILE
        [--cache DIR]

Embedded digits, MNIST and a public CIFAR-10 ResNet-20 (its last stage, where Lip(g) is certified, and its whole course,
where inner depths have no certified bound). Seconds are those of the property `shadowing` as a run records them, with
everything it does besides: family, bracket, exact headline and the exact curve; CPU seconds of all threads beside them.
Writes benchmarks/results/exact_against_family.md.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from reference_networks import NETWORKS

import stabilitykit
from stabilitykit import Measurement, PropertyResult

TABLE = Path(__file__).parent / "results" / "exact_against_family.md"
HEAD = (
    "network",
    "N x depths",
    "eps",
    "family (Sh_profile)",
    "bracket",
    "exact (Sh_exact)",
    "family / exact",
    "T_g before (profile)",
    "T_g after (lower)",
    "shadowing, CPU s (wall)",
)
TEXT = """# Exact s(eps)/eps against bracket and family; T_g before and after

`python benchmarks/exact_against_family.py ...`; probabilities, head readouts, seed 0. All ratios of a row are at the
same eps, the smallest that an orbit of the family attains. "T_g before" divides the family's Sh_profile, an estimate
that overstates by "family / exact". "T_g after" divides Sh_exact by a certified upper bound of Lip: a lower bound for
the sample at that eps. Where Lip(g) has no certified bound it is undefined, and "before" had divided by a slope that
was only found. Times: 2 cores shared with much other work, one thread for torch.

"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--checkpoints", "--cifar10", "--mnist", "--mnist-weights"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=None)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    specs = {network.name: network.model for network in NETWORKS}
    whole: Any = specs["ResNet-20"]
    stage = copy.deepcopy(whole)
    stage["options"]["run"] = "layer3"
    checkpoint, images = str(given.checkpoints / "cifar10_resnet20.th"), f"npz:{given.cifar10}"
    rows = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for name, model, data, weights in (
        ("resnet18-digits, digits", "resnet18-digits", "digits", None),
        ("revised ResNet-18, MNIST test", "resnet18", f"mnist:root={given.mnist}", str(given.mnist_weights)),
        ("ResNet-20, CIFAR-10 test, last stage", stage, images, checkpoint),
        ("ResNet-20, CIFAR-10 test, whole", whole, images, checkpoint),
    ):
        rows.append(measured(name, model, data, weights, given.cache))
        print(rows[-1], flush=True)
        TABLE.write_text(TEXT + "\n".join(rows) + "\n", encoding="utf-8")


class Timed(stabilitykit.Property):
    """``shadowing`` with the CPU seconds it took."""

    name = "shadowing"

    def __init__(self) -> None:
        from stabilitykit_shadowing.property import Shadowing

        self.inner, self.seconds, self.depths = Shadowing(), (0.0, 0.0), 0

    def evaluate(self, context: Any) -> PropertyResult:
        """What ``shadowing`` gives."""
        self.depths = len(np.asarray(context.trajectory.values))  # extraction is not counted
        wall, cpu = time.perf_counter(), time.process_time()
        result = self.inner.evaluate(context)
        self.seconds = (time.perf_counter() - wall, time.process_time() - cpu)
        return result


def measured(name: str, model: Any, data: str, weights: str | None, cache: Path | None) -> str:
    """One row of the table."""
    limit = None if data == "digits" else 10_000
    keep: Any = False if cache is None else cache
    timed = Timed()
    run = stabilitykit.evaluate(model, data, [timed], checkpoint=weights, limit=limit, cache=keep)
    found = run["shadowing"]
    theorem = stabilitykit.evaluate(
        model, data, ["shadowing", "lipschitz", "topological"], checkpoint=weights, limit=limit, cache=keep
    )["topological"]
    family, exact = found["Sh_profile"], found["Sh_exact"]
    eps = exact.witness["eps"]
    bracket = f"{found['Sh_all.lower'].value:.4g} - {found['Sh_all.upper'].value:.4g}"
    factor = family.value / exact.value if family.value and exact.value else float("nan")
    wall, cpu = timed.seconds
    entries = (
        name,
        f"{exact.n:,} x {timed.depths}",
        f"{eps:.4g}",
        shown(family),
        bracket,
        f"{shown(exact)} ({exact.kind})",
        f"{factor:.3g}",
        shown(theorem["T_g.profile"]),
        shown(theorem["T_g.lower"]),
        f"{cpu:.1f} ({wall:.1f})",
    )
    return "| " + " | ".join(entries) + " |"


def shown(m: Measurement) -> str:
    """A value with four digits."""
    return "no certified Lip(g)" if m.value is None else f"{m.value:.4g}"


if __name__ == "__main__":
    main()
