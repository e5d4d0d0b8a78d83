"""Depths before ``first_depth`` do not count: whatever they hold, and as if they were not there."""

import dataclasses

import numpy as np
import pytest
from stabilitykit_expansivity.expansivity import Expansivity

from stabilitykit import CellProblem
from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.testing.fixtures import TinyModel, tiny_context
from stabilitykit.testing.property import check_property


def altered(context, first):
    """The same with noise for readouts before ``first``."""
    whole = context.trajectory
    logits = whole.logits.copy()
    logits[:first] = np.random.default_rng(0).standard_normal(logits[:first].shape)
    other = dataclasses.replace(whole, logits=logits)
    return dataclasses.replace(context, make_trajectory=lambda: other)


@pytest.mark.parametrize("first", [1, 2])
def test_constants_are_those_of_the_depths_that_count(first):
    context = tiny_context()
    found = Expansivity(first_depth=first).evaluate(context)
    whole = context.trajectory
    part = Trajectory(whole.logits[first:], whole.labels, whole.indices, whole.space, whole.class_names)
    later = dataclasses.replace(context, model=TinyModel(blocks=part.depth), make_trajectory=lambda: part)
    expected = Expansivity().evaluate(later)
    for m in expected.measurements:
        assert found[m.name].value == m.value + first * (m.name == "prediction_depth.mean"), m.name
        if "block" in m.witness:
            assert found[m.name].witness["block"] == m.witness["block"] + first
            assert found[m.name].witness["left_out"] == list(range(first))
            assert f"before first_depth={first}" in found[m.name].note
    for name, column in expected.per_image.items():
        assert np.array_equal(found.per_image[name], column)
    again = Expansivity(first_depth=first).evaluate(altered(context, first))
    assert [m.value for m in again.measurements] == [m.value for m in found.measurements]


def test_the_contract_holds_and_the_witness_of_other_depths_does_not():
    options = {"first_depth": 2}
    assert [c for c in check_property(lambda: Expansivity(**options), options=options) if not c.ok] == []
    context = tiny_context()
    result = Expansivity(**options).evaluate(context)
    for again in (
        Expansivity(**options).verify(context, result),
        Expansivity(**options).verify_sample(context, result),
    ):
        assert [name for name, value in again.items() if isinstance(value, str)] == []
    told = Expansivity().verify(context, result)["expansive_constant.max"]
    assert "leaves out depths [0, 1], which tell its images apart" in told


def test_a_depth_that_is_none_is_refused():
    with pytest.raises(CellProblem, match=r"first_depth=4: the depths are 0\.\.3"):
        Expansivity(first_depth=4).evaluate(tiny_context())
