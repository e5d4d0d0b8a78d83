"""Nearest images of other groups: every answer is brute force's to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.search import brute_force_nearest_of_other_groups, nearest_of_other_groups
from stabilitykit.search.nearest import queries
from stabilitykit.search.nearest.screened import nearest_by_products

REDUCTIONS = ("min", "max", "mean")


def agree(values: np.ndarray, groups: np.ndarray) -> None:
    ways = [nearest_of_other_groups(values, groups, threads=1)]
    ways.append(nearest_by_products(values, groups.astype(np.int64), REDUCTIONS))
    for reduction in REDUCTIONS:
        index, distance = brute_force_nearest_of_other_groups(values, groups, reduction)
        for found in ways:
            assert np.array_equal(found[reduction][0], index), reduction
            assert np.array_equal(found[reduction][1], distance, equal_nan=True), reduction


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from(["float32", "float64"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_trees_and_products_give_what_brute_force_gives(images, depths, readout, kinds, dtype, coarse, seed) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(depths, images, readout)).astype(dtype)
    if coarse:  # many ties and identical trajectories
        values = np.round(values)
    agree(values, rng.integers(0, kinds, images))


def test_tiny_huge_and_blind_readouts() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 3, 80)
    for scale in (1e-160, 1e-20, 1e100):
        agree(scale * rng.normal(size=(3, 80, 4)), groups)
    values = rng.normal(size=(3, 80, 4))
    values[1] = values[1, :1]
    agree(values, groups)
    offset = 1e3 + 1e-9 * rng.normal(size=(2, 80, 60))
    agree(offset, groups)


def test_boxes_of_some_depths_and_long_readouts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    values = np.round(2 * rng.normal(size=(4, 150, 3)))
    values[:, 50:] = values[:, :1]
    values[2, 50:] = rng.normal(size=(100, 3))  # identical but at one depth
    groups = rng.integers(0, 4, 150)
    monkeypatch.setattr(queries, "BOX_BYTES", 2 * 150 * 3 * 8)
    agree(values, groups)
    agree(rng.normal(size=(3, 90, 64)).astype(np.float32), rng.integers(0, 5, 90))
    huge = nearest_of_other_groups(1e145 * rng.normal(size=(2, 20, 50)), np.arange(20) % 2)
    assert all(np.isfinite(distance).all() and (index >= 0).all() for index, distance in huge.values())


def test_bad_questions_are_refused() -> None:
    values = np.zeros((2, 3, 2))
    with pytest.raises(ValueError, match="got 'median'"):
        nearest_of_other_groups(values, np.zeros(3, dtype=int), ("median",))
    with pytest.raises(ValueError, match="one group per image"):
        nearest_of_other_groups(values, np.zeros(2, dtype=int))
    alone = nearest_of_other_groups(values, np.zeros(3, dtype=int))
    assert all((index == -1).all() and np.isnan(distance).all() for index, distance in alone.values())
