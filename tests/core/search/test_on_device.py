"""Searches on a device of torch, here its CPU: the answers of the compiled searches and of brute force, bit for bit."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.search import (
    REDUCTIONS,
    brute_force_closest_pairs,
    brute_force_nearest_neighbours,
    brute_force_nearest_of_other_groups,
    closest_pair,
    closest_pairs,
    merge,
    nearest_neighbours,
    nearest_of_other_groups,
)
from stabilitykit.search.device import nearest as device_nearest
from stabilitykit.search.device import pairs as device_pairs
from stabilitykit.search.device import where
from stabilitykit.search.device.canonical import measured
from stabilitykit.search.device.products import Factors, exact_products
from stabilitykit.search.device.where import device_of_searches, searchable, searching_on
from stabilitykit.search.synthetic import softmax_trajectory
from tests.core.search.cases import adversarial

CASES = adversarial()
FIELDS = ("value", "first", "second", "block")


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of several groups, bounds from a part of the images, candidates in several portions."""
    monkeypatch.setitem(device_pairs.TILE, "cpu", 37)
    monkeypatch.setattr(device_pairs, "LARGE", 100)
    monkeypatch.setattr(device_pairs, "PAIRS", 64)
    monkeypatch.setitem(device_nearest.ROWS, "cpu", 41)
    monkeypatch.setitem(device_nearest.COLUMNS, "cpu", 53)
    monkeypatch.setattr(device_nearest, "PAIRS", 500)


def assert_pairs_found(values, groups, reduction):
    expected = brute_force_closest_pairs(values, groups, reduction)
    with searching_on("cpu"):
        found = closest_pairs(values, groups, reduction)
        overall = closest_pair(values, groups, reduction)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(overall, expected.overall())


@pytest.mark.parametrize("name", CASES)
def test_pairs_of_small_tiles_equal_brute_force(small_tiles, name):
    values, groups = CASES[name]
    values, groups = values[:, :150], groups[:150]
    for reduction in REDUCTIONS:
        assert_pairs_found(values, groups, reduction)


def random_sample(data, dtype, images=20):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, images), st.integers(1, 4)))
    width = 64 if dtype == np.float64 else 32
    elements = st.one_of(
        st.integers(-2, 2).map(float), st.floats(-(2.0**100), 2.0**100, width=width, allow_subnormal=True)
    )
    values = data.draw(arrays.arrays(dtype, shape, elements=elements))
    return values, data.draw(arrays.arrays(np.int64, shape[1], elements=st.integers(0, 3)))


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(REDUCTIONS), st.sampled_from([np.float32, np.float64]))
def test_pairs_of_any_array(data, reduction, dtype):
    assert_pairs_found(*random_sample(data, dtype), reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shards_merge_to_the_whole(small_tiles, reduction):
    values, groups = CASES["sharp"]
    expected = closest_pairs(values, groups, reduction)
    with searching_on("cpu"):
        parts = [closest_pairs(values, groups, reduction, shard=(rank, 3)) for rank in range(3)]
    merged = functools.reduce(merge, parts)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(merged, name), getattr(expected, name), err_msg=name)


def assert_neighbours_found(values, groups, exclude):
    points = values[-1]
    for options in ({}, {"same_group": True}, {"other_group": True}):
        expected = brute_force_nearest_neighbours(points, groups=groups, exclude=exclude, **options)
        with searching_on("cpu"):
            found = nearest_neighbours(points, groups=groups, exclude=exclude, **options)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    with searching_on("cpu"):
        every = nearest_of_other_groups(values, groups)
    for reduction in REDUCTIONS:
        for a, b in zip(every[reduction], brute_force_nearest_of_other_groups(values, groups, reduction), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_neighbours_equal_brute_force(small_tiles, name):
    values, groups = CASES[name]
    values, groups = values[:, :120], groups[:120]
    count = values.shape[1]
    assert_neighbours_found(values, groups, np.random.default_rng(5).integers(-1, count, (count, 4)))


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_neighbours_of_any_array(data, dtype):
    values, groups = random_sample(data, dtype, images=12)
    count = len(groups)
    exclude = data.draw(arrays.arrays(np.int64, (count, 2), elements=st.integers(-1, count - 1)))
    assert_neighbours_found(values, groups, exclude)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e14]),
    st.sampled_from([1, 7, 300]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_no_pair_within_a_distance_exceeds_its_limit(seed, scale, readout, dtype):
    """The proof of the bounds, tried: near twins of large norm are where products lose all their digits."""
    random = np.random.default_rng(seed)
    points = scale * random.normal(size=(12, readout))
    points[6:] = points[:6] * (1 + 10.0 ** -random.integers(1, 17) * random.normal(size=(6, 1)))
    with exact_products():
        factors = Factors.of(torch.from_numpy(points), dtype)
        squares = factors.squared(slice(0, 6), slice(6, 12)).double().numpy()
        lengths = 2 * float(factors.squares.max())
    i, j = (x.ravel() for x in np.indices((6, 6)))
    distance, _ = measured(points[None], i, j + 6, "min")
    for square, apart in zip(squares.ravel(), distance, strict=True):
        assert square <= factors.limit(float(apart) * (1 + 1e-12), lengths)


def test_the_device_is_that_of_the_block_and_needs_room(monkeypatch):
    assert device_of_searches(1) is None
    with searching_on("cpu"):
        assert device_of_searches(2**60) == "cpu"
        with searching_on(None):
            assert device_of_searches(1) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * where.WORK_BYTES, 0))
    with searching_on("cuda:1"):
        assert device_of_searches(where.WORK_BYTES // 2) == "cuda:1"
        assert device_of_searches(where.WORK_BYTES // 2 + 1) is None
    assert device_of_searches(1) is None
    assert [searchable("cuda", 1), searchable("cuda"), searchable("cpu"), searchable("mps")] == [
        "cuda:1",
        "cuda",
        None,
        None,
    ]


def test_a_device_needs_the_torch_backend():
    values, groups = softmax_trajectory(20, 2)
    with pytest.raises(ValueError, match="only the torch backend"):
        closest_pairs(values, groups, device="cpu")
