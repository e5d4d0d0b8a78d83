"""What a pair search returns, and how partial answers are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

REDUCTIONS = ("min", "max", "mean")


class ClosestPair(NamedTuple):
    """The closest pair of images of different groups.

    `value` is NaN and the rest -1 where no such pair exists.
    """

    value: float
    first: int
    second: int
    block: int


@dataclass(frozen=True)
class ClosestPairs:
    """The closest pair for every two groups, under one reduction over the depths.

    Attributes (all of shape (num_groups, num_groups), symmetric; NaN or -1 where there is no pair,
    hence on the diagonal):
        value: float64, the reduced distance, in units of the readout.
        first, second: int64, the two images, `first < second` (dataset indices, not indices within a group).
            Of pairs with the same value the lexicographically smallest (first, second) is kept.
        block: int64. min: the depth of the smallest distance; max: of the largest; mean: of the smallest
            (the moment at which the pair is nearest). Of equal depths the smallest.
        reduction: "min", "max" or "mean".
    """

    value: np.ndarray
    first: np.ndarray
    second: np.ndarray
    block: np.ndarray
    reduction: str

    @property
    def num_groups(self) -> int:
        return int(self.value.shape[0])

    def overall(self) -> ClosestPair:
        """The closest of all pairs: smallest value, then lowest (first, second)."""
        found = np.flatnonzero(self.first.ravel() >= 0)
        if not len(found):
            return ClosestPair(float("nan"), -1, -1, -1)
        value, first, second = (x.ravel()[found] for x in (self.value, self.first, self.second))
        best = found[np.lexsort((second, first, value))[0]]
        row, column = divmod(int(best), self.num_groups)
        return ClosestPair(
            float(self.value[row, column]),
            int(self.first[row, column]),
            int(self.second[row, column]),
            int(self.block[row, column]),
        )


def merge(left: ClosestPairs, right: ClosestPairs) -> ClosestPairs:
    """The better answer for every two groups; associative and commutative.

    Merging the answers of all shards (`closest_pairs(..., shard=(rank, world))`) gives exactly the answer
    of one unsharded search.

    Raises:
        ValueError: the two differ in reduction or number of groups.
    """
    if left.reduction != right.reduction or left.num_groups != right.num_groups:
        raise ValueError(
            f"expected two answers to one question, got {left.reduction!r} over {left.num_groups} groups "
            f"and {right.reduction!r} over {right.num_groups} groups"
        )
    empty_left, empty_right = left.first < 0, right.first < 0
    smaller = right.value < left.value
    equal = right.value == left.value
    lower = (right.first < left.first) | ((right.first == left.first) & (right.second < left.second))
    take = ~empty_right & (empty_left | smaller | (equal & lower))
    return ClosestPairs(
        value=np.where(take, right.value, left.value),
        first=np.where(take, right.first, left.first),
        second=np.where(take, right.second, left.second),
        block=np.where(take, right.block, left.block),
        reduction=left.reduction,
    )
