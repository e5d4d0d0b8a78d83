"""How the cells of a run are evaluated, and which images that takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stabilitykit.base.errors import UsageProblem
from stabilitykit.dynamics.space import Space

# What autocast is asked for; float64 converts the network instead.
EXTRACT_DTYPES: dict[str, torch.dtype | None] = {
    "float32": None,
    "float64": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Settings:
    """How pairs are evaluated; the same for all cells of a run."""

    readout: str = "head"
    space: Space = "probabilities"
    seed: int = 0
    limit: int | None = None
    batch_size: int = 100
    extract_dtype: str = "float32"
    channels_last: bool = False
    probe_epochs: int = 10
    any_classes: bool = False
    compile: bool = False

    def check(self) -> None:
        """UsageProblem for a value out of range."""
        if self.readout not in ("head", "probe"):
            raise UsageProblem(f"readout is head or probe; got {self.readout!r}")
        if self.space not in ("probabilities", "logits"):
            raise UsageProblem(f"space is probabilities or logits; got {self.space!r}")
        if self.extract_dtype not in EXTRACT_DTYPES:
            raise UsageProblem(f"extract dtype is one of {', '.join(EXTRACT_DTYPES)}; got {self.extract_dtype!r}")
        for name in ("batch_size", "probe_epochs"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UsageProblem(f"{name.replace('_', ' ')} is a whole number >= 1; got {getattr(self, name)!r}")
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 2):
            raise UsageProblem(f"limit is a whole number >= 2; got {self.limit!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise UsageProblem(f"seed is a whole number in 0..2^63-1; got {self.seed!r}")


def choose_indices(count: int, limit: int | None, seed: int) -> np.ndarray:
    """All of 0..count-1, or a seeded random ``limit`` of them, ascending. Subsets of one seed are nested."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])
