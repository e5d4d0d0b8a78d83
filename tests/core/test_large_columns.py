"""Columns of a million: written by compiled code, byte for byte as the plain way writes them."""

from __future__ import annotations

import csv
import io
import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.base.files import indented
from stabilitykit.base.results import to_plain
from stabilitykit.base.text import safe_cell
from stabilitykit.runs.rows import _texts

texts = st.text(max_size=4) | st.sampled_from(["nan", "=1", "-2", "\udc80", '"\n'])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
data = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=4)
)


def one_by_one(value):
    """``to_plain`` of plain data, looking at every value by itself."""
    if isinstance(value, dict):
        return {k: one_by_one(v) for k, v in value.items()}
    if isinstance(value, list):
        return [one_by_one(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


@settings(max_examples=50, deadline=None)
@given(data)
def test_plain_data_is_plain_however_it_is_seen(value):
    assert json.dumps(to_plain(value)) == json.dumps(one_by_one(value))


@settings(max_examples=50, deadline=None)
@given(data)
def test_json_is_that_of_the_library(value):
    plain = to_plain(value)
    assert "".join(indented(plain)) == json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)


@given(st.lists(scalars, max_size=8))
def test_cells_of_a_table_are_safe(values):
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([safe_cell(value), "end"] for value in values)
    assert "".join(f"{text},end\n" for text in _texts(values)) == stream.getvalue()
