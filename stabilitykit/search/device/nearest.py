"""Every image's nearest other image, under reductions over depths, on a device.

Matrix products in float64 bound every distance from both sides. A first pass over all pairs keeps each image's
smallest upper bound; a second collects the pairs whose lower bound does not exceed it, measures them on the device,
and those that may be the nearest in the canonical order on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from stabilitykit.search.device.canonical import measured
from stabilitykit.search.device.products import UNDERFLOW, Factors, exact_products, relative_slack

Found = dict[str, tuple[np.ndarray, np.ndarray]]
# Images compared at once: rows by columns. Some six float64 arrays of that size are held.
ROWS = {"cpu": 256, "cuda": 2048}
COLUMNS = {"cpu": 4096, "cuda": 32768}
# Pairs measured at once on the device.
PAIRS = 1 << 20


def nearest(
    values: np.ndarray, kinds: np.ndarray, relation: int, exclude: np.ndarray, reductions: Sequence[str], *, device: str
) -> Found:
    """For every image the nearest allowed other one under each reduction, the lowest index among equals.

    Arguments:
        values: (depths, images, readout) float32 or float64, checked.
        kinds: (images,) int64. relation: 0: any image may be it; 1: those of the same group; 2: of other groups.
        exclude: (images, m) int64, images that may not be the answer; negative ones exclude nothing.
        device: a torch device that computes in float64.

    Returns:
        By reduction index int64 (images,) and distance float64 (images,); -1 and NaN where nothing is allowed.
    """
    images = values.shape[1]
    found: Found = {r: (np.full(images, -1, dtype=np.int64), np.full(images, np.nan)) for r in reductions}
    where = torch.device(device)
    with exact_products():
        search = _Search(values, kinds, relation, exclude, where)
        step = ROWS.get(where.type, 2048)
        for start in range(0, images, step):
            rows = slice(start, min(start + step, images))
            for reduction, (row, other) in search.candidates(rows, tuple(reductions)).items():
                distance, _ = measured(values, row, other, reduction)
                order = np.lexsort((other, distance, row))
                best = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
                index, apart = found[reduction]
                index[row[best]], apart[row[best]] = other[best], distance[best]
    return found


class _Search:
    """The sample on the device; arguments as in `nearest`."""

    def __init__(
        self, values: np.ndarray, kinds: np.ndarray, relation: int, exclude: np.ndarray, device: torch.device
    ) -> None:
        self.depths, self.images, self.readout = values.shape
        self.relation, self.device = relation, device
        held = torch.from_numpy(np.array(values, dtype=np.float64)).to(device)
        self.factors = [Factors.of(points, torch.float64) for points in held]
        self.kinds = torch.from_numpy(kinds).to(device)
        self.exclude = torch.from_numpy(exclude).to(device)
        self.slack = relative_slack(self.depths, self.readout)
        self.lengths = [float(factors.squares.max()) for factors in self.factors]

    def candidates(self, rows: slice, reductions: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By reduction the pairs (image of ``rows``, other image), int64 (n,), among which the nearest are."""
        best = {
            r: torch.full((rows.stop - rows.start,), float("inf"), dtype=torch.float64, device=self.device)
            for r in reductions
        }
        for _, barred, bounds in self._bounded(rows, reductions):
            for r, (_, high) in bounds.items():
                best[r] = torch.minimum(best[r], high.masked_fill(barred, float("inf")).amin(dim=1))
        kept: dict[str, list[tuple[torch.Tensor, ...]]] = {r: [] for r in reductions}
        for columns, barred, bounds in self._bounded(rows, reductions):
            for r, (low, _) in bounds.items():
                places = ((low <= best[r][:, None]) & ~barred).nonzero()
                for start in range(0, len(places), PAIRS):
                    row, other = places[start : start + PAIRS].unbind(1)
                    kept[r].append(self._near(row, other + columns.start, rows, best[r], r))
        found = {}
        for r, parts in kept.items():
            if not parts:
                found[r] = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
                continue
            row, other, distance = (torch.cat(part) for part in zip(*parts, strict=True))
            near = distance <= best[r][row]
            found[r] = ((row[near] + rows.start).cpu().numpy(), other[near].cpu().numpy())
        return found

    def _bounded(
        self, rows: slice, reductions: tuple[str, ...]
    ) -> Iterator[tuple[slice, torch.Tensor, dict[str, tuple[torch.Tensor, torch.Tensor]]]]:
        """Columns, whether a pair is barred, and by reduction bounds of its distance from below and above."""
        step = COLUMNS.get(self.device.type, 32768)
        for start in range(0, self.images, step):
            columns = slice(start, min(start + step, self.images))
            bounds: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
            for factors, longest in zip(self.factors, self.lengths, strict=True):
                squares = factors.squared(rows, columns)
                slack = factors.slack(float(factors.squares[rows].max()) + longest)
                low, high = (squares - slack).clamp_min_(0.0).sqrt_(), (squares + slack).clamp_min_(0.0).sqrt_()
                for r in reductions:
                    if r not in bounds:
                        bounds[r] = (low, high)
                        continue
                    bounds[r] = (_joined(r, bounds[r][0], low), _joined(r, bounds[r][1], high))
            for r, (low, high) in bounds.items():
                count = self.depths if r == "mean" else 1
                bounds[r] = (
                    low * ((1 - self.slack) / count) - UNDERFLOW,
                    high * ((1 + self.slack) / count) + UNDERFLOW,
                )
            yield columns, self._barred(rows, columns), bounds

    def _barred(self, rows: slice, columns: slice) -> torch.Tensor:
        """bool (rows, columns): may the image of the column not be the answer for that of the row?"""
        own, other = self.kinds[rows, None], self.kinds[columns]
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        barred = (own != other) if self.relation == 1 else (own == other) if self.relation == 2 else None
        barred = torch.zeros(shape, dtype=torch.bool, device=self.device) if barred is None else barred
        every = torch.arange(rows.start, rows.stop, device=self.device)
        for out in (every, *self.exclude[rows].unbind(1)):
            inside = ((out >= columns.start) & (out < columns.stop)).nonzero()[:, 0]
            barred[inside, out[inside] - columns.start] = True
        return barred

    def _near(
        self, row: torch.Tensor, other: torch.Tensor, rows: slice, best: torch.Tensor, reduction: str
    ) -> tuple[torch.Tensor, ...]:
        """Of pairs (row, image), int64 (n,), those that may be nearest, with distances from below; lowers ``best``.

        ``best`` float64 (rows,): upper bounds of the distances of the nearest.
        """
        total: torch.Tensor | None = None
        for factors in self.factors:
            difference = factors.points[row + rows.start] - factors.points[other]
            apart = difference.square_().sum(dim=1).sqrt_()
            total = apart if total is None else _joined(reduction, total, apart)
        assert total is not None
        if reduction == "mean":
            total = total / self.depths
        best.scatter_reduce_(0, row, total * (1 + self.slack) + UNDERFLOW, "amin")
        # Of images without distance, of which there may be thousands, the first will do.
        equal = total == 0
        lowest = torch.full_like(best, self.images, dtype=torch.int64)
        lowest.scatter_reduce_(0, row[equal], other[equal], "amin")
        distance = total * (1 - self.slack) - UNDERFLOW
        near = (distance <= best[row]) & (~equal | (other == lowest[row]))
        return row[near], other[near], distance[near]


def _joined(reduction: str, distance: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Distances reduced over some depths, float64 of any shape, with one more depth; of the mean: the sum."""
    if reduction == "min":
        return torch.minimum(distance, more)
    return torch.maximum(distance, more) if reduction == "max" else distance + more
