"""The paper's four models, each trained with some seeds: where their weights lie and what was said of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paper_values import MODELS, TITLES

SNAPSHOT = re.compile(rf"({'|'.join(MODELS)})_s(\d+)\.epoch-(\d+)\.safetensors")


@dataclass(frozen=True)
class Net:
    """One training.

    Attributes:
        name: one of the paper's models.
        seed: of the training.
        weights: NAME_sSEED.safetensors; NAME_sSEED.epoch-EPOCH.safetensors of a snapshot.
        epoch: number of the epoch that a snapshot was taken after; None: the end of the training.
    """

    name: str
    seed: int
    weights: Path
    epoch: int | None = None

    @property
    def architecture(self) -> str:
        return "resnet18" if self.name.endswith("18") else "resnet50"

    @property
    def title(self) -> str:
        when = "" if self.epoch is None else f", epoch {self.epoch}"
        return f"{TITLES[self.name]}, seed {self.seed}{when}"

    @property
    def key(self) -> str:
        return f"{self.name}_s{self.seed}" + ("" if self.epoch is None else f"_e{self.epoch}")

    def spec(self, width: int | None) -> dict[str, Any]:
        """What ``stabilitykit.evaluate`` takes for a model; ``width`` of a smaller network than the paper's."""
        options: dict[str, Any] = {"checkpoint": str(self.weights)} if self.weights.exists() else {}
        return {"name": self.architecture, "options": options | ({} if width is None else {"width": width})}


def nets(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> list[Net]:
    """The trainings that were asked for, whether their weights are there or not."""
    return [Net(name, seed, folder / f"{name}_s{seed}.safetensors") for name in names for seed in seeds]


def snapshots(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> list[Net]:
    """Weights in ``folder`` that ``stabilitykit train --keep-epochs`` kept, by model, seed and epoch."""
    matches = [(SNAPSHOT.fullmatch(path.name), path) for path in folder.iterdir()]
    found = [Net(m[1], int(m[2]), path, int(m[3])) for m, path in matches if m]
    chosen = [net for net in found if net.name in names and net.seed in seeds]
    return sorted(chosen, key=lambda net: (MODELS.index(net.name), net.seed, net.epoch or 0))


def trained_epochs(weights: Path) -> Any:
    """Number of the epoch whose weights these are, from the file's header; "not recorded" without."""
    from safetensors import safe_open

    try:
        with safe_open(str(weights), framework="numpy") as opened:
            return json.loads((opened.metadata() or {})["stabilitykit"])["epoch"]
    except (KeyError, TypeError, ValueError):
        return "not recorded"
