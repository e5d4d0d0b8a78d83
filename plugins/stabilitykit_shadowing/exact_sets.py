"""Which images some continuation of a pseudo-orbit escapes: the sets K of the exact s(eps) (mathematics: 4).

A set of images is a row of bits, 64 to a word; bits past the last image are 1 ("escaped"), so that a full row is all
ones. Distances are those of the search, to the last bit: squares summed in the order of the readout, in float64.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stabilitykit.search.device.where import device_of_searches
from stabilitykit.search.parallel import run, spans, thread_count

if TYPE_CHECKING:
    from stabilitykit.search.trees.tree import Forest
    from stabilitykit_shadowing.exact_device import DeviceSets

# Up to so many images numpy takes less time than loading and running compiled code, with a table of at most so many
# bytes and so many differences of coordinates behind it.
DENSE = 1200
TABLE_BYTES = 2**28
TABLE_WORK = 200_000_000
_LEAF = 16
_FULL = np.uint64(2**64 - 1)


class Distances:
    """Squared distances within a sample, and trees over its depths.

    Arguments:
        values: (T+1, N, K), finite.
        threads: default all cores.
    """

    def __init__(self, values: np.ndarray, threads: int | None = None) -> None:
        self.depths, self.images, self.readout = values.shape
        self.columns = np.ascontiguousarray(np.asarray(values, dtype=np.float64).transpose(0, 2, 1))
        self.threads = thread_count(threads)
        self._trees: dict[int, Forest] = {}

    @property
    def dense(self) -> bool:
        """Is the sample small enough for ``table``?"""
        numbers = self.depths * self.images**2
        return self.images <= DENSE and 8 * numbers <= TABLE_BYTES and numbers * self.readout <= TABLE_WORK

    @cached_property
    def on_device(self) -> DeviceSets | None:
        """The sample on the device of the searches; None where these run on the CPU, or have no room there."""
        # Beside the columns: the sets of one depth as bfloat16.
        device = device_of_searches(self.columns.nbytes + 2 * self.images**2)
        if device is None:
            return None
        from stabilitykit_shadowing.exact_device import DeviceSets

        return DeviceSets(self.columns, device)

    def squares(self, t: int, i: int) -> np.ndarray:
        """Squared distances of all images from image i at depth t -> float64 (N,)."""
        found = np.zeros(self.images)
        for column in self.columns[t]:
            found += np.square(column - column[i])
        return found

    @cached_property
    def table(self) -> np.ndarray:
        """All of them, float64 (T+1, N, N): for small samples."""
        found = np.zeros((self.depths, self.images, self.images))
        for t in range(self.depths):
            for column in self.columns[t]:
                found[t] += np.square(column[:, None] - column)
        return found

    def tree(self, t: int) -> Forest:
        """Boxes around images that are near each other at depth t."""
        from stabilitykit.search.trees.tree import grow

        if t not in self._trees:
            points = np.ascontiguousarray(self.columns[t].T)[None]
            every, ends = np.arange(self.images), np.array([0, self.images])
            self._trees[t] = grow(points, every, ends, np.zeros(1, np.int64), leaf=_LEAF, copies=True)
        return self._trees[t]


def largest_square(distance: float) -> float:
    """The largest float64 whose square root is at most ``distance`` >= 0: d <= distance as a test of d squared."""
    if math.isinf(distance):
        return distance
    square = distance * distance
    while math.sqrt(square) > distance:
        square = math.nextafter(square, 0.0)
    while math.sqrt(math.nextafter(square, np.inf)) <= distance:
        square = math.nextafter(square, np.inf)
    return float(square)


def far_sets(distances: Distances, eps: float) -> np.ndarray:
    """The images farther than eps from image i at depth t -> uint64 (T+1, N, words)."""
    limit = largest_square(eps)
    if distances.on_device is not None:
        return distances.on_device.far_sets(limit)
    if distances.dense:
        return packed(distances.table > limit)
    from stabilitykit_shadowing.exact_kernels import far_rows

    sets = np.empty((distances.depths, distances.images, words_of(distances.images)), dtype=np.uint64)

    def work(span: tuple[int, int]) -> None:
        far_rows(distances.columns, *span, limit, sets)

    run(work, spans(distances.images, 16 * distances.threads), distances.threads)
    return sets


def escapable_sets(distances: Distances, far: np.ndarray, delta: float) -> np.ndarray:
    """K: the images that some continuation from image i at depth t escapes, with jumps up to delta.

    K_T(i) = far_T(i); K_t(i) = far_t(i) united with K_{t+1}(j) of all j within delta of i at depth t+1.

    Arguments:
        far: uint64 (T+1, N, words), of ``far_sets``.

    Returns:
        uint64 of the same shape.
    """
    limit = largest_square(delta)
    if distances.on_device is not None:
        return distances.on_device.escapable_sets(far, limit)
    found = np.empty_like(far)
    found[-1] = far[-1]
    for t in range(distances.depths - 2, -1, -1):
        if distances.dense:
            found[t] = _unite_small(distances.table[t + 1] <= limit, far[t], found[t + 1])
        else:
            _unite(distances, t + 1, limit, far[t], found[t + 1], found[t])
    return found


def _unite_small(near: np.ndarray, own: np.ndarray, following: np.ndarray) -> np.ndarray:
    """own[i] united with the rows ``following`` of all images near i, bool (N, N)."""
    found = own | following  # everyone is near itself
    for i in np.flatnonzero(near.sum(axis=1) > 1):
        found[i] |= np.bitwise_or.reduce(following[near[i]], axis=0)
    return found


def _unite(
    distances: Distances, t: int, limit: float, own: np.ndarray, following: np.ndarray, found: np.ndarray
) -> None:
    from stabilitykit_shadowing.exact_kernels import unite_nodes, unite_rows

    tree = distances.tree(t)
    order, start, stop, child, low, high = tree.arrays
    assert (child[child >= 0] > np.flatnonzero(child >= 0)).all()
    nodes = np.empty((len(start), following.shape[1]), dtype=np.uint64)
    unite_nodes(following, order, start, stop, child, nodes)
    points = np.ascontiguousarray(distances.columns[t].T)

    def work(span: tuple[int, int]) -> None:
        unite_rows(*span, points, limit, own, following, nodes, order, start, stop, child, low, high, found)

    run(work, spans(distances.images, 16 * distances.threads), distances.threads)


def words_of(images: int) -> int:
    """Words of 64 bits that hold one bit per image."""
    return -(-images // 64)


def packed(bits: np.ndarray) -> np.ndarray:
    """bool (..., N) as words (..., words); bits past the last image are 1."""
    size = bits.shape[-1]
    padded = np.ones((*bits.shape[:-1], 64 * words_of(size)), dtype=bool)
    padded[..., :size] = bits
    return np.packbits(padded, axis=-1, bitorder="little").view(np.dtype("<u8")).astype(np.uint64, copy=False)


def unpacked(rows: np.ndarray, size: int) -> np.ndarray:
    """Words (..., words) as uint8 0 or 1 (..., size)."""
    octets = np.ascontiguousarray(rows).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=size, bitorder="little")


def is_full(rows: np.ndarray) -> np.ndarray:
    """Which rows (..., words) hold every image -> bool (...)."""
    return (rows == _FULL).all(axis=-1)


def count(rows: np.ndarray) -> np.ndarray:
    """How many bits of rows (..., words) are 1 -> int64 (...)."""
    return unpacked(rows, 64 * rows.shape[-1]).sum(axis=-1, dtype=np.int64)


def members(row: np.ndarray) -> np.ndarray:
    """The places of the ones in a row (words,) -> int64."""
    return np.flatnonzero(unpacked(row, 64 * len(row)))


def votes(rows: np.ndarray) -> np.ndarray:
    """In how many of the rows (M, words) each place is 1 -> int64 (64 words,)."""
    return unpacked(rows, 64 * rows.shape[-1]).sum(axis=0, dtype=np.int64)
