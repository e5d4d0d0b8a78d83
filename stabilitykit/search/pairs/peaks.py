"""The join of images by their largest coordinates: for long readouts, whose images are near only if they share one."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.pairs import peaks_kernels
from stabilitykit.search.pairs.state import Found, Search
from stabilitykit.search.parallel import run, spans

# Images whose coordinates are looked at at once.
CHUNK = 2048
# Every image is first measured against so many of those that are next to it in height, for a bound.
NEIGHBOURS = 2
# Images whose partners are counted to foretell what a join costs.
PROBES = 256
# Costs in nanoseconds, measured once. They choose between methods; no pair is skipped because of them.
# Of finding a window.
WINDOW_COST = 60.0
# Of a partner in a window.
PARTNER_COST = 150.0
# Of looking for windows, per coordinate of an image.
COORDINATE_COST = 0.6


class Peaks:
    """The images of one layer, sorted by the place of their largest coordinate and by its value.

    Arguments:
        points: (images, readout) float32 or float64, 1-Lipschitz but for `error`.
        depths: int64, over which pairs are reduced.
        owner, owners: only pairs whose image of the lower group is congruent to `owner` modulo `owners`.
        found: where answers go.

    Attributes:
        order, peaks: int64 (images,). heights: float64 (images,). starts: int64 (readout + 1,).
    """

    def __init__(
        self,
        search: Search,
        points: np.ndarray,
        error: float,
        depths: np.ndarray,
        owner: int,
        owners: int,
        found: Found,
        threads: int,
    ) -> None:
        self.search, self.points, self.error, self.found, self.threads = search, points, error, found, threads
        self.question = (search.values, depths, search.code, search.groups, owner, owners)
        images, readout = points.shape
        peaks = np.empty(images, dtype=np.int64)
        heights = np.empty(images)
        smallest = np.zeros(images // CHUNK + 1)

        def look(start: int) -> None:
            part = points[start : start + CHUNK]
            where = peaks[start : start + CHUNK]
            np.argmax(part, axis=1, out=where)
            heights[start : start + CHUNK] = part[np.arange(len(part)), where]
            smallest[start // CHUNK] = part.min()

        run(look, range(0, images, CHUNK), threads)
        self.size = max(float(np.abs(heights).max()), -float(smallest.min()))
        self.order = np.lexsort((heights, peaks))
        self.peaks, self.heights = peaks[self.order], heights[self.order]
        self.starts = np.searchsorted(self.peaks, np.arange(readout + 1))

    def cost(self, most: float) -> float:
        """Forecast nanoseconds of one thread, from a sample of the images; infinite above `most`."""
        images, readout = self.points.shape
        sample = np.unique(np.linspace(0, images - 1, min(images, PROBES)).astype(np.int64))
        ceiling = self.search.ceiling()[self.search.groups[self.order[sample]]]
        if not np.isfinite(ceiling).all():
            return np.inf
        reach = np.array([peaks_kernels.reach_of(float(r), self.error, self.size) for r in ceiling])
        scale = images / len(sample)
        windows, partners = peaks_kernels.count_partners(
            self.points, self.order, self.starts, self.heights, self.peaks, sample, reach, most / scale / PARTNER_COST
        )
        cost = scale * (WINDOW_COST * windows + PARTNER_COST * partners) + COORDINATE_COST * images * readout
        return cost if cost <= most else np.inf

    def seed(self) -> None:
        """Measure neighbours in the order, for bounds."""
        self._join(NEIGHBOURS)

    def run(self) -> None:
        """Measure every pair within the bounds."""
        self._join(0)

    def _join(self, neighbours: int) -> None:
        search, parts = self.search, 16 * self.threads if self.threads > 1 else 1
        ceiling = search.ceiling()

        def work(span: tuple[int, int]) -> Found:
            mine = Found(search.cells)
            for part in range(*span):
                peaks_kernels.join_peaks(
                    self.points,
                    self.order,
                    self.starts,
                    self.heights,
                    self.peaks,
                    part,
                    parts,
                    neighbours,
                    self.error,
                    self.size,
                    *self.question,
                    0 if search.overall else search.width,
                    ceiling,
                    search.bound,
                    mine.value,
                    mine.first,
                    mine.second,
                )
            return mine

        for mine in run(work, spans(parts, self.threads), self.threads):
            self.found.take(mine)
