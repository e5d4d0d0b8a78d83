"""One number format measured: what all images are decided as, and what each part alone does to some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stabilitykit_precision.alone import Alone
from stabilitykit_precision.decisions import Decisions, mean_change
from stabilitykit_precision.layers import Left


@dataclass(frozen=True)
class PartsAlone:
    """What P parts do, each alone in the format, to two sets of images.

    Attributes:
        names: P names.
        sampled: of the seeded sample.
        changed: of images whose decision the whole network in the format changes: all of them, or a seeded choice.
        forwards: passes through the network all of it took, a block counted as 1/T.
    """

    names: Sequence[str]
    sampled: Alone
    changed: Alone
    forwards: float

    @property
    def worst(self) -> int:
        """The part that alone changes most decisions of the sample; of equal ones that which moves the logits most."""
        return self._largest(self.sampled.flips.sum(axis=1))

    @property
    def main(self) -> int:
        """The part that alone changes most of the changed decisions; of equal ones that which moves the logits most."""
        return self._largest(self.changed.flips.sum(axis=1), self.sampled.flips.sum(axis=1))

    def moved(self, part: int) -> float:
        """Mean absolute change of the logits of the sample by a part alone; infinite where none of it is finite."""
        change = self.sampled.change[part]
        change = change[np.isfinite(change)]
        return float(change.mean()) if len(change) else float("inf")

    def _largest(self, *counts: np.ndarray) -> int:
        return max(range(len(self.names)), key=lambda p: (*(int(c[p]) for c in counts), self.moved(p), -p))


@dataclass(frozen=True)
class Measured:
    """One format.

    Attributes:
        format: its name.
        scheme: what was rounded and how, in words.
        before, after: what the N images are decided as, by the network as it is and in the format.
        left: what int8 leaves in float.
        parts: each part alone; None where that could not be measured.
    """

    format: str
    scheme: str
    before: Decisions
    after: Decisions
    left: Sequence[Left]
    parts: PartsAlone | None

    @cached_property
    def flipped(self) -> np.ndarray:
        """int64 (F,): rows of the images whose decision changes."""
        return np.flatnonzero(self.after.classes != self.before.classes)

    @cached_property
    def change(self) -> np.ndarray:
        """float64 (M,): mean over classes of the absolute change of the logits, of images where they are finite."""
        change = mean_change(self.before.logits, self.after.logits)
        return change[np.isfinite(change)]
