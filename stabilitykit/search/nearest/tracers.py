"""The true orbit that stays nearest to a pseudo-orbit (Definition 2: tracing)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stabilitykit.search.arrays import as_exclusions, as_values, check_finite
from stabilitykit.search.parallel import run, spans, thread_count

if TYPE_CHECKING:
    from stabilitykit.search.nearest.queries import TracingIndex


def tracing_index(values: np.ndarray, *, threads: int | None = None) -> TracingIndex:
    """An index of `values` that serves any number of calls of `best_tracers`.

    Arguments:
        values: (depths, images, readout) float32 or float64, may be memory-mapped; the index refers to it.
        threads: default all cores.

    Raises:
        ValueError: an array of wrong shape or dtype, without images, or with numbers that are not finite or exceed
            1e150 in magnitude.
    """
    from stabilitykit.search.nearest.queries import index_of

    values = as_values(values)
    if not values.shape[1]:
        raise ValueError("values: expected at least one image")
    return index_of(values, thread_count(threads))


def best_tracers(
    values: np.ndarray | TracingIndex,
    orbits: np.ndarray,
    *,
    exclude_constant: bool = True,
    exclude: np.ndarray | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """For every pseudo-orbit p the image x with the smallest max over t of d(G[t, x], Y[p, t]).

    Arguments:
        values: G, (depths, images, readout) float32 or float64, may be memory-mapped; or its `tracing_index`.
        orbits: (P, depths) integers, Y[p, t] = G[t, orbits[p, t]]; or (P, depths, readout) floats, Y itself.
        exclude_constant: an integer orbit that stays at one image x is the true orbit of x; its own x is
            then not a tracer of it. No effect on other orbits or on orbits given as readouts.
        exclude: (P, m) integers, images that may not trace p (say, its start: `orbits[:, :1]`); negative
            entries are ignored.
        threads: default all cores.

    Returns:
        tracer (P,) int64 (the lowest index of equally good ones) and eps (P,) float64; -1 and NaN where
        every image is excluded.

    Raises:
        ValueError: arrays of wrong shape or dtype, image numbers out of range, or numbers that are not finite or
            exceed 1e150 in magnitude.
    """
    from stabilitykit.search.nearest.queries import TracingIndex, answer, index_of

    workers = thread_count(threads)
    index = values if isinstance(values, TracingIndex) else None
    values = as_values(values) if not isinstance(values, TracingIndex) else values.values
    targets, barred = tracing_problem(values, orbits, exclude_constant, exclude)
    if not len(targets) or not values.shape[1]:
        return np.full(len(targets), -1, dtype=np.int64), np.full(len(targets), np.nan)
    # The images of an integer orbit are near it: each shares a moment with it.
    own = np.asarray(orbits) if np.ndim(orbits) == 2 else np.zeros((len(targets), 0))
    return answer(
        targets,
        index or index_of(values, workers),
        exclude=barred,
        hints=np.ascontiguousarray(own, dtype=np.int64),
        threads=workers,
    )


def brute_force_best_tracers(
    values: np.ndarray,
    orbits: np.ndarray,
    *,
    exclude_constant: bool = True,
    exclude: np.ndarray | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`best_tracers` by looking at every image for every orbit: the reference.

    Arguments, results and errors are those of `best_tracers`; `values` (depths, images, readout) is an array of
    a real dtype.
    """
    from stabilitykit.search.pairs.brute_kernels import best_tracers_of_rows

    values = as_values(values)
    targets, barred = tracing_problem(values, orbits, exclude_constant, exclude)
    count = len(targets)
    index = np.full(count, -1, dtype=np.int64)
    eps = np.full(count, np.nan)
    workers = thread_count(threads)

    def work(span: tuple[int, int]) -> None:
        best_tracers_of_rows(values, targets, barred, *span, index, eps)

    run(work, spans(count, workers), workers)
    return index, eps


def tracing_problem(
    values: np.ndarray, orbits: np.ndarray, exclude_constant: bool, exclude: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The targets Y (P, depths, readout), float32 or float64, and the excluded images (P, m) int64 of `best_tracers`.

    Raises:
        ValueError: `orbits` has another shape or dtype, or names an image that does not exist.
    """
    orbits = np.asarray(orbits)
    depths, images, readout = values.shape
    if orbits.ndim == 3 and orbits.shape[1:] == (depths, readout) and orbits.dtype.kind == "f":
        targets = np.ascontiguousarray(orbits, dtype=np.result_type(orbits.dtype, np.float32))
        check_finite(targets.transpose(1, 0, 2).copy(), "orbits")
        return targets, as_exclusions(exclude, len(targets))
    if orbits.ndim != 2 or orbits.shape[1] != depths or orbits.dtype.kind not in "iu":
        raise ValueError(
            f"orbits: expected integers of shape (P, {depths}) or floats of shape (P, {depths}, {readout}), "
            f"got {orbits.dtype} of shape {orbits.shape}"
        )
    if orbits.size and (orbits.min() < 0 or orbits.max() >= images):
        bad = int(np.flatnonzero(((orbits < 0) | (orbits >= images)).any(axis=1))[0])
        raise ValueError(f"orbits: expected image numbers in [0, {images}), got {orbits[bad].tolist()} (orbit {bad})")
    targets = np.ascontiguousarray(values[np.arange(depths), orbits])
    barred = as_exclusions(exclude, len(targets))
    if exclude_constant:
        constant = (orbits == orbits[:, :1]).all(axis=1)
        barred = np.column_stack([barred, np.where(constant, orbits[:, 0], -1)])
    return targets, np.ascontiguousarray(barred, dtype=np.int64)
