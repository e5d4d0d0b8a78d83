"""Distances from logits against exact arithmetic; trustworthy digits against a float64 pass through the network."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stabilitykit
from stabilitykit.dynamics.digits import (
    LIMIT,
    SUBTRACTION,
    digits_note,
    digits_of,
    distance_errors,
    distances_from_logits,
    log_probabilities,
    trustworthy,
)
from stabilitykit.dynamics.space import to_space


def softmax(row):
    terms = [(Decimal(float(value)) - Decimal(float(row.max()))).exp() for value in row]
    return [term / sum(terms) for term in terms]


def exactly(first, second, digits=60):
    """The l2 distance of two softmax rows, computed with that many digits."""
    with localcontext() as context:
        context.prec, context.Emin = digits, -10_000
        return sum((p - q) ** 2 for p, q in zip(softmax(first), softmax(second))).sqrt()


@given(st.integers(0, 2**20), st.integers(2, 12), st.floats(-1, 2.4), st.floats(-6, 2))
def test_distances_from_logits_are_those_of_exact_arithmetic(seed, classes, size, apart):
    generator = np.random.default_rng(seed)
    first = (generator.standard_normal(classes) * 10**size).astype(np.float32)
    second = (first + generator.standard_normal(classes) * 10**apart).astype(np.float32)
    true = exactly(first, second, digits=260)
    found = float(distances_from_logits(first, second, "probabilities"))
    allowed = 1e-12 * float(true) + float(distance_errors(first, second, "probabilities", "float64"))
    assert abs(Decimal(found) - true) <= Decimal(allowed)
    p, q = to_space(np.stack([first, second]), "probabilities")
    assert abs(Decimal(float(np.sqrt(((p - q) ** 2).sum()))) - true) <= Decimal(SUBTRACTION)
    assert found == float(distances_from_logits(second, first, "probabilities"))


def test_near_certain_images_keep_their_digits():
    first, second = np.array([60.0, 0.0, 0.0]), np.array([61.0, 0.0, 0.0])
    p, q = to_space(np.stack([first, second]), "probabilities")
    assert (p[0], q[0]) == (1.0, 1.0)
    assert float(distances_from_logits(first, second, "probabilities")) == pytest.approx(
        float(exactly(first, second)), rel=1e-14
    )
    assert log_probabilities(first)[0] == pytest.approx(-2 * np.exp(-60), rel=1e-15)
    # Squares of differences vanish below 1e-154; the distance does not.
    far = float(distances_from_logits(np.array([400.0, 0.0]), np.array([401.0, 0.0]), "probabilities"))
    assert far == pytest.approx(np.sqrt(2) * np.exp(-400) * (1 - np.exp(-1)), rel=1e-12)
    assert float(distances_from_logits(first, second, "logits")) == 1.0


def test_count_of_digits():
    assert [trustworthy(d, 1.0) for d in (0.0, 0.5, 1.0, 9.9, 12_345.0)] == [0, 0, 0, 0, 4]
    assert trustworthy(1.0, 0.0) == trustworthy(1e300, 1e-300) == 15
    row = np.array([3.0, 1.0, 0.0], dtype=np.float32)
    assert digits_of(row, row, "probabilities", "float32") is None
    near, far = row + np.array([1e-4, 0, 0], dtype=np.float32), row[::-1]
    for space in ("probabilities", "logits"):
        counts = [digits_of(row, other, space, "float32") for other in (near, far)]
        assert counts[0] < 4 <= counts[1]
        assert digits_of(row, far, space, "bfloat16") < digits_of(row, far, space, "float32")
        assert digits_of(row, far, space, "float32", rounding=1e-2) <= 2
    assert digits_note(4, "float32") == digits_note(None, "float32") == ""
    assert "about 3 digits are trustworthy: a float32 pass" in digits_note(3, "float32")
    assert "1 digit is" in digits_note(1, "float32") and "no digit is" in digits_note(0, "float32")
    assert trustworthy(LIMIT, SUBTRACTION) >= 4 - 1  # the logarithm of a ratio of exactly 10^4


@pytest.mark.parametrize("space", ["probabilities", "logits"])
def test_a_float64_pass_agrees_in_the_digits_that_are_claimed(space, passes):
    """Of the pairs of 100 embedded digits at every depth; not of all: the error is a standard deviation."""
    narrow, wide = passes
    first, second = np.triu_indices(narrow.shape[1], 1)
    apart, again = (distances_from_logits(run[:, first], run[:, second], space) for run in (narrow, wide))
    errors = distance_errors(narrow[:, first], narrow[:, second], space, "float32")
    agreeing = -np.log10(np.maximum(np.abs(apart - again) / apart, 1e-300))
    claimed = np.array([trustworthy(d, e) for d, e in zip(apart.ravel(), errors.ravel())]).reshape(apart.shape)
    assert (claimed <= agreeing).mean() > 0.97
    assert np.median(agreeing - claimed) < 2  # and not by claiming nothing


@pytest.fixture(scope="module")
def passes():
    """Logits (9, 100, 10) of embedded digits by a float32 and a float64 pass."""
    held = []

    class Keep(stabilitykit.Property):
        name = "keep"

        def evaluate(self, context):
            held.append(np.array(context.trajectory.logits))
            return stabilitykit.PropertyResult([stabilitykit.Measurement("n", 1.0, "estimate", 1)])

    for dtype in ("float32", "float64"):
        assert stabilitykit.evaluate("resnet18-digits", "digits", [Keep()], limit=100, extract_dtype=dtype).ok
    return held
