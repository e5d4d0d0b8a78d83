"""The margins of the pair search, where they are needed: at ties, at collinear points, and where squares underflow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.search.metric import MAX, MEAN, reduced, squared
from stabilitykit.search.pairs.bounds import images_value, limit_of, point_gap
from stabilitykit.search.pairs.screen_kernels import screen_limit
from stabilitykit.search.pairs.search import best_layer
from stabilitykit.search.pairs.state import Search
from stabilitykit.search.pairs.sweep import Keys, keys_of, plan
from stabilitykit.search.pairs.sweep_kernels import rounding_of, row_limit, screen

sizes = st.floats(5e-324, 1e150) | st.integers(1, 2000).map(lambda n: n * 5e-324)


def largest_tie(square):
    """The largest square whose root is that of ``square``."""
    root = np.sqrt(square)
    while np.sqrt(following := np.nextafter(square, np.inf)) == root:
        square = following
    return square


@given(sizes)
def test_no_pair_that_ties_is_dropped(square):
    best = np.sqrt(np.float64(square))
    tie = largest_tie(np.float64(square))
    assert tie <= limit_of(best, MAX, 1)
    assert tie <= row_limit(best, 0.0)


@given(st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([1e-160, 1e-20, 1.0, 1e100]))
def test_no_pair_that_ties_in_the_mean_is_dropped(depths, seed, scale):
    """Whatever the order in which the distances are summed."""
    random = np.random.default_rng(seed)
    distances = scale * random.random(depths)
    total = 0.0
    for distance in distances:
        total += distance
    limit = limit_of(total / depths, MEAN, depths)
    for order in (distances, distances[::-1], np.sort(distances), np.sort(distances)[::-1]):
        other = 0.0
        for distance in order:
            other += distance
        assert other <= limit


def on_a_line(seed, images, readout, depths=1, spread=1e-3, offset=-1.0):
    """(depths, images, readout): differences of any two images point along one direction at all depths."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=readout)
    places = spread * random.random((depths, images, 1))
    return offset + places.cumsum(axis=1) * direction / np.linalg.norm(direction)


@pytest.mark.parametrize("offset", [-1.0, 0.0, 1.0, 1e6])
def test_mean_readouts_are_nearer_than_their_pairs_but_for_the_error(offset):
    """Along a line the distance of means is the mean of distances, so rounding alone decides."""
    broken = 0
    for seed in range(20):
        values = on_a_line(seed, 12, 5, depths=9, offset=offset)
        groups = np.arange(12) % 2
        layer = best_layer(Search(values, groups, 2, "mean", False, 1, 0, 1), np.arange(9), 0)
        for i in range(12):
            for j in range(i):
                near = np.sqrt(squared(layer.points[i], layer.points[j]))
                value, _ = reduced(values, i, j, MEAN)
                assert near <= value + layer.error
                broken += near > value
    assert broken > 100  # without a margin, pairs would be lost


@pytest.mark.parametrize("readout", [60, 5000, 40_000])
def test_long_readouts_keep_their_canonical_value(readout):
    random = np.random.default_rng(readout)
    for _ in range(8):
        values = random.normal(size=(2, 2, readout)) * 10 ** random.uniform(-3, 0, size=(2, 2, readout))
        for code in (MAX, MEAN):
            value, _ = reduced(values, 0, 1, code)
            assert images_value(values, 0, 1, np.arange(2), code, limit_of(value, code, 2), -1, -1) == value


@given(st.integers(0, 10**6))
def test_a_box_is_never_farther_than_what_it_holds(seed):
    random = np.random.default_rng(seed)
    inside, x = random.normal(size=(7, 3)), 2 * random.normal(size=(1, 3))
    low, high = inside.min(axis=0)[None, None], inside.max(axis=0)[None, None]
    nearest = min(squared(x[0], y) for y in inside)
    assert point_gap(x, 0, low, high, 0, 0, np.inf) <= nearest


@given(st.floats(1e-30, 1e10), st.integers(-40, 40), st.integers(1, 500))
def test_the_limit_of_the_screen_is_not_rounded_down(best, power, readout):
    scale = 4.0**power
    assert float(screen_limit(best, 0.0, scale, 1e-36, readout)) >= row_limit(best, 0.0) * scale


@given(st.integers(0, 10**6), st.integers(1, 300), st.sampled_from([1e-22, 1e-3, 1.0]))
def test_squares_in_single_precision_stay_within_their_limit(seed, readout, scale):
    random = np.random.default_rng(seed)
    points = (scale * random.normal(size=(readout, 9))).astype(np.float32)
    squares = np.empty(256, dtype=np.float32)
    loose, least = rounding_of(points)
    assert screen(points, 0, 1, 9, np.float32(np.inf), squares) == 8
    for n in range(8):
        distance = np.sqrt(squared(points[:, 0], points[:, n + 1]))
        assert squares[n] <= np.float32(row_limit(distance, 0.0) * loose + least)


@pytest.mark.parametrize("offset", [0.0, -1.0, 1e8])
def test_keys_are_nearer_than_their_points_but_for_the_error(offset):
    for seed in range(20):
        points = on_a_line(seed, 15, 6, offset=offset)[0]
        keys = keys_of(points)
        for i in range(15):
            for j in range(i):
                apart = np.sqrt(squared(points[i], points[j]))
                assert np.abs(keys.keys[i] - keys.keys[j]).max() <= apart + keys.error


def in_windows(found, images):
    """bool (images, images): which pairs lie in a window of the plan."""
    place = np.empty(images, dtype=np.int64)
    place[found.order] = np.arange(images)
    ahead = found.codes[None, :] - found.codes[:, None]
    seen = (np.abs(ahead[:, :, None] - found.offsets) <= found.window).any(axis=2)
    seen = seen | seen.T
    return seen[np.ix_(place, place)]


@pytest.mark.parametrize("kind", ["cloud", "line", "plane", "neighbours in the last digit"])
@pytest.mark.parametrize("share", [1e-3, 0.05, 0.5])
def test_every_pair_within_reach_lies_in_a_window(kind, share):
    random = np.random.default_rng(7)
    images = 150
    if kind == "line":
        points = on_a_line(7, images, 5, spread=1.0)[0]
    elif kind == "plane":
        points = random.random((images, 2)) @ np.linalg.qr(random.normal(size=(5, 2)))[0].T
    elif kind == "cloud":
        points = random.normal(size=(images, 5))
    else:
        points = 1.0 + 2.0**-52 * random.integers(0, 4, size=(images, 5))
        points[0] = 3.0
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2))
    pairs = np.sort(distances[np.triu_indices(images, 1)])
    for rank in range(int(share * len(pairs)), len(pairs), max(1, len(pairs) // 7)):
        bound = pairs[rank]
        found = plan(keys_of(points), bound, np.inf)
        assert found is not None and in_windows(found, images)[distances <= bound].all()


def test_pairs_apart_in_the_third_key_alone_lie_in_a_window():
    random = np.random.default_rng(1)
    for _ in range(40):
        places = np.zeros((30, 3))
        places[:, 2] = random.random(30)
        low = places.min(axis=0)
        apart = np.abs(places[:, None, 2] - places[None, :, 2])
        bound = apart[0, 1:].min()
        found = plan(Keys(places, low, places.max(axis=0) - low, 0.0), bound, np.inf)
        assert found is not None and in_windows(found, 30)[apart <= bound].all()
