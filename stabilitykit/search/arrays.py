"""Checks on the arrays that enter a search."""

from __future__ import annotations

import numpy as np

# Squares of differences of larger numbers overflow float64, and every distance would be infinite.
LARGEST = 1e150
_CHUNK = 1 << 22


def as_values(values: np.ndarray, name: str = "values", ndim: int = 3, finite: bool = True) -> np.ndarray:
    """`values` as a C-contiguous float32 or float64 array, without a copy where it already is one.

    Memory-mapped arrays stay mapped. Half precision and integers are widened exactly.

    Arguments:
        values: (depths, images, readout), or (images, readout) if ``ndim`` is 2; any real dtype.
        finite: look at every number; otherwise the caller does, with `check_finite`.

    Raises:
        ValueError: wrong number of dimensions, an empty axis, or a number that is not finite or exceeds
            1e150 in magnitude; the message names image and depth.
    """
    array = np.asanyarray(values)
    shape = "(depths, images, readout)" if ndim == 3 else "(images, readout)"
    if array.ndim != ndim:
        raise ValueError(f"{name}: expected an array of shape {shape}, got shape {array.shape}")
    if array.shape[0] == 0 or array.shape[-1] == 0:
        raise ValueError(f"{name}: expected an array of shape {shape} with no empty axis, got {array.shape}")
    if array.dtype not in (np.float32, np.float64):
        wide = np.float32 if array.dtype == np.float16 else np.float64
        array = array.astype(wide)
    array = np.ascontiguousarray(array)
    if finite:
        check_finite(array, name)
    return array


def check_finite(array: np.ndarray, name: str) -> None:
    """Look at every number of a float32 or float64 array (..., images, readout).

    Raises:
        ValueError: the first NaN, infinity or magnitude above 1e150; the message names image and depth.
    """
    flat = array.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK]
        # Two reductions without a temporary; a NaN makes the comparison false.
        if float(part.min()) >= -LARGEST and float(part.max()) <= LARGEST:
            continue
        bad = int(start + np.flatnonzero(~(np.abs(part.astype(np.float64)) <= LARGEST))[0])
        place = np.unravel_index(bad, array.shape)
        where = f"image {place[-2]}"
        if array.ndim == 3:
            where += f" at depth {place[0]}"
        raise ValueError(
            f"{name}: expected finite numbers of magnitude at most {LARGEST:g}, "
            f"got {flat[bad]} for {where} (readout coordinate {place[-1]}); "
            "look at that image's readout before searching"
        )


def as_groups(groups: np.ndarray, num_images: int, num_groups: int | None) -> tuple[np.ndarray, int]:
    """`groups`, integers (images,), as an int64 array (images,), and the number of groups.

    Raises:
        ValueError: wrong shape, not integers, or a group outside [0, num_groups).
    """
    array = np.asarray(groups)
    if array.shape != (num_images,):
        raise ValueError(f"groups: expected one group per image, shape ({num_images},), got {array.shape}")
    if array.dtype.kind not in "iub":
        raise ValueError(f"groups: expected integers, got {array.dtype}")
    array = np.ascontiguousarray(array, dtype=np.int64)
    largest = int(array.max()) if num_images else -1
    if num_groups is None:
        num_groups = largest + 1
    if num_images and (array.min() < 0 or largest >= num_groups):
        bad = int(np.flatnonzero((array < 0) | (array >= num_groups))[0])
        raise ValueError(f"groups: expected numbers in [0, {num_groups}), got {array[bad]} for image {bad}")
    return array, int(num_groups)


def as_exclusions(exclude: np.ndarray | None, num_queries: int, name: str = "exclude") -> np.ndarray:
    """`exclude` as an int64 array (queries, m) whose negative numbers exclude nothing; (queries, 0) for None.

    Raises:
        ValueError: not integers, or not one row per query.
    """
    if exclude is None:
        return np.zeros((num_queries, 0), dtype=np.int64)
    array = np.asarray(exclude)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[0] != num_queries or array.dtype.kind not in "iub":
        raise ValueError(
            f"{name}: expected integers of shape ({num_queries}, m), one row of excluded images per query, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)
