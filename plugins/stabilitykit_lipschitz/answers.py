"""Bounds already given for regions of one network: the least around a new region, the largest inside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabilitykit_lipschitz.affine import row_norms
from stabilitykit_lipschitz.inclusion import within
from stabilitykit_lipschitz.regions import Ball, Data, Region
from stabilitykit_lipschitz.rounding import gamma
from stabilitykit_lipschitz.upper import Upper

# A region within another has its shadow on any line within the other's: so many lines are compared first.
LINES = 6


class Answers:
    """Regions and the bounds that they got.

    Every question compares all regions' bounds and shadows at once, (M, LINES) numbers whatever the inputs' size, and
    proves by `within` only those inclusions that these leave possible and that would change the answer.

    Arguments:
        inputs: n, the size of one input.
    """

    def __init__(self, inputs: int) -> None:
        lines = np.random.default_rng(0).standard_normal((LINES, inputs))
        self._lines = lines / np.maximum(np.linalg.norm(lines, axis=1, keepdims=True), 1e-300)
        self._regions: list[Region] = []
        self._found: list[Upper] = []
        self._bounds = np.empty(16)
        self._shadows = np.empty((4, 16, LINES))  # lowest and highest, each rounded inward and outward

    def __len__(self) -> int:
        return len(self._regions)

    def add(self, region: Region, found: Upper) -> None:
        """Remember the bound of a region of the network's input size."""
        count = len(self)
        if count == len(self._bounds):
            self._bounds = np.concatenate([self._bounds, np.empty_like(self._bounds)])
            self._shadows = np.concatenate([self._shadows, np.empty_like(self._shadows)], axis=1)
        self._bounds[count], self._shadows[:, count] = found.bound, self._shadow(region)
        self._regions.append(region)
        self._found.append(found)

    def least_around(self, region: Region, below: float) -> Upper | None:
        """The answer with the least bound among regions that contain ``region``; None if none is below ``below``."""
        count = len(self)
        low, high, _, _ = self._shadow(region)
        outside = (low < self._shadows[2, :count]) | (high > self._shadows[3, :count])
        kept = np.flatnonzero((self._bounds[:count] < below) & ~outside.any(1))
        return next(self._proven(kept[np.argsort(self._bounds[kept], kind="stable")], region, around=True), None)

    def largest_inside(self, region: Region, above: float) -> Upper | None:
        """The answer with the largest bound among regions inside ``region``; None if none is above ``above``."""
        count = len(self)
        _, _, low, high = self._shadow(region)
        outside = (self._shadows[0, :count] < low) | (self._shadows[1, :count] > high)
        kept = np.flatnonzero((self._bounds[:count] > above) & ~outside.any(1))
        return next(self._proven(kept[np.argsort(-self._bounds[kept], kind="stable")], region, around=False), None)

    def _proven(self, order: np.ndarray, region: Region, *, around: bool) -> Iterator[Upper]:
        for i in order:
            other = self._regions[i]
            if within(region, other) if around else within(other, region):
                yield self._found[i]

    def _shadow(self, region: Region) -> np.ndarray:
        """Ends of the region's image on each line, (4, LINES): low and high of an interval within it, then around it.

        NaN for data, which compares as "possible"; rounding only ever makes more inclusions possible.
        """
        if isinstance(region, Data):
            return np.full((4, LINES), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(region, Ball):
                middle = np.ravel(np.asarray(region.center, dtype=np.float64))
                reach: np.ndarray = np.full(LINES, float(region.radius))
            else:
                low, high = region.box()
                middle, half = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low
                reach = np.abs(self._lines) @ half
            at = self._lines @ middle
            size = row_norms(middle[None])[0] + reach + np.abs(at)
            error = 8 * gamma(len(middle) + 8) * size + 1e-300
            return np.stack([at - reach + error, at + reach - error, at - reach - error, at + reach + error])
