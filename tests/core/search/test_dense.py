"""The search of small samples in numpy against the compiled ones and brute force, bit for bit."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stabilitykit.search import REDUCTIONS, brute_force_closest_pairs, closest_pair, closest_pairs, merge
from stabilitykit.search.pairs import dense
from stabilitykit.search.synthetic import softmax_trajectory
from tests.core.search.cases import adversarial
from tests.core.search.test_pairs import assert_same, naive

CASES = adversarial()
KINDS = ("normal", "tied", "duplicates", "identical", "denormal", "underflow", "huge", "saturated", "offset")


def assert_equals_all(values: np.ndarray, groups: np.ndarray, reduction: str, world: int = 1) -> None:
    """Matrix, overall pair and merged shards equal brute force and the compiled searches."""
    expected = brute_force_closest_pairs(values, groups, reduction)
    parts = [closest_pairs(values, groups, reduction, shard=(r, world), backend="numpy") for r in range(world)]
    assert_same(functools.reduce(merge, parts), expected)
    assert_same(closest_pairs(values, groups, reduction, backend="numba"), expected)
    overall = closest_pair(values, groups, reduction, backend="numpy")
    np.testing.assert_equal(tuple(overall), tuple(expected.overall()))


def sample(kind: str, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """float64 values (depths, images, readout) of one of KINDS."""
    random = np.random.default_rng(seed)
    values = random.normal(size=shape)
    if kind == "tied":
        return np.round(values)
    if kind == "duplicates":
        return values[:, random.integers(0, max(1, shape[1] // 3), shape[1])]
    if kind == "saturated":
        return np.eye(shape[2])[random.integers(0, shape[2], shape[:2])]
    scale = {"identical": 0.0, "denormal": 1e-310, "underflow": 1e-162, "huge": 1e149}.get(kind, 1.0)
    return values * scale + (1e9 if kind == "offset" else 0.0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force_bit_for_bit(name, reduction):
    assert_equals_all(*CASES[name], reduction)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    depth=st.integers(0, 40),
    images=st.integers(1, 60),
    readout=st.one_of(st.integers(1, 12), st.integers(1, 1000)),
    classes=st.integers(1, 1000),
    world=st.integers(1, 4),
    block=st.sampled_from([1, 64, 700, dense.BLOCK]),
    reduction=st.sampled_from(REDUCTIONS),
    single=st.booleans(),
)
@example(0, "normal", 0, 1, 1, 1, 1, 64, "min", False)  # one image
@example(0, "tied", 2, 40, 3, 1, 1, 64, "max", True)  # one class
@example(0, "identical", 3, 30, 2, 1000, 3, 64, "mean", True)
@example(0, "saturated", 40, 12, 1000, 5, 1, dense.BLOCK, "mean", True)
def test_any_sample(seed, kind, depth, images, readout, classes, world, block, reduction, single):
    """Any T from 0 to 40, K from 1 to 1000, tiles of any size, shards, and classes with and without images."""
    values = sample(kind, (depth + 1, images, readout), seed)
    if single and kind not in ("denormal", "underflow", "huge"):
        values = values.astype(np.float32)
    groups = np.random.default_rng(seed).integers(0, classes, images)
    with pytest.MonkeyPatch.context() as patch:
        # Small tiles of many coordinates are many calls.
        patch.setattr(dense, "BLOCK", block if (depth + 1) * readout < 200 else dense.BLOCK)
        assert_equals_all(values, groups, reduction, world)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["sharp", "grid", "identical", "underflow"])
def test_equals_plain_python(name, reduction):
    values, groups = CASES[name]
    values, groups = values[:, :80], groups[:80]
    assert closest_pair(values, groups, reduction, backend="numpy")[:3] == naive(values, groups, reduction)


def test_distances_that_only_their_squares_tell_apart_are_equal():
    """Two squares with one root: the pair with the lower indices and the lower depth win."""
    square, below = 1.0 + 2.0**-52, 1.0
    assert np.sqrt(square) == np.sqrt(below)
    # Depth 0: d2 = 1 + 2^-52 (as 1 + (2^-26)^2); depth 1: d2 = 1. The distance is 1 at both.
    values = np.zeros((2, 4, 2))
    values[:, 1, 0] = 1.0
    values[0, 1, 1] = 2.0**-26
    values[:, 2:] = 50.0
    values[:, 3, 0] = 51.0  # a second pair at d2 = 1 everywhere, with higher images
    groups = np.array([0, 1, 0, 1])
    assert closest_pair(values, groups, "min", backend="numpy") == (1.0, 0, 1, 0)
    assert_equals_all(values, groups, "min")
    assert_equals_all(values, groups, "max")


def test_memory_mapped_strided_and_half_precision_input(tmp_path):
    values, groups = CASES["sharp"]
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    expected = closest_pairs(values, groups, "min", backend="numba")
    assert_same(closest_pairs(mapped, groups, "min", backend="numpy"), expected)
    half = values[:, ::2].astype(np.float16)
    expected = closest_pairs(half, groups[::2], "mean", backend="numba")
    assert_same(closest_pairs(half, groups[::2], "mean", backend="numpy"), expected)


def test_progress_reaches_the_end():
    values, groups = CASES["sharp"]
    seen: list[tuple[int, int]] = []
    closest_pairs(values, groups, backend="numpy", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, len(seen)) for n in range(1, len(seen) + 1)]


@pytest.fixture
def usual_bound(monkeypatch):
    monkeypatch.setattr(dense, "MOST_WORK", 2e8)


def test_choice_rests_on_the_work(usual_bound):
    """Digits and CIFAR-10's thousand images are small; ten thousand are not; one class never needs numba."""
    few, many = softmax_trajectory(597, 9), softmax_trajectory(10_000, 9)
    assert dense.is_small(*few)
    assert not dense.is_small(*many)
    assert dense.is_small(many[0], np.zeros(10_000, dtype=np.int64))
    assert not dense.is_small(*few, searches=1000)


@pytest.mark.parametrize("images, loaded", [(300, "[]"), (6000, "['numba']")])
def test_small_samples_do_not_import_numba(images, loaded):
    code = (
        "import sys; from stabilitykit.search import *\n"
        "from stabilitykit.search.synthetic import softmax_trajectory\n"
        f"values, groups = softmax_trajectory({images}, 9)\n"
        "closest_pair(values, groups); median_cross_distance(values[0], groups, 0)\n"
        "print([m for m in ('torch', 'numba', 'scipy') if m in sys.modules][:1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == loaded
