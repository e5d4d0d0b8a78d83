"""Two trees are equal only where every leaf of both is."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.review.leaves import Difference, differences, leaves

leaf = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=2)
trees = st.recursive(
    leaf, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text("ab", max_size=2), t, max_size=3), max_leaves=12
)


@given(trees)
def test_a_tree_equals_its_copy(tree):
    assert list(differences(tree, copy.deepcopy(tree))) == []


@pytest.mark.parametrize(
    "a, b, paths",
    [
        ({"x": [1, 2]}, {"x": [1, 2, 3]}, ["x[2]"]),
        ({"x": [1, 2, 3]}, {"x": [1]}, ["x[1]", "x[2]"]),
        ({"x": 1}, {"x": 1, "y": None}, ["y"]),
        ({"x": 1, "y": 0}, {"x": 1}, ["y"]),
        ({"x": True}, {"x": 1}, ["x"]),
        ({"x": 0}, {"x": False}, ["x"]),
        ({"x": {}}, {"x": []}, ["x"]),
        ({"x": "1"}, {"x": 1}, ["x"]),
        ({"x": 1.0}, {"x": 1.0 + 2**-52}, ["x"]),
    ],
)
def test_each_difference_is_found_from_both_sides(a, b, paths):
    assert [d.path for d in differences(a, b)] == paths
    assert [d.path for d in differences(b, a)] == paths


@given(trees, leaf)
def test_no_altered_leaf_goes_unseen(tree, other):
    for path, value in leaves(tree):
        if not path or (type(value) is type(other) and value == other) or value in ({}, []):
            continue
        found = list(differences({"t": tree}, {"t": _with(tree, path, other)}))
        assert found or value == other, path


def _with(tree, wanted, other, path=""):
    """The tree with another leaf at ``wanted``."""
    if isinstance(tree, dict) and tree:
        return {k: _with(v, wanted, other, f"{path}.{k}" if path else str(k)) for k, v in tree.items()}
    if isinstance(tree, list) and tree:
        return [_with(v, wanted, other, f"{path}[{n}]") for n, v in enumerate(tree)]
    return other if path == wanted else tree


def test_close_means_numbers_within_the_tolerance():
    assert Difference("x", 1.0, 1.0 + 1e-10).within(1e-9, 0.0) and Difference("x", 0.0, 1e-13).within(0.0, 1e-12)
    assert not Difference("x", 1.0, 1.001).within(1e-9, 1e-12) and not Difference("x", 1.0, "1").within(1.0, 1.0)
    assert not Difference("x", True, 1.0).within(1.0, 1.0)
