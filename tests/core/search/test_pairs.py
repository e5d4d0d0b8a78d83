"""The fast pair search against brute force, bit for bit, and laws of the constants."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.search import REDUCTIONS, ClosestPairs, brute_force_closest_pairs, closest_pair, closest_pairs, merge
from stabilitykit.search.pairs import dense, join, state
from stabilitykit.search.pairs import search as pair_search
from stabilitykit.search.synthetic import softmax_trajectory
from tests.core.search.cases import adversarial

CASES = adversarial()
FIELDS = ("value", "first", "second", "block")


def assert_same(left: ClosestPairs, right: ClosestPairs) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def assert_found_by_any_threads(values: np.ndarray, groups: np.ndarray, reduction: str) -> None:
    """Class matrix and overall pair equal brute force, on one thread and on two."""
    expected = brute_force_closest_pairs(values, groups, reduction)
    for threads in (1, 2):
        assert_same(closest_pairs(values, groups, reduction, threads=threads), expected)
        assert closest_pair(values, groups, reduction, threads=threads) == expected.overall()


def assert_shards_merge(values: np.ndarray, groups: np.ndarray, reduction: str) -> None:
    """The merged answers of two and of five shards equal brute force."""
    expected = brute_force_closest_pairs(values, groups, reduction)
    for world in (2, 5):
        parts = [closest_pairs(values, groups, reduction, shard=(rank, world)) for rank in range(world)]
        assert_same(functools.reduce(merge, parts), expected)


def naive(values: np.ndarray, groups: np.ndarray, reduction: str) -> tuple[float, int, int]:
    """The overall closest pair in plain Python loops over canonical sums."""
    best = (np.inf, -1, -1)
    for i in range(values.shape[1]):
        for j in range(i + 1, values.shape[1]):
            if groups[i] == groups[j]:
                continue
            distances = []
            for t in range(len(values)):
                total = 0.0
                for a, b in zip(values[t, i].tolist(), values[t, j].tolist(), strict=True):
                    total += (a - b) * (a - b)
                distances.append(float(np.sqrt(total)))
            value = {"min": min(distances), "max": max(distances), "mean": sum(distances) / len(values)}[reduction]
            best = min(best, (value, i, j))
    return best


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force_bit_for_bit(monkeypatch, name, reduction, joins):
    """With all methods, and with the window join leaving everything to sweeps and trees."""
    values, groups = CASES[name]
    if not joins:
        monkeypatch.setattr(join, "MOST_CANDIDATES", -1)
    expected = brute_force_closest_pairs(values, groups, reduction)
    assert_same(closest_pairs(values, groups, reduction), expected)
    assert closest_pair(values, groups, reduction) == expected.overall()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["sharp", "grid", "identical", "underflow"])
def test_brute_force_equals_plain_python(name, reduction):
    values, groups = CASES[name]
    values, groups = values[:, :80], groups[:80]
    assert brute_force_closest_pairs(values, groups, reduction).overall()[:3] == naive(values, groups, reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["unsure", "saturated", "grid", "duplicates", "identical", "long readout"])
def test_shards_merge_to_the_whole(name, reduction):
    values, groups = CASES[name]
    whole = closest_pairs(values, groups, reduction)
    for world in (2, 3, 7):
        parts = [closest_pairs(values, groups, reduction, shard=(rank, world)) for rank in range(world)]
        left = parts[0]
        for part in parts[1:]:
            left = merge(left, part)
        right = parts[-1]
        for part in reversed(parts[:-1]):
            right = merge(part, right)
        assert_same(left, whole)
        assert_same(right, whole)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_torch_tiles_give_the_same_answer(name, reduction):
    pytest.importorskip("torch")
    values, groups = CASES[name]
    found = closest_pairs(values, groups, reduction, backend="torch", device="cpu")
    assert_same(found, closest_pairs(values, groups, reduction))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_one_answer_needs_no_list_of_pairs_of_groups(monkeypatch, name, reduction):
    values, groups = CASES[name]
    monkeypatch.setattr(state, "MOST_LISTED", 0)
    expected = brute_force_closest_pairs(values, groups, reduction).overall()
    for threads in (1, 2):
        assert closest_pair(values, groups, reduction, threads=threads) == expected


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_image_may_be_a_group_of_its_own(reduction):
    """3,000 groups have 4.5 million pairs; the search keeps none of them."""
    values, _ = softmax_trajectory(3000, 4, gain=12)
    groups = np.arange(3000)
    assert len(state.Search(values, groups, 3000, reduction, True, 1, 0, 1).pairs) == 1
    tile = dense.find(values, groups, 3000, reduction, overall=True, shard=(0, 1), progress=None)
    expected = (tile.value[0, 0], tile.first[0, 0], tile.second[0, 0], tile.block[0, 0])
    assert tuple(closest_pair(values, groups, reduction)) == expected


@pytest.mark.parametrize("most", [-1, 30, 1200])
@pytest.mark.parametrize("gain", [3, 60])
def test_larger_set_goes_through_every_method(monkeypatch, gain, most):
    """Bounds from a part, and joins of no, some and most pairs of classes, the rest by sweeps and trees."""
    monkeypatch.setattr(pair_search, "LARGE", 1000)
    monkeypatch.setattr(join, "MOST_CANDIDATES", most)
    values, groups = softmax_trajectory(2560, 5, gain=gain, classes=5, seed=3)
    for reduction in REDUCTIONS:
        expected = brute_force_closest_pairs(values, groups, reduction)
        assert_same(closest_pairs(values, groups, reduction), expected)
        assert closest_pair(values, groups, reduction) == expected.overall()


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(REDUCTIONS), st.sampled_from([np.float32, np.float64]))
def test_any_array(data, reduction, dtype):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 4)))
    width = 64 if dtype == np.float64 else 32
    elements = st.one_of(
        st.integers(-2, 2).map(float), st.floats(-(2.0**100), 2.0**100, width=width, allow_subnormal=True)
    )
    values = data.draw(arrays.arrays(dtype, shape, elements=elements))
    groups = data.draw(arrays.arrays(np.int64, shape[1], elements=st.integers(0, 3)))
    expected = brute_force_closest_pairs(values, groups, reduction, 4)
    assert_same(closest_pairs(values, groups, reduction, 4), expected)
    assert_same(closest_pairs(values, groups, reduction, 4, threads=1), expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(REDUCTIONS))
def test_laws(seed, reduction):
    values, groups = softmax_trajectory(120, 3, classes=4, seed=seed)
    whole = closest_pairs(values, groups, reduction, 4)
    # A constant never rises with N.
    part = closest_pairs(values[:, :60], groups[:60], reduction, 4)
    both = np.isfinite(part.value)
    assert (whole.value[both] <= part.value[both]).all()
    # Permuting images changes no value; scaling by a power of two scales distances exactly.
    order = np.random.default_rng(seed).permutation(120)
    np.testing.assert_array_equal(closest_pairs(values[:, order], groups[order], reduction, 4).value, whole.value)
    np.testing.assert_array_equal(closest_pairs(values * 4, groups, reduction, 4).value, whole.value * 4)
    assert whole.overall().value == np.nanmin(whole.value)
    smallest, mean, largest = (closest_pair(values, groups, r).value for r in ("min", "mean", "max"))
    assert smallest <= mean <= largest


def test_shape_of_the_answer():
    values, groups = CASES["sharp"]
    groups = np.where(groups == 7, 6, groups)
    answer = closest_pairs(values, groups, "max", num_groups=12)
    assert answer.num_groups == 12
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(answer, name), getattr(answer, name).T)
    assert np.isnan(answer.value[7]).all() and (answer.first[7] == -1).all() and (answer.block[:, 11] == -1).all()
    assert np.isnan(np.diag(answer.value)).all()
    a, b = 2, 5
    assert {groups[answer.first[a, b]], groups[answer.second[a, b]]} == {a, b}
    assert answer.first[a, b] < answer.second[a, b]


def test_block_is_the_moment_of_the_reduction():
    values = np.zeros((3, 2, 1))
    values[:, 1, 0] = [2.0, 1.0, 2.0]
    groups = np.array([0, 1])
    assert closest_pair(values, groups, "min") == (1.0, 0, 1, 1)
    assert closest_pair(values, groups, "max") == (2.0, 0, 1, 0)
    assert closest_pair(values, groups, "mean") == (5.0 / 3.0, 0, 1, 1)


def test_no_pair_at_all():
    values = np.zeros((2, 5, 3))
    answer = closest_pairs(values, np.zeros(5, dtype=int), "min", 2)
    assert np.isnan(answer.value).all() and answer.overall().first == -1
    assert closest_pair(values, np.zeros(5, dtype=int)).block == -1


def test_memory_mapped_input(tmp_path):
    values, groups = CASES["sharp"]
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    for reduction in REDUCTIONS:
        assert_same(closest_pairs(mapped, groups, reduction), closest_pairs(values, groups, reduction))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_refused_by_name(bad):
    values = np.zeros((4, 6, 2))
    values[2, 5, 1] = bad
    with pytest.raises(ValueError, match="image 5 at depth 2"):
        closest_pairs(values, np.arange(6) % 2)


def test_wrong_questions_are_refused():
    values, groups = CASES["one depth"]
    with pytest.raises(ValueError, match="reduction"):
        closest_pairs(values, groups, "median")
    with pytest.raises(ValueError, match="groups"):
        closest_pairs(values, groups[:-1])
    with pytest.raises(ValueError, match="groups"):
        closest_pairs(values, groups, num_groups=1)
    with pytest.raises(ValueError, match="shard"):
        closest_pairs(values, groups, shard=(2, 2))
    with pytest.raises(ValueError, match="backend"):
        closest_pairs(values, groups, backend="abacus")
    with pytest.raises(ValueError, match="depths, images, readout"):
        closest_pairs(values[0], groups)


def test_progress_reaches_the_end():
    values, groups = CASES["sharp"]
    for reduction in REDUCTIONS:
        seen: list[tuple[int, int]] = []
        closest_pairs(values, groups, reduction, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert seen and seen[-1][0] == seen[-1][1]
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
