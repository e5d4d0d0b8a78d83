"""Images that are classified with near certainty: constants from logits, what the search cannot tell, and flags."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stabilitykit_expansivity.constants import REDUCTIONS
from stabilitykit_expansivity.expansivity import Expansivity

from stabilitykit import Kind
from stabilitykit.dynamics.digits import LIMIT, SUBTRACTION
from tests.core.test_digits import exactly


def saturated(seed, images=9, depths=3, gap=(25.0, 60.0)):
    """Logits (depths, images, 3) of images that are all certain of class 0, and labels."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(depths, images, 3)).astype(np.float32)
    logits[..., 0] += generator.uniform(*gap, size=(depths, images)).astype(np.float32)
    return logits, np.arange(images) % 3


def true_minimum(logits, labels, reduction):
    reduce = {"max": max, "min": min, "mean": lambda values: sum(values) / len(values)}[reduction]
    pairs = [(i, j) for i, j in itertools.combinations(range(len(labels)), 2) if labels[i] != labels[j]]
    return min(reduce([exactly(at[i], at[j]) for at in logits]) for i, j in pairs)


@settings(max_examples=6)
@given(st.integers(0, 2**20), st.sampled_from([(25.0, 60.0), (20.0, 32.0), (1.0, 45.0)]))
@example(1884, (1.0, 45.0))  # a mean below the limit over depths above it
def test_the_minimum_lies_in_the_interval(context_of, seed, gap):
    logits, labels = saturated(seed, gap=gap)
    context = context_of(logits, labels, "probabilities")
    result = Expansivity(curve=2).evaluate(context)
    for reduction in REDUCTIONS:
        m, true = result[f"expansive_constant.{reduction}"], float(true_minimum(logits, labels, reduction))
        if m.kind is Kind.EXACT:
            assert m.value >= LIMIT and m.value == pytest.approx(true, abs=SUBTRACTION)
            continue
        low, high = m.interval
        assert m.kind is Kind.UPPER and 0 < m.value < 2 * LIMIT and high == m.value and high - low <= 2 * SUBTRACTION
        assert low <= true * (1 + 1e-9) and true <= high * (1 + 1e-9)
        rows = m.witness["indices"]
        apart = [float(exactly(at[rows[0]], at[rows[1]])) for at in logits]
        assert m.witness["distances"] == pytest.approx(apart, rel=1e-4)
        assert "computed from logits" in m.note


def test_tables_columns_and_verification_tell_the_same_number(context_of, monkeypatch):
    logits, labels = saturated(3)
    context = context_of(logits, labels, "probabilities")
    monkeypatch.setattr(type(context), "logits", lambda self, rows: self.trajectory.logits[:, rows])
    prop = Expansivity(curve=2)
    result = prop.evaluate(context)
    assert all(value == result[name].value for name, value in prop.verify(context, result).items() if value is not None)
    for name, value in prop.verify_sample(context, result).items():
        assert isinstance(value, float) and value == pytest.approx(result[name].value, rel=1e-9), name
    for reduction in REDUCTIONS:
        value = result[f"expansive_constant.{reduction}"].value
        rows = [dict(zip(t.columns, row)) for t in (result.tables["curve"],) for row in t.rows]
        whole = next(r for r in rows if r["reduction"] == reduction and r["N"] == len(labels))
        assert whole["value"] == pytest.approx(value, rel=1e-9)
    closest = [dict(zip(result.tables["depth"].columns, row))["closest"] for row in result.tables["depth"].rows]
    assert 0 < min(closest) <= result["expansive_constant.min"].value * (1 + 1e-9)
    assert (np.array(result.per_image["nearest_min_distance"]) > 0).all()
    pairs = [dict(zip(result.tables["class_pairs"].columns, row)) for row in result.tables["class_pairs"].rows]
    assert all(row["value"] > 0 for row in pairs)


def test_few_digits_are_flagged_and_duplicates_are_exact(context_of):
    logits, labels = saturated(5, gap=(1.0, 2.0))
    logits[:, 1] = logits[:, 0]
    logits[0, 1, 0] += 1e-5  # float32 logits of a network are no better than that
    found = Expansivity(curve=0).evaluate(context_of(logits, labels, "probabilities"))
    few = found["expansive_constant.max"]
    assert few.witness["indices"] == [0, 1] and few.witness["digits"] < 4 and "trustworthy" in few.note
    assert "trustworthy" in found["expansive_constant.max.normalised"].note
    equal = found["expansive_constant.min"]
    assert (equal.value, equal.kind, equal.interval) == (0.0, Kind.EXACT, None) and "digits" not in equal.witness
    apart = Expansivity(curve=0).evaluate(context_of(3 * np.eye(3)[None].repeat(2, 0), np.arange(3), "probabilities"))
    assert all("digits" not in m.witness and m.kind is Kind.EXACT for m in apart.measurements)
