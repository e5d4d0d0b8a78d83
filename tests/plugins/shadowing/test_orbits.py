import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_shadowing.orbits import PseudoOrbits, nearest_orbits, path_jumps, single_switch_orbits

from tests.plugins.shadowing.reference import all_distances
from tests.plugins.shadowing.strategies import trajectories


def naive_orbits(values, labels, same_class, unvisited):
    apart = all_distances(values)
    depths, count, _ = apart.shape
    paths = []
    for i in range(count):
        path = [i]
        for t in range(1, depths):
            allowed = [
                j
                for j in range(count)
                if j != path[-1] and not (unvisited and j in path) and not (same_class and labels[j] != labels[i])
            ]
            if not allowed:
                break
            path.append(min(allowed, key=lambda j: (apart[t, path[-1], j], j)))
        if len(path) == depths:
            paths.append(path)
    return np.array(paths, dtype=np.int64).reshape(-1, depths)


@settings(deadline=None, max_examples=60)
@given(trajectories(), st.booleans(), st.booleans(), st.integers(0, 2**16))
def test_nearest_orbits_are_those_of_a_plain_search(values, same_class, unvisited, seed):
    labels = np.random.default_rng(seed).integers(0, 2, values.shape[1])
    orbits = nearest_orbits(values, labels=labels, same_class=same_class, unvisited=unvisited)
    expected = naive_orbits(values, labels, same_class, unvisited)
    found = path_jumps(values, orbits.path)
    np.testing.assert_allclose(orbits.jumps, found, rtol=1e-14)
    np.testing.assert_array_equal(orbits.start, expected[:, 0])
    # Rounding may order near-ties differently; the jumps must agree all the same.
    np.testing.assert_allclose(np.sort(orbits.delta), np.sort(path_jumps(values, expected).max(axis=1)), rtol=1e-9)
    if same_class:
        assert (labels[orbits.path] == labels[orbits.path[:, :1]]).all()
    if unvisited:
        assert all(len(set(path)) == len(path) for path in orbits.path.tolist())
    assert (orbits.path[:, 1:] != orbits.path[:, :-1]).all()


def test_ties_go_to_the_lowest_index():
    values = np.zeros((2, 4, 1))
    np.testing.assert_array_equal(nearest_orbits(values).path, [[0, 1], [1, 0], [2, 0], [3, 0]])


def test_one_image_per_class_starts_no_orbit_within_its_class():
    values = np.random.default_rng(0).normal(size=(3, 4, 2))
    assert len(nearest_orbits(values, labels=np.arange(4), same_class=True)) == 0
    assert len(nearest_orbits(values, labels=np.array([0, 0, 1, 2]), same_class=True)) == 2


def test_two_images_and_two_blocks_leave_nothing_unvisited():
    values = np.random.default_rng(0).normal(size=(3, 2, 2))
    assert len(nearest_orbits(values, unvisited=True)) == 0
    assert len(nearest_orbits(values)) == 2


def test_single_switch_orbits_jump_once():
    values = np.random.default_rng(1).normal(size=(4, 5, 3))
    orbits = single_switch_orbits(values, np.array([0, 3]), np.array([2, 1]), np.array([1, 0]))
    np.testing.assert_array_equal(orbits.path, [[0, 0, 2, 2], [3, 1, 1, 1]])
    np.testing.assert_allclose(orbits.jumps, path_jumps(values, orbits.path), rtol=1e-15)
    assert (orbits.jumps > 0).sum() == 2


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least two depths"):
        nearest_orbits(np.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="needs labels"):
        nearest_orbits(np.zeros((2, 3, 2)), same_class=True)
    with pytest.raises(ValueError, match="both or neither"):
        PseudoOrbits(np.arange(2), np.zeros((2, 1)))
