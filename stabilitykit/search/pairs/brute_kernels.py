"""Brute force in numba: every pair, every depth, nothing skipped. The references of the fast searches."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.metric import reduced, squared

TILE = 256


@jit
def closest_pairs_of_tiles(
    values: np.ndarray,
    groups: np.ndarray,
    code: int,
    rank: int,
    world: int,
    best: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    block: np.ndarray,
) -> None:
    """Fill the upper triangle (a < b) of the four (groups, groups) arrays from every world-th tile row.

    values (depths, images, readout) float32 or float64; groups (images,) int64.
    best is float64; first, second, block are int64.
    """
    images = values.shape[1]
    tiles = (images + TILE - 1) // TILE
    for row in range(rank, tiles, world):
        for column in range(row, tiles):
            for i in range(row * TILE, min(images, (row + 1) * TILE)):
                for j in range(max(i + 1, column * TILE), min(images, (column + 1) * TILE)):
                    if groups[i] == groups[j]:
                        continue
                    a = min(groups[i], groups[j])
                    b = max(groups[i], groups[j])
                    value, where = reduced(values, i, j, code)
                    old = best[a, b]
                    if (
                        first[a, b] < 0
                        or value < old
                        or (value == old and (i < first[a, b] or (i == first[a, b] and j < second[a, b])))
                    ):
                        best[a, b] = value
                        first[a, b] = i
                        second[a, b] = j
                        block[a, b] = where


@jit
def nearest_of_rows(
    points: np.ndarray,
    groups: np.ndarray,
    relation: int,
    exclude: np.ndarray,
    start: int,
    stop: int,
    index: np.ndarray,
    distance: np.ndarray,
) -> None:
    """For images start..stop-1 the nearest other one; relation 0: any, 1: same group, 2: other group.

    points (images, readout) float32 or float64; groups (images,), exclude (images, m) int64.
    index int64, distance float64, both (images,), are filled.
    """
    for i in range(start, stop):
        nearest = -1
        smallest = np.inf
        for j in range(points.shape[0]):
            if j == i:
                continue
            if relation == 1 and groups[i] != groups[j]:
                continue
            if relation == 2 and groups[i] == groups[j]:
                continue
            barred = False
            for m in range(exclude.shape[1]):
                if exclude[i, m] == j:
                    barred = True
            if barred:
                continue
            d = np.sqrt(squared(points[i], points[j]))
            if nearest < 0 or d < smallest:
                smallest = d
                nearest = j
        index[i] = nearest
        distance[i] = smallest if nearest >= 0 else np.nan


@jit
def best_tracers_of_rows(
    values: np.ndarray,
    targets: np.ndarray,
    exclude: np.ndarray,
    start: int,
    stop: int,
    index: np.ndarray,
    eps: np.ndarray,
) -> None:
    """For the target orbits start..stop-1, shape (P, T1, K), the image whose trajectory stays nearest.

    values (depths, images, readout) float32 or float64; targets float32 or float64; exclude (P, m) int64.
    index int64, eps float64, both (P,), are filled.
    """
    for p in range(start, stop):
        nearest = -1
        smallest = np.inf
        for x in range(values.shape[1]):
            barred = False
            for m in range(exclude.shape[1]):
                if exclude[p, m] == x:
                    barred = True
            if barred:
                continue
            largest = 0.0
            for t in range(values.shape[0]):
                d = np.sqrt(squared(values[t, x], targets[p, t]))
                if d > largest:
                    largest = d
            if nearest < 0 or largest < smallest:
                smallest = largest
                nearest = x
        index[p] = nearest
        eps[p] = smallest if nearest >= 0 else np.nan
