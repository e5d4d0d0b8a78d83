"""Measurements survive JSON to the last bit and refuse to be vague."""

import json
import math

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


@given(
    a=floats.filter(lambda x: 0 < x < 1e100),
    b=floats.filter(lambda x: 1e-100 < x < 1e100),
    slack_a=st.floats(0, 10),
    slack_b=st.floats(0, 10),
    kinds=st.tuples(*[st.sampled_from(list(Kind))] * 2),
)
def test_divided_bounds_hold(a, b, slack_a, slack_b, kinds):
    """If the parts are what they claim, the quotient is what divide_bounds claims."""

    def claimed(true, slack, kind):
        return {Kind.EXACT: true, Kind.UPPER: true * (1 + slack), Kind.LOWER: true / (1 + slack)}.get(kind, true * 3)

    quotient, kind = claimed(a, slack_a, kinds[0]) / claimed(b, slack_b, kinds[1]), divide_bounds(*kinds)
    tolerance = 1e-9 * (a / b)
    if kind is Kind.LOWER:
        assert quotient <= a / b + tolerance
    elif kind is Kind.UPPER:
        assert quotient >= a / b - tolerance
    elif kind is Kind.EXACT:
        assert quotient == a / b
    else:
        assert kind is Kind.ESTIMATE
    assert divide_bounds(Kind.LOWER, Kind.UPPER) is Kind.LOWER
