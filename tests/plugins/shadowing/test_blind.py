"""Depths at which all readouts coincide take no part in shadowing; witnesses count the depths of the full course."""

import dataclasses

import numpy as np
import pytest
from stabilitykit_shadowing.property import Shadowing

from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.testing.course import TinyCourse, TinyToken
from stabilitykit.testing.fixtures import TinyModel, tiny_context
from stabilitykit.testing.property import check_property

OPTIONS = [{}, {"same_class": True}, {"unvisited": True}, {"start_tracer": False}]


def without(context, depths):
    """The same readouts at ``depths`` alone, of a system with so many depths."""
    whole = context.trajectory
    part = Trajectory(whole.logits[depths], whole.labels, whole.indices, whole.space, whole.class_names)
    return dataclasses.replace(context, model=TinyModel(blocks=len(depths) - 1), make_trajectory=lambda: part)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("blind", [(), (2,), (4,), (2, 3)], ids=str)
def test_blind_depths_change_no_number(options, blind):
    context = tiny_context(TinyToken(blocks=5, blind=blind))
    assert context.trajectory.blind == (0, *blind)
    seeing = [t for t in range(6) if t not in (0, *blind)]
    expected = Shadowing(**options).evaluate(without(context, seeing))
    found = Shadowing(**options).evaluate(context)
    assert [m.name for m in found.measurements] == [m.name for m in expected.measurements]
    for m in expected.measurements:
        assert (found[m.name].value, found[m.name].kind) == (m.value, m.kind), m.name
        assert "left out: depth" in found[m.name].note and "0 (before any block)" in found[m.name].note
    for table in ("profile", "bracket", "exact", "constants"):
        assert [list(r) for r in found.tables[table].rows] == [list(r) for r in expected.tables[table].rows]
    jump = found["smallest_jump"]
    assert jump.witness["block"] == seeing[expected["smallest_jump"].witness["block"]]
    assert jump.witness["at"] == f"layers.{jump.witness['block'] - 1}"
    for m in expected.measurements:
        for role in ("eps_orbit", "delta_orbit"):
            if m.witness.get(role):
                path = found[m.name].witness[role]["indices"]
                assert [path[t] for t in seeing] == m.witness[role]["indices"] and len(path) == 6
    assert {row[2] for row in found.tables["orbits"].rows if row[-1]} == {0, *blind}


@pytest.mark.parametrize("options", [*OPTIONS, {"family": "noise"}, {"tracers": "refined", "refine_steps": 3}], ids=str)
@pytest.mark.parametrize("model", [lambda: TinyToken(blind=(2,)), TinyCourse], ids=["blind", "course"])
def test_the_contract_holds(options, model):
    def context(dataset=None, **more):
        return tiny_context(model(), dataset, **more)

    checks = check_property(lambda: Shadowing(**options), options=options, make_context=context)
    assert [c for c in checks if not c.ok] == []
    made = context()
    result = Shadowing(**options).evaluate(made)
    again = Shadowing(**options).verify_sample(made, result)
    for name, value in again.items():
        assert value is None or value == pytest.approx(result[name].value, rel=1e-12), name


@pytest.mark.parametrize(
    ("blind", "words"),
    [((1, 2, 3), "at every depth all readouts coincide"), ((1, 3), "all readouts coincide at every depth but 2")],
)
def test_without_two_seeing_depths_nothing_is_defined(blind, words):
    result = Shadowing().evaluate(tiny_context(TinyToken(blind=blind)))
    assert all(m.value is None and words in m.note for m in result.measurements)


def test_a_class_token_has_jumps_of_its_own_at_every_depth():
    result = Shadowing().evaluate(tiny_context(TinyToken()))
    assert result["Sh_exact"].value > 0 and np.isfinite(result["Sh_exact"].value)
