"""Constants foretold for a larger N: disjoint blocks, equivariance, coverage under the law, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stabilitykit_expansivity import larger
from stabilitykit_expansivity.constants import REDUCTIONS
from stabilitykit_expansivity.expansivity import Expansivity
from stabilitykit_expansivity.foretold import foretold
from stabilitykit_expansivity.larger import Block, cross_pairs, extrapolate, fit, halves, measure, simulate

from stabilitykit import Kind
from stabilitykit.search import closest_pair


def cloud(seed, images=1000, classes=3):
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
    a, b = (np.array(extrapolate(law, simulate(), 140, 100, 400)) for law in (plain, scaled))
    assert b == pytest.approx(scale * a) and a[1] < a[0] < a[2]


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
    rng, simulated = np.random.default_rng(1), simulate()
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
        _, low, high = extrapolate(fit(blocks), simulated, 1, 100, 400)
        new = (rng.exponential(size=50) / 16) ** (1 / 5)
        inside.append(((low <= new) & (new <= high)).mean())
    assert 0.92 <= np.mean(inside) <= 0.98


def test_the_law_of_uncensored_blocks_of_one_size_is_scipys():
    """Blocks of as many pairs, each with its own closest one, are a plain Weibull sample."""
    values = stats.weibull_min(3, scale=0.2).rvs(30, random_state=0)
    shape, _, scale = stats.weibull_min.fit(values, floc=0)
    law = fit([Block(v, 50, True) for v in values])
    assert law.shape == pytest.approx(shape, rel=1e-3)
    assert law.log_scale(50) == pytest.approx(np.log(scale), abs=1e-3)


def test_censored_blocks_are_those_of_scipy():
    values = stats.weibull_min(3, scale=0.2).rvs(30, random_state=1)
    data = stats.CensoredData.right_censored(values, np.arange(30) % 3 == 0)
    shape, _, scale = stats.weibull_min.fit(data, floc=0)
    law = fit([Block(v, 1, k % 3 != 0) for k, v in enumerate(values)])
    assert law.shape == pytest.approx(shape, rel=1e-3)
    assert law.log_scale(1) == pytest.approx(np.log(scale), abs=1e-3)


def test_measurements_name_their_n_and_min_is_refused(context_of):
    logits, labels = cloud(1)
    context = context_of(logits, labels)
    whole = {r: closest_pair(logits.astype(np.float32), labels, r) for r in ("max", "min", "mean")}
    found = {m.name.split(".")[1]: m for m in foretold(context, labels, whole, 4000)}
    for reduction in ("max", "mean"):
        one = found[reduction]
        assert one.kind is Kind.ESTIMATE and one.n == 1000 and one.witness["N"] == 4000
        assert one.interval[0] < one.value < one.interval[1]
        assert "prediction interval" in one.note and "another sample of 4000 images" in one.note
    refused = found["min"]
    assert refused.value is None and refused.interval is None and "bootstrap of a minimum is invalid" in refused.note


def test_nothing_is_foretold_unless_asked_for(context_of):
    logits, labels = cloud(3, images=60)
    plain, asked = (
        Expansivity(curve=0, nearest="never", extrapolate=n).evaluate(context_of(logits, labels)) for n in (0, 400)
    )
    names = [m.name for m in asked.measurements if m.name.endswith(".larger")]
    assert names == [f"expansive_constant.{r}.larger" for r in ("max", "min", "mean")]
    assert [m for m in asked.measurements if m.name not in names] == plain.measurements


@pytest.mark.parametrize(
    ("change", "size", "reason"),
    [("few", 4000, "too few"), ("twins", 4000, "coincide"), ("", 1000, "no larger sample"), ("steep", 4000, "faster")],
)
def test_undefined_with_the_reason(context_of, change, size, reason):
    logits, labels = cloud(2, images=60 if change == "few" else 1000)
    if change == "twins":
        logits[:, 1], labels[:2] = logits[:, 0], (0, 1)
    if change == "steep":  # on a line the smallest distance falls as N^-2
        logits[:] = logits[:1, :, :1]
    values = logits.astype(np.float32)
    found = foretold(context_of(logits, labels), labels, {r: closest_pair(values, labels, r) for r in REDUCTIONS}, size)
    assert [(m.value, m.interval) for m in found] == [(None, None)] * 3
    assert all(reason in m.note for m in found if ".min." not in m.name)
