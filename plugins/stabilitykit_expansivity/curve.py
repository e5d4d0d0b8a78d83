"""The subsample curve: a constant is only comparable together with its N, so show how it falls with N."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.search import ClosestPair, closest_pair
from stabilitykit_expansivity.constants import REDUCTIONS, refined


@dataclass(frozen=True)
class CurvePoint:
    """A constant over ``size`` images, with the pair's rows in the whole sample; value None: no pair."""

    size: int
    reduction: str
    value: float | None
    rows: tuple[int, int] | None
    block: int | None


def subsamples(count: int, points: int, seed: int) -> list[np.ndarray]:
    """Nested random subsets of ``range(count)``, smallest first, the whole last; rows ascending.

    Each holds about half of the next. Nested, so that a minimum over pairs can only fall with the size.
    """
    order = np.random.default_rng([seed, 1]).permutation(count)
    sizes = sorted({count >> halvings for halvings in range(points)} - {0})
    return [np.sort(order[:size]) for size in sizes]


def curve(
    values: np.ndarray,
    groups: np.ndarray,
    whole: dict[str, ClosestPair],
    points: int,
    seed: int,
    progress: Callable[..., Iterator[np.ndarray]] | None = None,
) -> list[CurvePoint]:
    """Constants over nested subsamples.

    Arguments:
        values: (T+1, N, K); groups: (N,).
        whole: the closest pair of all N images by reduction, not searched for again.
        points: number of sizes N, N/2, N/4...
        seed: of the subsets.
        progress: ``progress(iterable, description, total)``.
    """
    found: list[CurvePoint] = []
    subsets: Iterable[np.ndarray] = subsamples(len(groups), points, seed)
    if progress is not None:
        subsets = progress(subsets, "subsample curve", points)
    # One room for all samples and reductions: copies of a large trajectory would add up.
    room = np.empty(values[:, : len(groups) // 2].size, dtype=values.dtype)
    # Of the sample before, which this one holds: what is nearer is looked for.
    known: dict[str, tuple[int, int]] = {}
    for rows in subsets:
        everything = len(rows) == len(groups)
        if not everything and len(np.unique(groups[rows])) < 2:
            found += [CurvePoint(len(rows), reduction, None, None, None) for reduction in REDUCTIONS]
            continue
        for reduction, pair in (whole if everything else _closest(values, groups, rows, room, whole, known)).items():
            ends = (int(rows[pair.first]), int(rows[pair.second]))
            known[reduction] = ends
            found.append(CurvePoint(len(rows), reduction, pair.value, ends, pair.block))
    return found


def _closest(
    values: np.ndarray,
    groups: np.ndarray,
    rows: np.ndarray,
    room: np.ndarray,
    whole: dict[str, ClosestPair],
    known: dict[str, tuple[int, int]],
) -> dict[str, ClosestPair]:
    """The closest pair among ``rows`` by reduction; its ends count among them.

    Arguments:
        rows: (n,) integers, ascending.
        room: (M,), of the dtype of ``values``, M at least the numbers of ``rows``: overwritten.
        whole: the closest pairs of all images; one whose images are among the rows is that of the rows.
        known: pairs of images among the rows that may be near, by reduction.
    """
    depths, _, dimension = values.shape
    chosen = room[: depths * len(rows) * dimension].reshape(depths, len(rows), dimension)
    np.take(values, rows, axis=1, out=chosen, mode="clip")  # the rows exist; only this mode writes without a copy
    near = [_places(rows, pair) for pair in known.values()]
    found: dict[str, ClosestPair] = {}
    for reduction in REDUCTIONS:
        pair = whole[reduction]
        ends = (pair.first, pair.second)
        if np.isin(ends, rows).all():
            found[reduction] = pair._replace(**dict(zip(("first", "second"), _places(rows, ends), strict=True)))
        else:
            found[reduction] = closest_pair(chosen, groups[rows], reduction, known=near)
        near.append((found[reduction].first, found[reduction].second))
    return found


def _places(rows: np.ndarray, pair: tuple[int, int]) -> tuple[int, int]:
    """Where two images stand among ``rows``, ascending integers (n,)."""
    first, second = np.searchsorted(rows, pair)
    return int(first), int(second)


def told(trajectory: Trajectory, points: list[CurvePoint]) -> list[CurvePoint]:
    """The points as they are reported: see :func:`~stabilitykit_expansivity.constants.refined`."""
    found = []
    for point in points:
        if point.rows is not None and point.value is not None:
            first, second = np.array(point.rows)[:, None]
            values, depths = refined(trajectory, first, second, np.array([point.value]), point.reduction)
            if depths[0] >= 0:
                block = int(np.searchsorted(trajectory.seeing, depths[0]))
                point = replace(point, value=float(values[0]), block=block)
        found.append(point)
    return found


def exponent(points: Iterable[CurvePoint], reduction: str) -> float | None:
    """Slope a of the least-squares line log eps = a log N + b; None with fewer than 3 positive points."""
    used = [(p.size, p.value) for p in points if p.reduction == reduction and p.value]
    if len(used) < 3:
        return None
    sizes, values = np.log(np.array(used, dtype=np.float64).T)
    return float(np.polyfit(sizes, values, 1)[0])
