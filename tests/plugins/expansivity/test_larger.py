"""Constants foretold for a larger N: disjoint blocks, equivariance, coverage under the law, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_expansivity import larger
from stabilitykit_expansivity.expansivity import Expansivity
from stabilitykit_expansivity.larger import Block, cross_pairs, extrapolate, fit, halves, measure

from stabilitykit import Kind
from stabilitykit.search import closest_pair


def cloud(seed, images=400, classes=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, images, 3)), rng.integers(0, classes, images)


@given(st.integers(4, 500), st.integers(0, 100), st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_blocks_are_disjoint_make_up_the_sample_and_halve_each_other(count, seed, cut):
    levels = halves(count, seed, cut)
    for level, blocks in enumerate(levels):
        assert len(blocks) == 2**level
        assert sorted(np.concatenate(blocks).tolist()) == list(range(count))
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    for upper, lower in itertools.pairwise(levels):
        for number, rows in enumerate(upper):
            assert sorted([*lower[2 * number], *lower[2 * number + 1]]) == rows.tolist()


@given(st.lists(st.integers(0, 4), max_size=30))
def test_cross_pairs_counts_them(labels):
    assert cross_pairs(np.array(labels, dtype=np.int64)) == sum(a != b for a, b in itertools.combinations(labels, 2))


def test_every_pair_is_looked_at_once_in_a_cut_and_own_pairs_join_the_halves():
    values, groups = cloud(0)
    blocks = measure(values, groups, closest_pair(values, groups, "max"), "max", 0)
    per_cut = len(blocks) // larger.CUTS
    for cut in range(larger.CUTS):
        one = blocks[cut * per_cut : (cut + 1) * per_cut]
        assert sum(b.pairs for b in one) == cross_pairs(groups)
        for number, block in enumerate(one[:3]):  # children of block b of a level are blocks 2b, 2b + 1 of the next
            nearest = min(one[2 * number + 1].value, one[2 * number + 2].value)
            assert block.value < nearest if block.own else block.value == nearest


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_distances_scaled_scale_what_is_foretold(scale):
    blocks = [Block(v, 10 * n, own) for v, n, own in [(1.0, 8, True), (1.2, 4, True), (1.0, 4, False), (1.9, 2, True)]]
    plain, scaled = fit(blocks), fit([Block(b.value * scale, b.pairs, b.own) for b in blocks])
    assert scaled.shape == pytest.approx(plain.shape)
    a, b = (extrapolate(law, 140, 100, 400) for law in (plain, scaled))
    assert [b.value, b.low, b.high] == pytest.approx([scale * a.value, scale * a.low, scale * a.high])
    assert a.low < a.value < a.high


def test_the_fit_is_the_maximum_of_the_likelihood():
    blocks = [Block(v, n, own) for v, n, own in [(0.5, 60, True), (0.7, 30, True), (0.5, 30, False), (0.9, 20, True)]]

    def likelihood(shape, rate):
        hazard = [np.exp(rate) * b.pairs * b.value**shape for b in blocks]
        seen = [np.log(shape * h / b.value) for h, b in zip(hazard, blocks) if b.own]
        return sum(seen) - sum(hazard)

    law = fit(blocks)
    best = likelihood(law.shape, law.log_rate)
    for ds, dr in itertools.product((-1e-2, 0, 1e-2), repeat=2):
        assert likelihood(law.shape * (1 + ds), law.log_rate + dr) <= best


def test_the_interval_holds_as_often_as_it_says_where_the_law_is_true(monkeypatch):
    """Half of the simulated samples give the quantiles, samples of another seed are covered."""
    monkeypatch.setattr(larger, "SLOWER", 0.0)
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(150):
        arrivals = np.cumsum(rng.exponential(size=400)) ** (1 / 5)  # shape 5, one pair
        blocks = []
        for _ in range(larger.CUTS):
            a, b = rng.integers(0, 4, (2, 400))
            for level, width in enumerate((4, 2, 1)):
                for number in range(2**level):
                    first = int(((a // width == number) & (b // width == number)).argmax())
                    own = width == 1 or 2 * a[first] // width != 2 * b[first] // width
                    blocks.append(Block(arrivals[first], 0.25**level / (1 if width == 1 else 2), bool(own)))
        e = extrapolate(fit(blocks), 1, 100, 400)
        new = (rng.exponential(size=50) / 16) ** (1 / 5)
        inside.append(((e.low <= new) & (new <= e.high)).mean())
    assert 0.92 <= np.mean(inside) <= 0.98


def test_measurements_name_their_n_and_min_is_refused(context_of):
    logits, labels = cloud(1)
    result = Expansivity(curve=0, nearest="never").evaluate(context_of(logits, labels))
    for reduction in ("max", "mean"):
        found = result[f"expansive_constant.{reduction}.larger"]
        assert found.kind is Kind.ESTIMATE and found.n == 400 and found.witness["N"] == 1600
        assert found.interval[0] < found.value < found.interval[1]
        assert "coverage is not yet checked" in found.note and "1600" in found.note
    refused = result["expansive_constant.min.larger"]
    assert refused.value is None and refused.interval is None and "bootstrap of a minimum is invalid" in refused.note
    assert [row[:2] for row in result.tables["larger"].rows if row[1] == "max"] == [
        [n, "max"] for n in (800, 1600, 4000)
    ]
    asked = Expansivity(curve=0, nearest="never", extrapolate=1600).evaluate(context_of(logits, labels))
    assert asked["expansive_constant.max.larger"] == result["expansive_constant.max.larger"]
    assert [row[0] for row in asked.tables["larger"].rows] == [1600, 1600]


@pytest.mark.parametrize(
    ("change", "extrapolate", "reason"),
    [("few", 0, "too few"), ("twins", 0, "coincide"), ("", 400, "no larger sample")],
)
def test_undefined_with_the_reason(context_of, change, extrapolate, reason):
    logits, labels = cloud(2, images=60 if change == "few" else 400)
    if change == "twins":
        logits[:, 1], labels[:2] = logits[:, 0], (0, 1)
    found = Expansivity(curve=0, nearest="never", extrapolate=extrapolate).evaluate(context_of(logits, labels))
    measured = found["expansive_constant.max.larger"]
    assert measured.value is None and reason in measured.note and "larger" not in found.tables
