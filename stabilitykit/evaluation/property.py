"""What is measured of a model on a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stabilitykit.base.results import PropertyResult
    from stabilitykit.evaluation.context import Context


class Property(ABC):
    """A measurable property of a model on a dataset.

    The core gives a :class:`~stabilitykit.evaluation.context.Context`; what is not touched is not computed.
    """

    name: str = "property"
    # False: under torchrun only rank 0 evaluates. True: every rank calls evaluate with the same trajectory and shares
    # the work through context.world; all ranks must return the same result.
    parallel: bool = False

    @abstractmethod
    def evaluate(self, context: Context) -> PropertyResult:
        """Measure. Raise CellProblem (or Refusal) with one clear line when no number can be given."""

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Recompute measurements from their stored witnesses, in float64, from model and data.

        Returns:
            measurement name -> recomputed value (None: this one has no witness to recompute), or a text that says why
            it does not stand. The caller compares. ``context.readouts(indices)`` gives the trajectories of single
            images.
        """
        return {}

    def verify_sample(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Recompute from all images, in another way than :meth:`evaluate`, numbers that no witness attains.

        As `verify`; a text under a name that is no measurement ("table x, row 3") is a number of a table that does
        not stand. `stabilitykit verify` evaluates the property again and compares every number in any case.
        """
        return {}

    def per_image(self, context: Context) -> Mapping[str, np.ndarray]:
        """Measurements that are means over images: name -> one value per image, float64 (N,).

        `compare` bootstraps them.
        """
        return {}

    def on_subset(self, context: Context, rows: np.ndarray) -> Mapping[str, float]:
        """Measurements over the images ``rows`` (int64, ascending) alone: name -> value. `compare` calls it on
        disjoint blocks of the images, whose ratios say whether a change is real, and on random halves, to show how a
        minimum varies: a bootstrap says nothing of one."""
        return {}
