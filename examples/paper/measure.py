"""Runs of stabilitykit behind the tables: one folder each, which a later call reads instead of measuring again."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import images_of, some_of
from nets import Net

import stabilitykit
from stabilitykit.base.errors import UsageProblem
from stabilitykit.runs.folder import load_run

LABELS = {"name": "expansivity", "options": {"nearest": "never", "curve": 0}}
HEAD = (
    LABELS,
    {"name": "expansivity", "options": {"nearest": "never", "curve": 0, "pairs": "predictions"}},
    {"name": "expansivity", "options": {"nearest": "never", "curve": 0, "pairs": "distinct"}},
    {"name": "shadowing", "options": {"chains": True}},
    {"name": "lipschitz"},
    {"name": "topological"},
)
FEW = (*HEAD[:2], {"name": "shadowing", "options": {"chains": True, "exact": False, "bracket": False}}, HEAD[4])
"""What is measured of probes, and in the dependence table: without the searches over all pseudo-orbits."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """One run to make.

    Attributes:
        steps: that the probes are trained for; None: the model's own head at every depth.
        limit: test images; None: all.
        images: training images of the probes; None: all.
        properties: specs of what is measured.
    """

    net: Net
    properties: Sequence[Mapping[str, Any]]
    limit: int | None
    steps: int | None = None
    images: int | None = None

    @property
    def readout(self) -> str:
        return "head" if self.steps is None else f"probe, {self.steps:,} steps"

    def folder(self, runs: Path) -> Path:
        """Where it lies: other weights, other images or other properties are another run."""
        digest = hashlib.sha256(self.net.weights.read_bytes())
        digest.update(repr(self.properties).encode())
        on = "" if self.steps is None else f"{self.steps}-of-{self.images or 'all'}-"
        kind = "head-" if self.steps is None else "probe-"
        return runs / f"{self.net.key}-{kind}{on}{self.limit or 'all'}-{digest.hexdigest()[:12]}"


def measured(wanted: Sequence[Wanted], given: argparse.Namespace) -> tuple[dict[Wanted, Path], list[str]]:
    """The run folders, made where they are not there yet (``--finished``: left out), and what failed in words."""
    folders, failures = {}, []
    started, made = time.monotonic(), 0
    for number, one in enumerate(wanted, 1):
        folder = one.folder(given.runs)
        if given.finished and not complete(folder):
            continue
        if not complete(folder):
            left = (time.monotonic() - started) / made * (len(wanted) - number + 1) if made else None
            about = "" if left is None else f", about {left / 60:.0f} min left"
            print(f"[{number}/{len(wanted)}] {one.net.title}: {one.readout}{about}", file=sys.stderr, flush=True)
            evaluate(one, folder, given)
            made += 1
        folders[one] = folder
        for cell in load_run(folder)[1]:
            if not cell.ok:
                failures.append(f"{one.net.title}, {one.readout}: {cell.property}: {cell.error['message']}")
    return folders, failures


def complete(folder: Path) -> bool:
    """Is the run there and finished?"""
    try:
        return bool(load_run(folder)[0]["status"] == "complete")
    except (UsageProblem, KeyError):
        return False


def evaluate(one: Wanted, folder: Path, given: argparse.Namespace) -> None:
    """Make the run, or finish an interrupted one."""
    images = images_of(one.net.name, given)
    assert images is not None
    training, test = images
    probes: dict[str, Any] = {}
    if one.steps is not None:
        key = one.net.name.partition("_")[0]
        probes = {
            "readout": "probe",
            "probe_steps": one.steps,
            "probe_dataset": some_of(training, one.images, f"{key}-training", given.runs),
        }
    stabilitykit.evaluate(
        one.net.spec(given.width),
        test,
        [dict(spec) for spec in one.properties],
        limit=one.limit,
        device=given.device,
        output=folder,
        resume=folder.exists(),
        cache=given.runs / "cache",
        **probes,
    )
