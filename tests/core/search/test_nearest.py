"""Nearest neighbours, tracers and the median against brute force and scipy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from stabilitykit.search import (
    best_tracers,
    brute_force_best_tracers,
    brute_force_nearest_neighbours,
    median_cross_distance,
    median_cross_distances,
    nearest_neighbours,
    tracing_index,
)
from stabilitykit.search.nearest import queries
from stabilitykit.search.pairs import dense
from tests.core.search.cases import adversarial

CASES = adversarial()


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_neighbours_equal_brute_force(name):
    values, groups = CASES[name]
    count = len(groups)
    visited = np.random.default_rng(5).integers(-1, count, (count, 4))
    for exclude in (None, visited):
        for options in ({}, {"same_group": True}, {"other_group": True}):
            fast = nearest_neighbours(values[-1], groups=groups, exclude=exclude, **options)
            slow = brute_force_nearest_neighbours(values[-1], groups=groups, exclude=exclude, **options)
            assert_same(fast, slow)
            assert (fast[0] != np.arange(count)).all()


def test_neighbours_agree_with_scipy():
    values, _ = CASES["noise"]
    table = cdist(values[0], values[0])
    np.fill_diagonal(table, np.inf)
    index, distance = nearest_neighbours(values[0])
    np.testing.assert_array_equal(index, table.argmin(axis=1))
    np.testing.assert_allclose(distance, table.min(axis=1), rtol=1e-14)


def test_excluding_answers_walks_through_all_images():
    points = CASES["noise"][0][0][:6]
    exclude = np.zeros((6, 0), dtype=int)
    last = np.zeros(6)
    for _ in range(5):
        index, distance = nearest_neighbours(points, exclude=exclude)
        assert (distance >= last).all()
        exclude, last = np.column_stack([exclude, index]), distance
    assert sorted(exclude[0]) == [1, 2, 3, 4, 5]
    index, distance = nearest_neighbours(points, exclude=exclude)
    assert (index == -1).all() and np.isnan(distance).all()


def test_identical_images_take_the_lowest_other_index():
    index, distance = nearest_neighbours(np.ones((50_000, 3), dtype=np.float32))
    assert index[0] == 1 and (index[1:] == 0).all() and (distance == 0).all()


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_tracers_equal_brute_force(monkeypatch, name, copied):
    """With the values copied in the order of the tree, and with none, as for very large ones."""
    if not copied:
        monkeypatch.setattr(queries, "COPY_BYTES", 0)
    values, groups = CASES[name]
    random = np.random.default_rng(7)
    orbits = random.integers(0, len(groups), (40, len(values)))
    orbits[:10] = orbits[:10, :1]
    for exclude in (None, orbits[:, :1]):
        for constant in (True, False):
            assert_same(
                best_tracers(values, orbits, exclude_constant=constant, exclude=exclude),
                brute_force_best_tracers(values, orbits, exclude_constant=constant, exclude=exclude),
            )
    readouts = values[np.arange(len(values)), orbits] * (1 + 1e-3 * random.random((40, len(values), 1)))
    assert_same(best_tracers(values, readouts), brute_force_best_tracers(values, readouts))
    index = tracing_index(values)
    for _ in range(2):
        assert_same(best_tracers(index, orbits), brute_force_best_tracers(values, orbits))


@pytest.mark.parametrize("same", [65, 200])
def test_many_images_that_are_identical_at_the_indexed_depths_only(monkeypatch, same):
    """One leaf of more images than are measured at once, which differ at a depth the tree has no boxes of."""
    random = np.random.default_rng(3)
    values = random.normal(size=(2, same + 20, 3))
    values[0] *= 100
    values[0, :same] = 1.0
    monkeypatch.setattr(queries, "BOX_BYTES", 1)  # boxes of one depth
    orbits = random.integers(0, values.shape[1], (60, 2))
    assert_same(best_tracers(values, orbits), brute_force_best_tracers(values, orbits))
    assert_same(nearest_neighbours(values[0]), brute_force_nearest_neighbours(values[0]))


def test_the_true_orbit_is_its_own_tracer_unless_excluded():
    values, groups = CASES["noise"]
    orbits = np.repeat(np.arange(len(groups))[:, None], len(values), axis=1)
    tracer, eps = best_tracers(values, orbits, exclude_constant=False)
    np.testing.assert_array_equal(tracer, orbits[:, 0])
    assert (eps == 0).all()
    tracer, eps = best_tracers(values, orbits)
    assert (tracer != orbits[:, 0]).all() and (eps > 0).all()


def test_more_tracers_never_raise_eps():
    values, _ = CASES["sharp"]
    orbits = np.random.default_rng(0).integers(0, 100, (30, len(values)))
    _, few = best_tracers(values[:, :200], orbits)
    _, many = best_tracers(values, orbits)
    assert (many <= few).all()


def test_wrong_questions_are_refused():
    values, _ = CASES["noise"]
    with pytest.raises(ValueError, match="image numbers"):
        best_tracers(values, np.full((2, 3), 999))
    with pytest.raises(ValueError, match="orbits"):
        best_tracers(values, np.zeros((2, 4), dtype=int))
    with pytest.raises(ValueError, match="groups"):
        nearest_neighbours(values[0], same_group=True)
    with pytest.raises(ValueError, match="exclude"):
        nearest_neighbours(values[0], exclude=np.zeros((3, 2), dtype=int))
    bad = values[0].copy()
    bad[17, 2] = np.nan
    with pytest.raises(ValueError, match="image 17"):
        nearest_neighbours(bad)


def test_median():
    values, groups = CASES["noise"]
    table = cdist(values[0], values[0])
    cross = table[np.triu(groups[:, None] != groups[None], 1)]
    exact = median_cross_distance(values[0], groups, 0)
    assert exact.exact and exact.pairs == len(cross)
    assert exact.value == pytest.approx(np.median(cross), rel=1e-14)
    sampled = median_cross_distance(values[0], groups, 0, max_pairs=20_000)
    assert not sampled.exact and sampled.pairs == 20_000
    assert sampled.value == pytest.approx(exact.value, rel=0.03)
    assert sampled == median_cross_distance(values[0], groups, 0, max_pairs=20_000)
    assert np.isnan(median_cross_distance(values[0], np.zeros_like(groups), 0).value)


@pytest.mark.parametrize("name, dtype", [("noise", np.float32), ("noise", np.float64), ("huge", np.float64)])
def test_medians_of_all_depths_are_those_of_each_to_the_last_bit(name, dtype, monkeypatch):
    values, groups = CASES[name]
    values = values.astype(dtype)
    for pairs in (50, 1_000_000):
        compiled = median_cross_distances(values, groups, 3, max_pairs=pairs)
        each = [median_cross_distance(points, groups, 3, max_pairs=pairs) for points in values]
        monkeypatch.setattr(dense, "MOST_WORK", 1e18)
        plain = median_cross_distances(values, groups, 3, max_pairs=pairs)
        monkeypatch.undo()
        np.testing.assert_array_equal(compiled, each)
        np.testing.assert_array_equal(compiled, plain)


def test_import_is_light():
    code = "import sys, stabilitykit.search; print([m for m in ('torch', 'numba', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
