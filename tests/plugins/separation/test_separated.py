"""Separated sets, farthest pairs and neighbours against brute force in float64."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_separation.farthest import farthest_pair
from stabilitykit_separation.outlying import neighbours
from stabilitykit_separation.separated import SeparatedSets, orbit_distances, pair_sample

from stabilitykit.search.synthetic import softmax_trajectory


def all_distances(values):
    """d_T of every two images, (N, N), in numpy's own order of summation."""
    values = values.astype(np.float64)
    return np.sqrt(np.square(values[:, :, None] - values[:, None]).sum(axis=3)).max(axis=0)


def greedy(apart, eps):
    """The definition, in plain Python."""
    members = []
    for i in range(len(apart)):
        if all(apart[i, j] > eps for j in members):
            members.append(i)
    return members


@st.composite
def samples(draw):
    """Trajectories on a coarse grid, so that ties and duplicates are common, or of Gaussian numbers."""
    depths, count, readout = draw(st.integers(1, 4)), draw(st.integers(2, 24)), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = random.standard_normal((depths, count, readout))
    if draw(st.booleans()):
        values = np.round(values)
    return np.ascontiguousarray(values * draw(st.sampled_from([1.0, 1e-9, 1e6]))), random.integers(0, 3, count)


@settings(max_examples=60, deadline=None)
@given(samples(), st.floats(0, 1))
def test_greedy_sets_are_those_of_the_definition(sample, share):
    values, _ = sample
    apart = all_distances(values)
    # Between two distances that occur, so that the order of summation decides nothing.
    known = np.unique(apart)
    place = int(share * (len(known) - 1))
    eps = known[place] + (known[min(place + 1, len(known) - 1)] - known[place]) / 2
    if place + 1 < len(known) and known[place + 1] - known[place] < 1e-12 * known[-1]:
        return
    found = SeparatedSets(values).greedy(eps)
    assert found.tolist() == greedy(apart, eps)


@settings(max_examples=60, deadline=None)
@given(samples())
def test_every_image_is_near_the_set_and_the_set_is_separated(sample):
    values, _ = sample
    first, second = pair_sample(values.shape[1], 10**6, 0)
    eps = float(np.median(orbit_distances(values, first, second)))
    members = SeparatedSets(values).greedy(eps)
    assert members[0] == 0 and (np.diff(members) > 0).all()
    every = np.arange(values.shape[1])
    to_set = np.stack([orbit_distances(values, every, np.full(len(every), m)) for m in members])
    inside = to_set[:, members] + np.where(np.eye(len(members)) > 0, np.inf, 0)
    assert (inside > eps).all()
    assert (to_set.min(axis=0) <= eps).all()


@settings(max_examples=60, deadline=None)
@given(samples())
def test_the_farthest_pair_is_that_of_brute_force(sample):
    values, labels = sample
    points = values[0]
    best = None
    for i in range(len(points)):
        for j in range(i + 1, len(points)):
            if labels[i] == labels[j]:
                total = 0.0
                for a, b in zip(points[i].tolist(), points[j].tolist()):
                    total += (a - b) * (a - b)
                if best is None or math.sqrt(total) > best[0]:
                    best = (math.sqrt(total), i, j)
    found = farthest_pair(points, labels)
    assert (best is None and found.first == -1 and math.isnan(found.value)) or tuple(found) == best


@settings(max_examples=30, deadline=None)
@given(samples())
def test_neighbours_are_those_of_brute_force(sample):
    values, labels = sample
    apart = all_distances(values)
    np.fill_diagonal(apart, np.inf)
    same = labels[:, None] == labels
    found = neighbours(values, labels)
    for mask, distance, index in ((same, found.own_distance, found.own), (~same, found.other_distance, found.other)):
        nearest = np.where(mask, apart, np.inf).min(axis=1)
        missing = ~np.isfinite(nearest)
        assert (index[missing] == -1).all() and np.isnan(distance[missing]).all()
        there = np.flatnonzero(~missing)
        np.testing.assert_allclose(distance[there], nearest[there], rtol=1e-12, atol=0)
        assert mask[there, index[there]].all() and (index[there] != there).all()


def test_a_larger_sample_of_a_network_like_kind():
    values, labels = softmax_trajectory(600, depths=4, seed=3)
    apart = all_distances(values)
    for eps in (0.05, 0.4, 1.0):
        assert SeparatedSets(values).greedy(eps).tolist() == greedy(apart, eps)
    for t in range(4):
        there = all_distances(values[t : t + 1])
        same = labels[:, None] == labels
        found = farthest_pair(values[t], labels)
        assert found.value == pytest.approx(np.where(same, there, -1).max(), rel=1e-12)
        assert same[found.first, found.second]


def test_pairs_are_all_or_a_seeded_draw():
    first, second = pair_sample(5, 10, 0)
    assert sorted(zip(first.tolist(), second.tolist())) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    first, second = pair_sample(1000, 500, 7)
    assert len(first) == 500 and (first != second).all() and first.max() < 1000 and second.max() < 1000
    assert np.array_equal(pair_sample(1000, 500, 7)[0], first) and not np.array_equal(
        pair_sample(1000, 500, 8)[0], first
    )
