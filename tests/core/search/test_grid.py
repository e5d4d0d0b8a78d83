"""The grid join: its keys never lie farther apart than images, and its answers are those of brute force."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.search import REDUCTIONS, brute_force_closest_pairs, closest_pair, closest_pairs
from stabilitykit.search.metric import CODES, reduced
from stabilitykit.search.pairs import grid, join, search
from stabilitykit.search.pairs.grid_kernels import (
    BLOCK,
    COMBINED,
    KEYS,
    block_near_in_all,
    block_near_in_sum,
    near_in_all,
    reach_of,
    sum_reach_of,
)
from stabilitykit.search.pairs.grid_keys import best_directions, depth_directions, grid_keys, mean_directions
from stabilitykit.search.synthetic import softmax_trajectory
from tests.core.search.test_margins import on_a_line
from tests.core.search.test_pairs import assert_found_by_any_threads, assert_same, assert_shards_merge

GRID = ("max", "mean")


@pytest.fixture
def solved(monkeypatch):
    """No pair of groups is left to the window join; the list holds, for every grid join, what it left to others."""
    found = []
    run = grid.Grid.run

    def recorded(self, wanted):
        left = run(self, wanted)
        found.append(left)
        return left

    monkeypatch.setattr(join, "MOST_CANDIDATES", -1)
    monkeypatch.setattr(grid.Grid, "run", recorded)
    yield found
    assert found


@pytest.mark.parametrize("reduction", GRID)
@pytest.mark.parametrize("offset", [0.0, -1.0, 1e6])
def test_keys_are_nearer_than_their_images_but_for_the_error(reduction, offset):
    """Along a line at every depth the keys lie as far apart as the images, so rounding alone decides."""
    broken = 0
    for seed in range(4):
        values = on_a_line(seed, 14, 5, depths=4, offset=offset)
        keys = grid_keys(values, np.arange(14) % 2, reduction, 1)
        columns = np.full((KEYS, 14 + BLOCK), np.inf, dtype=np.float32)
        columns[:, :14] = keys.keys.T
        for i in range(14):
            for j in range(i):
                value, _ = reduced(values, i, j, CODES[reduction])
                apart = np.abs(keys.keys[i].astype(np.float64) - keys.keys[j])
                apart = apart if reduction == "max" else apart[:COMBINED]
                assert apart.max() <= value + keys.error
                broken += apart.max() > value
                reach = reach_of(value, keys.error)
                assert near_in_all(columns, i, columns, j, KEYS if reduction == "max" else COMBINED, reach)
                if reduction == "max":
                    near = [block_near_in_all(columns, i, columns, j, early, reach) for early in range(1, 8)]
                else:
                    near = [block_near_in_sum(columns, i, columns, j, sum_reach_of(value, keys.error, 4))]
                assert all(bits & 1 for bits in near)
    assert broken  # without a margin, pairs would be lost


@pytest.mark.parametrize("count", grid.CELL_KEYS)
@pytest.mark.parametrize("reduction", GRID)
def test_any_number_of_keys_gives_the_same_pairs(monkeypatch, solved, reduction, count):
    monkeypatch.setattr(grid, "CELL_KEYS", (count,))
    assert_found_by_any_threads(*softmax_trajectory(500, 6, gain=3, noise=0.1, seed=count), reduction)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depths=st.integers(1, 13),
    images=st.integers(2, 90),
    readout=st.integers(1, 5),
    groups=st.integers(1, 4),
    decimals=st.sampled_from([0, 1, 16]),
    scale=st.sampled_from([1e-200, 1e-30, 1.0, 1e8, 1e40]),
    copies=st.sampled_from([1, 2, 5]),
    single=st.booleans(),
)
def test_any_trajectory(seed, depths, images, readout, groups, decimals, scale, copies, single):
    """Ties on a lattice, identical images, sizes that underflow or are too large, groups without images."""
    random = np.random.default_rng(seed)
    values = np.round(random.normal(size=(depths, -(-images // copies), readout)), decimals)
    values = np.tile(values, (1, copies, 1))[:, :images] * scale
    if single and scale < 1e30:
        values = values.astype(np.float32)
    kinds = random.choice([0, 2, 3, 5][:groups], images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join, "MOST_CANDIDATES", -1)
        for reduction in GRID:
            expected = brute_force_closest_pairs(values, kinds, reduction, 6)
            for threads in (1, 2):
                assert_same(closest_pairs(values, kinds, reduction, 6, threads=threads), expected)
            np.testing.assert_equal(closest_pair(values, kinds, reduction), expected.overall())


@pytest.mark.parametrize("reduction", GRID)
def test_equal_distances_keep_the_lowest_images(solved, reduction):
    """All pairs of different groups are equally far apart, and every image occurs three times."""
    values = np.tile(np.eye(12), (3, 1, 1))
    values, groups = np.tile(values, (1, 3, 1)), np.tile(np.arange(12) % 4, 3)
    assert_found_by_any_threads(values, groups, reduction)
    assert closest_pair(values, groups, reduction)[1:3] == (0, 1)


@pytest.mark.parametrize("reduction", GRID)
def test_shards_merge_to_the_whole(solved, reduction):
    assert_shards_merge(*softmax_trajectory(300, 4, gain=3, classes=4), reduction)


@pytest.mark.parametrize("reduction", GRID)
def test_too_many_candidates_are_left_to_other_methods(monkeypatch, solved, reduction):
    monkeypatch.setattr(grid, "MOST_CANDIDATES", -1)
    assert_found_by_any_threads(*softmax_trajectory(300, 4, gain=3, classes=4), reduction)
    assert all(left.any() for left in solved)


@pytest.mark.parametrize("reduction", GRID)
def test_guesses_below_the_answer_cost_no_pair(monkeypatch, solved, reduction):
    """With bounds from a part of the images, and a first guess far too low."""
    monkeypatch.setattr(search, "LARGE", 1000)
    monkeypatch.setattr(grid, "FIRST_GUESS", 1e-3)
    assert_found_by_any_threads(*softmax_trajectory(2048, 5, gain=3, classes=3, seed=5), reduction)
    assert not any(left.any() for left in solved)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_sorting_on_threads(threads):
    random = np.random.default_rng(threads)
    for codes in (random.integers(0, 50, 1 << 15), random.integers(0, 2**60, 1 << 15), np.zeros(1 << 15, dtype=int)):
        order = grid.argsort(codes, threads)
        np.testing.assert_array_equal(np.sort(order), np.arange(len(codes)))
        np.testing.assert_array_equal(codes[order], np.sort(codes))


def test_memory_stays_near_two_rows_of_keys_an_image(solved):
    values, groups = softmax_trajectory(12_000, 4, gain=3)
    closest_pair(values[:, :500].copy(), groups[:500], "max")
    tracemalloc.start()
    closest_pair(values, groups, "max", threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500 * len(groups)


@pytest.mark.parametrize("reduction", GRID)
def test_bits_of_a_block_are_its_images(reduction):
    """Each bit says of its own image what the keys of that pair say."""
    random = np.random.default_rng(0)
    columns = random.normal(size=(KEYS, 60 + BLOCK)).astype(np.float32)
    for p in range(20):
        for start in range(60):
            apart = np.abs(columns[:, start : start + BLOCK] - columns[:, p : p + 1])
            if reduction == "max":
                reach, early = np.float32(1.0), 1 + p % 7
                expected = apart[early : early + 4].max(axis=0) <= reach
                bits = block_near_in_all(columns, p, columns, start, early, reach)
            else:
                reach = np.float32(10.0)
                expected = apart[COMBINED:].sum(axis=0, dtype=np.float64) <= reach
                bits = block_near_in_sum(columns, p, columns, start, reach)
            assert [(bits >> n) & 1 for n in range(BLOCK)] == expected.astype(int).tolist()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depths=st.integers(1, 6),
    readout=st.integers(1, 5),
    decimals=st.sampled_from([0, 1, 16]),
    reduction=st.sampled_from(GRID),
)
def test_directions_are_as_long_as_the_distance_allows(seed, depths, readout, decimals, reduction):
    """Under "max" a unit vector at one depth, under "mean" at most 1 / depths at each: so keys are 1-Lipschitz."""
    sample = np.round(np.random.default_rng(seed).normal(size=(depths, 12, readout)), decimals)
    one, two = np.triu_indices(12, 1)
    proposed = depth_directions if reduction == "max" else mean_directions
    norms = np.linalg.norm(best_directions(sample, one, two, 0.0, 5, proposed), axis=2)
    if reduction == "max":
        assert ((norms > 1e-9).sum(axis=1) <= 1).all() and norms.max() <= 1 + 1e-13
    else:
        assert norms.max() <= (1 + 1e-13) / depths


def test_each_key_leaves_fewer_pairs_within_reach():
    """Two clusters at each depth, split differently: the first two keys tell all four kinds of image apart."""
    random = np.random.default_rng(0)
    values = 0.01 * random.normal(size=(2, 40, 3))
    values[0, :, 0] += np.arange(40) % 2
    values[1, :, 1] += np.arange(40) // 2 % 2
    one, two = np.triu_indices(40, 1)
    directions = best_directions(values, one, two, 0.1, 2, depth_directions)
    keys = np.einsum("tik,mtk->im", values, directions)
    near = (np.abs(keys[one] - keys[two]) <= 0.1).all(axis=1)
    np.testing.assert_array_equal(near, one % 4 == two % 4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), decimals=st.sampled_from([0, 1, 16]), reduction=st.sampled_from(REDUCTIONS))
def test_known_pairs_change_no_answer(seed, decimals, reduction):
    """Near or far, of one group or two, the answer itself or none."""
    random = np.random.default_rng(seed)
    values = np.round(random.normal(size=(3, 40, 3)), decimals)
    groups = random.integers(0, 3, 40)
    expected = brute_force_closest_pairs(values, groups, reduction).overall()
    pairs = [tuple(pair) for pair in random.integers(0, 40, (3, 2)).tolist()]
    for known in (pairs, [(expected.first, expected.second)], [(expected.second, expected.first), *pairs]):
        found = closest_pair(values, groups, reduction, backend="numba", known=known)
        np.testing.assert_equal(found, expected)
