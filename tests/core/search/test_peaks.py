"""The join of images by their largest coordinates against brute force, bit for bit, wherever it is made to run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabilitykit.search import REDUCTIONS, brute_force_closest_pairs, closest_pair, closest_pairs
from stabilitykit.search.pairs import layer
from stabilitykit.search.pairs.peaks import Peaks
from tests.core.search.cases import adversarial
from tests.core.search.test_pairs import assert_found_by_any_threads, assert_same, assert_shards_merge

NAMES = ("sharp", "saturated", "one-hot", "grid", "near ties", "mostly identical", "denormal", "huge", "offset")
CASES = {name: case for name, case in adversarial().items() if name in (*NAMES, "one coordinate", "long readout")}


@pytest.fixture
def peaked(monkeypatch):
    """Every layer is joined by peaks; the list tells of each whether one pass had found all it needed."""
    noted = []
    run = Peaks.run

    def recorded(self):
        noted.append(len(self.begins) > 0)
        run(self)

    monkeypatch.setattr(layer, "LONG", 1)
    for name in ("joinable", "griddable"):
        monkeypatch.setattr(layer, name, lambda search: False)
    monkeypatch.setattr(Peaks, "cost", lambda self, most: 0.0)
    monkeypatch.setattr(Peaks, "run", recorded)
    return noted


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force_bit_for_bit(peaked, name, reduction):
    assert_found_by_any_threads(*CASES[name], reduction)
    assert peaked


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shards_merge_to_the_whole(peaked, reduction):
    assert_shards_merge(*CASES["sharp"], reduction)
    assert peaked


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    readout=st.sampled_from([2, 5, 60]),
    images=st.integers(2, 150),
    gain=st.sampled_from([0.1, 3.0, 30.0]),
    decimals=st.sampled_from([1, 3, 16]),
    logits=st.booleans(),
    single=st.booleans(),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_any_readout_equals_brute_force(peaked, seed, readout, images, gain, decimals, logits, single, reduction):
    """Probabilities and logits, unsure and sharp, with ties within images (rounded) and between depths."""
    random = np.random.default_rng(seed)
    values = gain * random.normal(size=(3, images, readout))
    if not logits:
        values = np.exp(values - values.max(axis=2, keepdims=True))
        values /= values.sum(axis=2, keepdims=True)
    values = np.round(values, decimals).astype(np.float32 if single else np.float64)
    values[2] = values[0]
    groups = random.integers(0, 4, images)
    expected = brute_force_closest_pairs(values, groups, reduction)
    assert_same(closest_pairs(values, groups, reduction, backend="numba"), expected)
    np.testing.assert_equal(closest_pair(values, groups, reduction, backend="numba"), expected.overall())


def test_images_whose_peaks_differ_most_within_a_bound_meet(peaked):
    """A step of r from one peak to the other moves the difference of the two coordinates by sqrt(2) r."""
    r = 0.1
    step = r / np.sqrt(2)
    start = np.array([1.0, 1.0 - 1.999 * step, 0.0])
    across = start + np.array([-step, step, 0.0])
    assert start.argmax() == 0 and across.argmax() == 1
    alone = np.array([[-5.0, -5.0, 9.0], [-5.0, -5.0, 9.0 + 1.02 * r]])
    values = np.stack([start, across, *alone])[None]
    found = closest_pair(values, np.array([0, 1, 0, 1]), "min", backend="numba")
    assert (found.first, found.second) == (0, 1) and peaked


def test_later_depths_are_read_once(peaked):
    """With one bound for all groups: only the first depth, which has none, is looked at again."""
    random = np.random.default_rng(0)
    values = random.dirichlet(np.full(60, 0.05), (4, 300)).astype(np.float32)
    closest_pair(values, random.integers(0, 5, 300), "min", threads=1, backend="numba")
    assert peaked == [False, True, True, True]


@pytest.mark.parametrize("search", [closest_pair, closest_pairs])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e151])
def test_a_number_that_is_not_finite_is_named_although_depths_are_checked_one_by_one(search, bad):
    values = np.random.default_rng(0).dirichlet(np.ones(60), (4, 40))
    values[1, 7, 3] = values[3, 5, 59] = bad
    with pytest.raises(ValueError, match=r"for image 7 at depth 1 \(readout coordinate 3\)"):
        search(values, np.arange(40) % 4, "min", backend="numba")
    with pytest.raises(ValueError, match="for image 7 at depth 1"):
        search(values, np.zeros(40, dtype=np.int64), "min", backend="numba")
