"""The join of images by their largest coordinates: for long readouts, whose images are near only if they share one."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.arrays import LARGEST, check_finite
from stabilitykit.search.pairs import peaks_kernels
from stabilitykit.search.pairs.state import Found, Search
from stabilitykit.search.parallel import run, spans

# Images whose coordinates are looked at at once.
CHUNK = 2048
# Every image is first measured against so many of those that are next to it in height, for a bound.
NEIGHBOURS = 2
# Images whose partners are counted to foretell what a join costs.
PROBES = 256
# Coordinates that are noted of an image, on average, at most.
MOST_PLACES = 32
# Room for rounding, relative to a coordinate.
ROUNDING = 1e-9
# Costs in nanoseconds, measured once. They choose between methods; no pair is skipped because of them.
# Of finding a window.
WINDOW_COST = 60.0
# Of a partner in a window.
PARTNER_COST = 150.0
# Of looking for windows, per coordinate of an image.
COORDINATE_COST = 0.6


class Peaks:
    """The images of one layer, sorted by the place of their largest coordinate and by its value.

    One pass over the points finds what a join needs; rows are read again only of images that may be near.

    Arguments:
        points: (images, readout) float32 or float64, 1-Lipschitz but for `error`.
        depths: int64, over which pairs are reduced.
        owner, owners: only pairs whose image of the lower group is congruent to `owner` modulo `owners`.
        found: where answers go.

    Attributes:
        order, peaks: int64 (images,). heights: float64 (images,). starts: int64 (readout + 1,).
        begins, places, place_heights: for one bound of all groups, the coordinates that are nearly as large as the
            peak; else empty.

    Raises:
        ValueError: a number is not finite or exceeds 1e150 in magnitude.
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
        chunks = range(0, images, CHUNK)
        reach = np.inf
        if search.overall and np.isfinite(search.bound[0]):
            reach = peaks_kernels.reach_of(float(search.bound[0]), error, 0.0)

        def look(start: int) -> tuple[float, float, np.ndarray, np.ndarray, np.ndarray]:
            part = points[start : start + CHUNK]
            own, heights_of = peaks[start : start + CHUNK], heights[start : start + CHUNK]
            np.argmax(part, axis=1, out=own)
            heights_of[:] = part[np.arange(len(part)), own]
            counts, near, near_heights = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
            largest = float(heights_of.max())
            if reach < np.inf and largest <= LARGEST:
                least = heights_of - peaks_kernels.ROOT * reach - ROUNDING * np.abs(heights_of)
                with np.errstate(over="ignore"):  # far below every float32: all places are open
                    lowest = np.nextafter(least.astype(part.dtype), -np.inf)
                open_places = part >= lowest[:, None]
                counts = open_places.sum(axis=1)
                if counts.sum() <= MOST_PLACES * len(part):
                    near = np.nonzero(open_places)[1]
                    near_heights = part[open_places].astype(np.float64)
            return float(part.min()), largest, counts, near, near_heights

        seen = run(look, chunks, threads)
        smallest, largest = min(x[0] for x in seen), max(x[1] for x in seen)
        if not all(x[0] >= -LARGEST and x[1] <= LARGEST for x in seen):
            check_finite(search.values, "values")
        self.size = max(abs(smallest), abs(largest))
        counts, places, heights_there = (np.concatenate([x[n] for x in seen]) for n in (2, 3, 4))
        # The size of coordinates, and with it their rounding, is known only now.
        room = ROUNDING * np.abs(heights).min(initial=np.inf) >= 2 * self.size * peaks_kernels.ROUNDING
        whole = len(counts) == images and counts.sum() == len(places) and room
        self.places, self.place_heights = (x if whole else x[:0] for x in (places, heights_there))
        self.begins = np.concatenate([[0], np.cumsum(counts)]) if whole else counts[:0]
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
                    self.begins,
                    self.places,
                    self.place_heights,
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
