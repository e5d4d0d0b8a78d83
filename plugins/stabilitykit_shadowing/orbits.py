"""Pseudo-orbits as arrays: sequences of images (i_0 .. i_T), or readouts of states that are no image's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search import best_tracers, nearest_neighbours


@dataclass(frozen=True)
class PseudoOrbits:
    """P pseudo-orbits of depth T.

    Attributes:
        start: int64 (P,), the image (row) each orbit starts from.
        jumps: float64 (P, T), jump at t = d(g_{t+1}(phi_t(h_t)), g_{t+1}(h_{t+1})) of Definition 2.
        path: int64 (P, T+1), the images visited, for orbits through sample states; else None.
        readouts: float64 (P, T+1, K), g_t of the orbit's own states, for orbits off the sample; else None.
    """

    start: np.ndarray
    jumps: np.ndarray
    path: np.ndarray | None = None
    readouts: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.readouts is None):
            raise ValueError("expected either the path (images) or the readouts of the orbits, got both or neither")

    def __len__(self) -> int:
        return len(self.start)

    @property
    def delta(self) -> np.ndarray:
        """float64 (P,): the largest jump of each orbit; it is a delta-pseudo-orbit for this delta."""
        return self.jumps.max(axis=1)

    def targets(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Readouts Y[p, t] of the chosen orbits -> float64 (len(rows), T+1, K)."""
        if self.readouts is not None:
            return self.readouts[rows]
        assert self.path is not None
        return np.asarray(values[np.arange(values.shape[0]), self.path[rows]], dtype=np.float64)

    def part(self, rows: np.ndarray) -> PseudoOrbits:
        """Only the orbits ``rows``."""
        return PseudoOrbits(
            self.start[rows],
            self.jumps[rows],
            None if self.path is None else self.path[rows],
            None if self.readouts is None else self.readouts[rows],
        )


def path_jumps(values: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Jumps d(G[t+1, i_t], G[t+1, i_{t+1}]) of paths (P, T+1) through values (T+1, N, K) -> float64 (P, T)."""
    jumps = np.empty((len(path), values.shape[0] - 1))
    for t in range(values.shape[0] - 1):
        jumps[:, t] = distances(values[t + 1, path[:, t]], values[t + 1, path[:, t + 1]])
    return jumps


def over_all_depths(path: np.ndarray, seeing: np.ndarray, depths: int) -> np.ndarray:
    """Paths int64 (P, len(seeing)) through the depths that are not blind -> (P, depths) through all of them.

    At a blind depth, where every image stands at the same point, an orbit stays at the image it had before (before the
    first depth that sees: at the one it has there), so that jumps and distances there are 0 and the others are kept.
    """
    place = np.maximum(np.searchsorted(seeing, np.arange(depths), side="right") - 1, 0)
    return path[:, place]


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """l2 distances along the last axis, in float64."""
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return np.sqrt(np.square(difference).sum(axis=-1))


def nearest_orbits(
    values: np.ndarray, *, labels: np.ndarray | None = None, same_class: bool = False, unvisited: bool = False
) -> PseudoOrbits:
    """From every image, step after each block to the most similar other image (the paper's section 3).

    Arguments:
        values: (T+1, N, K), T >= 1, without blind depths: there all images are equally similar.
        labels: int (N,), needed for ``same_class``.
        same_class: step only to images of the same class (the paper's section 4 suggests it).
        unvisited: never step to an image the orbit has visited; default: only not to the present one.

    Returns:
        At most N orbits: those that find an image to step to at every depth. Ties go to the lowest index.
    """
    depths, count, _ = values.shape
    if depths < 2:
        raise ValueError(f"values: expected at least two depths (T >= 1), got shape {values.shape}")
    if same_class and labels is None:
        raise ValueError("same_class needs labels: expected an integer per image, got None")
    groups = None if labels is None else np.asarray(labels, dtype=np.int64)
    start = np.arange(count)
    path = np.full((count, depths), -1, dtype=np.int64)
    path[:, 0] = start
    jumps = np.full((count, depths - 1), np.nan)
    alive = np.ones(count, dtype=bool)
    for t in range(1, depths):
        nearest, distance = nearest_neighbours(values[t], groups=groups if same_class else None, same_group=same_class)
        here = path[:, t - 1]
        path[:, t] = np.where(alive, nearest[here], -1)
        jumps[:, t - 1] = np.where(alive, distance[here], np.nan)
        if unvisited:
            again = alive & (path[:, :t] == path[:, t : t + 1]).any(axis=1)
            if again.any():
                _step_elsewhere(values[t], groups if same_class else None, path, jumps, np.flatnonzero(again), t)
        alive &= path[:, t] >= 0
    return PseudoOrbits(start[alive], jumps[alive], path=path[alive])


def _step_elsewhere(
    points: np.ndarray, groups: np.ndarray | None, path: np.ndarray, jumps: np.ndarray, rows: np.ndarray, t: int
) -> None:
    """Redo step t of the orbits ``rows``: nearest image none of them has visited (-1 where there is none)."""
    # A nearest neighbour with a list of exclusions of its own is a tracer of a one-point orbit.
    group_of = np.zeros(len(points), dtype=np.int64) if groups is None else groups
    for group in np.unique(group_of[path[rows, 0]]):
        members = np.flatnonzero(group_of == group)
        chosen = rows[group_of[path[rows, 0]] == group]
        local = np.full(len(points), -1, dtype=np.int64)
        local[members] = np.arange(len(members))
        targets = np.asarray(points[path[chosen, t - 1]], dtype=np.float64)[:, None]
        nearest, distance = best_tracers(points[None, members], targets, exclude=local[path[chosen, :t]])
        path[chosen, t] = np.where(nearest >= 0, members[nearest], -1)
        jumps[chosen, t - 1] = distance


def single_switch_orbits(values: np.ndarray, before: np.ndarray, after: np.ndarray, depth: np.ndarray) -> PseudoOrbits:
    """Orbits of image ``before`` up to depth k = ``depth`` and of ``after`` from k+1 on; all int64 (P,)."""
    depths = values.shape[0]
    path = np.where(np.arange(depths) <= depth[:, None], before[:, None], after[:, None])
    jumps = np.zeros((len(path), depths - 1))
    for k in np.unique(depth):
        rows = np.flatnonzero(depth == k)
        jumps[rows, k] = distances(values[k + 1, before[rows]], values[k + 1, after[rows]])
    return PseudoOrbits(path[:, 0].copy(), jumps, path=path)
