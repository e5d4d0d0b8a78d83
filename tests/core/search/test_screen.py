"""Screening by matrix products against brute force, bit for bit, wherever it is made to run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.search import REDUCTIONS
from stabilitykit.search.pairs import join, layer, peaks, screen, screen_keys
from stabilitykit.search.synthetic import softmax_trajectory
from tests.core.search.cases import adversarial
from tests.core.search.test_pairs import assert_found_by_any_threads, assert_shards_merge

CASES = adversarial()
CASES["many classes"] = softmax_trajectory(500, 3, classes=100, gain=12)
CASES["wide"] = softmax_trajectory(250, 2, classes=150, gain=12, width=100)
CASES["far outlier"] = CASES["sharp"][0] + np.float32(1e20) * (np.arange(400) == 7)[None, :, None], CASES["sharp"][1]


@pytest.fixture
def screened(monkeypatch):
    """Every layer is screened unless it cannot be; the list tells how often."""
    calls = []
    forecast, search_screen = screen_keys.forecast, screen.search_screen

    def cheap(search, points, error):
        found = forecast(search, points, error)
        return replace(found, cost=0.0) if np.isfinite(found.cost) else found

    def counted(*arguments):
        calls.append(arguments)
        return search_screen(*arguments)

    for module in (layer, join):
        monkeypatch.setattr(module, "griddable", lambda search: False)
    monkeypatch.setattr(join, "MOST_CANDIDATES", -1)
    monkeypatch.setattr(layer, "CHEAP_CANDIDATES", -1)
    monkeypatch.setattr(peaks.Peaks, "cost", lambda self, most: np.inf)
    monkeypatch.setattr(layer, "LOOSE_CANDIDATES", np.inf)
    monkeypatch.setattr(screen_keys, "forecast", cheap)
    monkeypatch.setattr(screen, "search_screen", counted)
    return calls


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force_bit_for_bit(screened, name, reduction):
    assert_found_by_any_threads(*CASES[name], reduction)
    if name not in ("identical", "one-hot", "underflow", "denormal"):
        assert screened


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shards_merge_to_the_whole(screened, reduction):
    assert_shards_merge(*CASES["many classes"], reduction)
    assert screened


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    readout=st.integers(1, 90),
    scale=st.sampled_from([1e-60, 1e-3, 1.0, 1e12, 1e100]),
    spread=st.sampled_from([0.0, 1e-7, 1e-3, 1.0]),
    single=st.booleans(),
    whole=st.booleans(),
)
def test_lower_bounds_never_exceed_distances(seed, readout, scale, spread, single, whole):
    random = np.random.default_rng(seed)
    images = 120
    centers = random.normal(size=(6, readout))
    points = scale * (centers[random.integers(0, 6, images)] + spread * random.normal(size=(images, readout)))
    if single and 1e-3 <= scale <= 1e12:
        points = points.astype(np.float32)
    sample = points[:: random.integers(1, 30)].astype(np.float64)
    center = sample.mean(axis=0)
    size = (np.abs(points).max() + np.abs(center).max()) * np.sqrt(readout)
    factor = 2.0 ** -np.ceil(np.log2(size))
    directions = screen_keys.principal_directions((sample - center) * factor, int(random.integers(1, 20)))
    keyed = screen_keys.Screen(center, None if whole else directions, factor**2, 0.0)
    keys, squares = screen_keys.keys_of(points, np.arange(images), keyed)
    lower = squares[:, None] + squares[None, :] - np.float32(2) * (keys @ keys.T)
    exact = ((points[:, None, :].astype(np.longdouble) - points[None].astype(np.longdouble)) ** 2).sum(axis=2)
    assert (lower <= exact * np.longdouble(factor) ** 2 + 1e-37 * (readout + 8)).all()
