"""The window join against brute force, bit for bit, wherever it is made to run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.search import REDUCTIONS, brute_force_closest_pairs, closest_pair, closest_pairs
from stabilitykit.search.pairs import join, join_kernels, layer
from tests.core.search.cases import adversarial
from tests.core.search.test_pairs import assert_found_by_any_threads, assert_same, assert_shards_merge

CASES = adversarial()
JOINABLE = [name for name, (values, groups) in CASES.items() if groups.max() < values.shape[2] < 48]


@pytest.fixture(params=[np.inf, 2.0], ids=["everything joined", "some left to others"])
def joined(monkeypatch, request):
    """Cells are joined however many candidates they have, or only the cheapest; the list holds what was left."""
    left = []
    run = join.Join.run

    def recorded(self, wanted):
        left.append(~wanted)
        run(self, wanted)

    monkeypatch.setattr(join, "MOST_CANDIDATES", request.param)
    monkeypatch.setattr(join, "GRID_CANDIDATES", request.param)
    monkeypatch.setattr(layer, "FEW_CANDIDATES", np.inf)
    monkeypatch.setattr(join.Join, "run", recorded)
    yield left
    assert left
    if request.param == np.inf:
        assert not any(cells.any() for cells in left)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", JOINABLE)
def test_equals_brute_force_bit_for_bit(joined, name, reduction):
    assert_found_by_any_threads(*CASES[name], reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shards_merge_to_the_whole(joined, reduction):
    assert_shards_merge(*CASES["sharp"], reduction)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 6),
    more=st.integers(0, 3),
    images=st.integers(2, 300),
    wrong=st.sampled_from([0.0, 0.05, 0.5]),
    decimals=st.sampled_from([1, 3, 16]),
    scale=st.sampled_from([1e-30, 1, 1e8]),
    reduction=st.sampled_from(REDUCTIONS),
    single=st.booleans(),
)
def test_any_readout(seed, classes, more, images, wrong, decimals, scale, reduction, single):
    """Softmax-like readouts with mistakes, ties and duplicates, more coordinates than groups, groups of any size."""
    random = np.random.default_rng(seed)
    groups = random.integers(0, classes, images)
    shown = np.where(random.random(images) < wrong, random.integers(0, classes, images), groups)
    logits = 0.7 * random.normal(size=(3, images, classes + more)) + 4.0 * (shown[:, None] == np.arange(classes + more))
    values = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    values = scale * np.round(values, decimals)
    if single:
        values = values.astype(np.float32)
    expected = brute_force_closest_pairs(values, groups, reduction)
    assert_same(closest_pairs(values, groups, reduction), expected)
    overall = closest_pair(values, groups, reduction)
    np.testing.assert_equal(tuple(overall), tuple(expected.overall()))


def test_windows_of_single_precision_are_sought_in_double():
    """Rounding the ends of a window to float32 would lose images at its border."""
    own = np.array([0.5, 1.0, 1.5], np.float32)
    assert join_kernels.window(own, 1.0 + 1e-9, 1e-10) == (2, 2)
    assert join_kernels.window(own, 1.0 - 1e-9, 2e-9) == (1, 2)
    assert join_kernels.window(own, 1.0, 0.5) == (0, 3)
