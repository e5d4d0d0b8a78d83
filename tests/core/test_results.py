"""Measurements survive JSON to the last bit and refuse to be vague."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit import Kind, Measurement, PropertyResult, Table
from stabilitykit.base.results import divide_bounds, to_plain

floats = st.floats(allow_nan=False)


@given(
    value=st.none() | floats,
    low=st.none() | floats,
    high=st.none() | floats,
    n=st.integers(0, 10**9),
    kind=st.sampled_from(list(Kind)),
)
def test_measurement_round_trip(value, low, high, n, kind):
    before = Measurement("x", value, kind, n, witness={"indices": [1, 2], "eps": 0.5}, interval=(low, high))
    after = Measurement.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))
    assert after == before


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        Measurement("x", math.nan, Kind.EXACT, 1)


def test_kind_is_checked():
    with pytest.raises(ValueError):
        Measurement("x", 1.0, "certain", 1)  # type: ignore[arg-type]


def test_numpy_becomes_plain():
    data = to_plain({"a": np.arange(2), "b": np.float64(np.inf), "c": (np.int32(3), {"d": np.bool_(True)})})
    assert data == {"a": [0, 1], "b": "inf", "c": [3, {"d": True}]}
    json.dumps(data, allow_nan=False)


def test_result_round_trip():
    result = PropertyResult(
        [Measurement("m", 0.1, Kind.UPPER, 3)], {"t": Table(["a"], [[1.5], ["x"]], "T")}, [4], ["n"]
    )
    again = PropertyResult.from_json(json.loads(json.dumps(result.to_json())))
    assert again.to_json() == result.to_json()
    assert again["m"].value == 0.1
    with pytest.raises(KeyError, match="there are"):
        again["absent"]


FACTORS = (Fraction(1), Fraction(3, 2), Fraction(40), Fraction(10**9))


def possible(claim: Fraction, kind: Kind) -> list[Fraction]:
    """Samples of what a number may truly be that is claimed to be of this kind."""
    above, below = [claim * f for f in FACTORS], [claim / f for f in FACTORS]
    return {Kind.EXACT: [claim], Kind.UPPER: below, Kind.LOWER: above, Kind.ESTIMATE: above + below}[kind]


def kind_of(claim: Fraction, truths: list[Fraction]) -> Kind:
    """The strongest kind that a claim can have when all of these may be true."""
    never_above, never_below = (all(claim >= t for t in truths), all(claim <= t for t in truths))
    return {(True, True): Kind.EXACT, (True, False): Kind.UPPER, (False, True): Kind.LOWER}.get(
        (never_above, never_below), Kind.ESTIMATE
    )


@pytest.mark.parametrize("denominator", Kind)
@pytest.mark.parametrize("numerator", Kind)
@pytest.mark.parametrize(
    "a, b", [(Fraction(1), Fraction(1)), (Fraction(3), Fraction(7)), (Fraction(10**20), Fraction(1, 9))]
)
def test_a_quotient_is_of_the_kind_that_interval_arithmetic_leaves(a, b, numerator, denominator):
    quotients = [x / y for x in possible(a, numerator) for y in possible(b, denominator)]
    assert divide_bounds(numerator, denominator) is kind_of(a / b, quotients)
