"""The closest pairs of images of different groups, on a device.

Every pair of tiles that its boxes do not rule out is screened by one matrix product: of one depth (max: the one that
rules out most; min: each in turn) or of the mean readout (mean), all of them 1-Lipschitz views of a trajectory. What
remains is measured over all depths in float64, and what may be the answer then in the canonical order, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from stabilitykit.search.device.canonical import measured
from stabilitykit.search.device.products import LARGEST_SINGLE, UNDERFLOW, Factors, exact_products, relative_slack
from stabilitykit.search.device.tiles import Tiles
from stabilitykit.search.results import ClosestPairs

TILE = {"cpu": 512, "cuda": 4096}
# A larger sample is first searched with every STRIDE-th image: the answers are upper bounds.
LARGE = 16_000
STRIDE = 16
# Pairs measured at once on the device.
PAIRS = 1 << 20
# Images from which the depth that rules out most is chosen.
SAMPLE = 1024


@dataclass
class _Layer:
    """One view of the trajectories that never makes two of them farther apart than they are, but for ``error``.

    Attributes:
        single, double: factors of products in float32 and in float64.
        lengths: float64 (tiles,), the largest squared length of each tile's points.
        depth: the depth it is, or None.
    """

    single: Factors | None
    double: Factors
    lengths: np.ndarray
    error: float
    depth: int | None

    @classmethod
    def of(cls, points: torch.Tensor, tiles: Tiles, largest: float, error: float, depth: int | None) -> _Layer:
        double = Factors.of(points, torch.float64)
        squares = double.squares.cpu().numpy()
        lengths = np.maximum.reduceat(squares, tiles.start) * (1 + 1e-9)
        single = Factors.of(points, torch.float32) if largest < LARGEST_SINGLE else None
        return cls(single, double, lengths, error, depth)

    def factors(self, distance: float, lengths: float) -> Factors:
        """Those in float32 where these resolve ``distance``, else those in float64."""
        if self.single is not None and distance * distance > 8 * self.single.slack(lengths):
            return self.single
        return self.double


def find(
    values: np.ndarray,
    groups: np.ndarray,
    width: int,
    reduction: str,
    *,
    overall: bool,
    device: str,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
) -> ClosestPairs:
    """The answer as matrices, upper triangle filled; with ``overall`` only the cell (0, 0), by the closest of all.

    Arguments:
        values: (depths, images, readout) float32 or float64, checked.
        groups: (images,) int64 in [0, width).
        device: a torch device that computes in float64.
        shard: (rank, world): of the pairs of tiles every world-th.
    """
    shape = (1, 1) if overall else (width, width)
    value = np.full(shape, np.nan)
    first, second, block = (np.full(shape, -1, dtype=np.int64) for _ in range(3))
    present, kinds = np.unique(groups, return_inverse=True)
    if len(present) > 1:
        with exact_products():
            search = _Search(values, kinds.astype(np.int64), len(present), reduction, overall, torch.device(device))
            search.run(shard, progress)
        known = np.flatnonzero(search.first >= 0)
        cells = (0 * known, 0 * known) if overall else tuple(present[x] for x in divmod(known, len(present)))
        first[cells], second[cells] = search.first[known], search.second[known]
        value[cells], block[cells] = measured(values, first[cells], second[cells], reduction)
    return ClosestPairs(value, first, second, block, reduction)


class _Search:
    """One question, the bounds and the answers so far; groups are numbered without gaps."""

    def __init__(
        self, values: np.ndarray, groups: np.ndarray, width: int, reduction: str, overall: bool, device: torch.device
    ) -> None:
        self.values, self.groups, self.width, self.reduction = values, groups, width, reduction
        self.overall, self.device = overall, device
        self.cells = 1 if overall else width * width
        self.slack = relative_slack(len(values), values.shape[2])
        # The answers: values, first and second images of every cell.
        self.value = np.full(self.cells, np.inf)
        self.first, self.second = (np.full(self.cells, -1, dtype=np.int64) for _ in range(2))
        self.bound = np.full(self.cells, np.inf)

    def run(self, shard: tuple[int, int], progress: Callable[[int, int], None] | None) -> None:
        """Fill the answers from this shard's pairs of tiles."""
        images = self.values.shape[1]
        if images >= LARGE:
            part = np.arange(0, images, STRIDE)
            some = _Search(
                np.ascontiguousarray(self.values[:, part]),
                self.groups[part],
                self.width,
                self.reduction,
                self.overall,
                self.device,
            )
            some.run((0, 1), None)
            self.bound = some.bound
        self.tiles = Tiles.of(self.values, self.groups, self.width, TILE.get(self.device.type, 4096))
        order = self.tiles.order
        self.kinds = self.groups[order]
        self.held = torch.from_numpy(np.ascontiguousarray(self.values[:, order])).to(self.device)
        self.kinds_held = torch.from_numpy(self.kinds).to(self.device)
        self.bound_held = torch.from_numpy(self.bound).to(self.device)
        self.largest = float(self.held.abs().max())
        self._bounds_of_representatives()
        done = 0
        for layer, tasks, gaps in self._layers(shard):
            for (p, q), gap in zip(tasks.tolist(), gaps.tolist(), strict=True):
                done += 1
                if progress:
                    progress(done, max(done, len(tasks) * (len(self.values) if self.reduction == "min" else 1)))
                self._tile(layer, p, q, gap)

    def _layers(self, shard: tuple[int, int]) -> Iterator[tuple[_Layer, np.ndarray, np.ndarray]]:
        """The views to screen by, with this shard's pairs of tiles and lower bounds of their images' distances."""
        held, tiles, (rank, world) = self.held, self.tiles, shard
        if self.reduction == "min":
            for depth in self._depths():
                tasks, gaps = tiles.pairs(self.kinds, "min", depth)
                yield (_Layer.of(held[depth], tiles, self.largest, 0.0, depth), tasks[rank::world], gaps[rank::world])
            return
        tasks, gaps = (part[rank::world] for part in tiles.pairs(self.kinds, self.reduction))
        if self.reduction == "max":
            depth = self._depths()[0]
            yield _Layer.of(held[depth], tiles, self.largest, 0.0, depth), tasks, gaps
            return
        depths, readout = len(held), held.shape[2]
        mean = held.mean(dim=0, dtype=torch.float64)
        # Rounding of the mean: a sum of as many terms, and the division.
        error = 4 * (depths + 4) * 2.0**-53 * readout**0.5 * self.largest
        yield _Layer.of(mean, tiles, self.largest, error, None), tasks, gaps

    def _depths(self) -> list[int]:
        """All depths; those at which fewest of some pairs lie within the bounds come first."""
        places = np.unique(np.linspace(0, len(self.kinds) - 1, SAMPLE).astype(np.int64))
        apart = np.triu(self.kinds[places][:, None] != self.kinds[places], 1)
        limit = self.bound[self._cells(self.kinds[places][:, None], self.kinds[places])]
        inside = []
        for points in self.held[:, torch.from_numpy(places).to(self.device)]:
            factors = Factors.of(points, torch.float64)
            squares = factors.squared(slice(None), slice(None)).cpu().numpy()
            inside.append(int(((squares <= limit * limit) & apart).sum()))
        return [int(depth) for depth in np.argsort(inside, kind="stable")]

    def _cells(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """int64, the cells of groups a and b, int64 of shapes that broadcast; 0 with one answer for all."""
        cells: np.ndarray = np.minimum(a, b) * self.width + np.maximum(a, b)
        return np.zeros_like(cells) if self.overall else cells

    def _bounds_of_representatives(self) -> None:
        """A bound for every cell: the distance of the first images of two groups."""
        first = np.flatnonzero(np.diff(self.kinds, prepend=-1))
        a, b = (torch.from_numpy(x).to(self.device) for x in np.triu_indices(len(first), 1))
        places = torch.from_numpy(first).to(self.device)
        for start in range(0, len(a), PAIRS):
            part = slice(start, start + PAIRS)
            self._tighten(*self._reduced(places[a[part]], places[b[part]])[1:])

    def _tile(self, layer: _Layer, p: int, q: int, gap: float) -> None:
        """Screen two tiles whose images are at least ``gap`` apart, and measure what remains."""
        tiles = self.tiles
        rows, columns = slice(tiles.start[p], tiles.stop[p]), slice(tiles.start[q], tiles.stop[q])
        a, b = self.kinds[[rows.start, rows.stop - 1]], self.kinds[[columns.start, columns.stop - 1]]
        alone = a[0] == a[1] and b[0] == b[1]
        if self.overall or alone:
            bound = float(self.bound[self._cells(a[0], b[0])])
        else:
            matrix = self.bound.reshape(self.width, self.width)[a[0] : a[1] + 1, b[0] : b[1] + 1]
            bound = float(matrix[np.isfinite(matrix)].max(initial=0.0))
        reach = bound * (1 + self.slack) + UNDERFLOW
        if gap > reach:
            return
        lengths = float(layer.lengths[p] + layer.lengths[q])
        factors = layer.factors(reach + layer.error, lengths)
        squares = factors.squared(rows, columns)
        if self.overall or alone:
            near = squares <= factors.limit(reach + layer.error, lengths)
        else:
            reaches = self.bound_held.reshape(self.width, self.width)[a[0] : a[1] + 1, b[0] : b[1] + 1]
            reaches = (reaches * (1 + self.slack) + (UNDERFLOW + layer.error + factors.shift(lengths))) * (1 + 1e-13)
            limits = (reaches.square() + factors.slack(lengths)) * (1 + 8 * factors.unit)
            own, other = self.kinds_held[rows] - int(a[0]), self.kinds_held[columns] - int(b[0])
            near = squares <= limits[own][:, other]
        if not alone:
            near &= self.kinds_held[rows, None] < self.kinds_held[columns]
        places = near.nonzero()
        for start in range(0, len(places), PAIRS):
            part = places[start : start + PAIRS]
            self._measure(part[:, 0] + int(rows.start), part[:, 1] + int(columns.start), layer.depth)

    def _measure(self, one: torch.Tensor, two: torch.Tensor, depth: int | None) -> None:
        """Take the pairs of places ``one`` and ``two``, int64 (n,), that may be answers."""
        kept, cell, distance = self._reduced(one, two, depth)
        self._tighten(cell, distance)
        near = distance <= self.bound_held[cell] * (1 + self.slack) + UNDERFLOW
        kept, cell, distance = kept[near], cell[near], distance[near]
        if not len(kept):
            return
        order = torch.from_numpy(self.tiles.order).to(self.device)
        first, second = order[one[kept]], order[two[kept]]
        first, second = torch.minimum(first, second), torch.maximum(first, second)
        # Of equal pairs without distance, of which there may be millions, the lowest of each cell will do.
        equal = distance == 0
        if not bool(equal.any()):
            self._take(*(x.cpu().numpy() for x in (cell, first, second)))
            return
        keys = torch.full((self.cells,), torch.iinfo(torch.int64).max, dtype=torch.int64, device=self.device)
        key = first * self.values.shape[1] + second
        keys.scatter_reduce_(0, cell[equal], key[equal], "amin")
        near = ~equal | (key == keys[cell])
        self._take(*(x[near].cpu().numpy() for x in (cell, first, second)))

    def _reduced(
        self, one: torch.Tensor, two: torch.Tensor, depth: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which pairs of places are still within the bounds, int64; their cells, int64; their distances, float64.

        Arguments:
            depth: the depth to begin with.
        """
        kept = torch.arange(len(one), device=self.device)
        a, b = self.kinds_held[one], self.kinds_held[two]
        cell = torch.zeros_like(a) if self.overall else a * self.width + b
        distance: torch.Tensor | None = None
        depths = sorted(range(len(self.held)), key=lambda t: t != depth)
        for t in depths:
            points = self.held[t]
            apart = (points[one[kept]].double() - points[two[kept]].double()).square_().sum(dim=1).sqrt_()
            if distance is None:
                distance = apart
            elif self.reduction == "min":
                distance = torch.minimum(distance, apart)
            else:
                distance = torch.maximum(distance, apart) if self.reduction == "max" else distance + apart
            if self.reduction == "max":
                near = distance <= self.bound_held[cell] * (1 + self.slack) + UNDERFLOW
                kept, cell, distance = kept[near], cell[near], distance[near]
        assert distance is not None
        return kept, cell, distance / len(depths) if self.reduction == "mean" else distance

    def _tighten(self, cell: torch.Tensor, distance: torch.Tensor) -> None:
        """Lower the bounds to what pairs of the cells, int64 (n,), attain: distances float64 (n,)."""
        if not len(cell):
            return
        upper = distance * (1 + self.slack) + UNDERFLOW
        if self.cells == 1:
            self.bound_held = torch.minimum(self.bound_held, upper.min())
        else:
            self.bound_held = self.bound_held.scatter_reduce(0, cell, upper, "amin")
        self.bound = self.bound_held.cpu().numpy()

    def _take(self, cell: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        """Measure pairs canonically and keep the best of each cell; all int64 (n,)."""
        value, _ = measured(self.values, first, second, self.reduction)
        order = np.lexsort((second, first, value, cell))
        best = order[np.flatnonzero(np.diff(cell[order], prepend=-1))]
        cell, value, first, second = cell[best], value[best], first[best], second[best]
        old, one, two = self.value[cell], self.first[cell], self.second[cell]
        lower = (first < one) | ((first == one) & (second < two))
        better = (one < 0) | (value < old) | ((value == old) & lower)
        for known, new in ((self.value, value), (self.first, first), (self.second, second)):
            known[cell[better]] = new[better]
