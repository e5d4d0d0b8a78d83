"""A property's answer is taken in the form in which it is stored, and is computed twice before it counts."""

from __future__ import annotations

import math

import pytest

from stabilitykit import evaluate
from stabilitykit.base.errors import PluginProblem
from stabilitykit.base.results import Kind, Measurement, PropertyResult, Table
from stabilitykit.evaluation import acceptance
from stabilitykit.evaluation.acceptance import stored_form
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


def one(value=1.0, **more):
    return Measurement("x", value, Kind.EXACT, 1, **more)


@pytest.mark.parametrize(
    "result, message",
    [
        ({"x": 1}, "returned dict"),
        (PropertyResult([{"name": "x"}]), "no list of Measurement"),
        (PropertyResult((one(),)), "no list of Measurement"),
        (PropertyResult([]), "without a measurement or a table"),
    ],
)
def test_what_is_no_result_is_the_plugins_fault(result, message):
    with pytest.raises(PluginProblem, match=message):
        stored_form(result)


def test_tables_alone_are_a_result():
    assert stored_form(PropertyResult([], {"t": Table(["a"], [[1]])})).tables["t"].rows == [[1]]


def test_what_is_reported_is_what_is_stored():
    given = PropertyResult([one(witness={"indices": (1, 2)})], {"t": Table(["a"], [(1, math.inf)])}, images=[3])
    found = stored_form(given)
    assert found == PropertyResult.from_json(found.to_json())
    assert found.measurements[0].witness == {"indices": [1, 2]} and found.tables["t"].rows == [[1, "inf"]]
    given.images.append(4)
    assert found.images == [3]


def test_infinite_values_survive_storing():
    assert stored_form(PropertyResult([one(math.inf)])).measurements[0].value == math.inf


def test_arrays_are_no_result(monkeypatch):
    monkeypatch.setattr(acceptance, "MAX_RESULT_BYTES", 1000)
    assert stored_form(PropertyResult([one()]))
    with pytest.raises(PluginProblem, match="report summaries"):
        stored_form(PropertyResult([one()], {"t": Table(["a"], [[i] for i in range(1000)])}))


def test_two_measurements_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two measurements"):
        stored_form(PropertyResult([one(), one()]))


class Wobbly(Property):
    """A property whose second computation is off by a fraction."""

    needs = wants = ()
    name = "wobbly"

    def __init__(self, off):
        self.off = off

    def evaluate(self, context):
        return PropertyResult([one(3.0, witness=context.describe_images(context.indices[:2]))])

    def verify(self, context, result):
        if self.off is None:
            raise RuntimeError("no second time")
        return {"x": 3.0 * (1 + self.off)}


@pytest.mark.parametrize("off, suspicious", [(0.0, False), (1e-9, False), (5e-4, False), (2e-3, True), (0.1, True)])
def test_the_second_computation_is_recorded_and_a_large_difference_said(off, suspicious, capsys):
    done = evaluate(TinyModel(), TinyDataset(), Wobbly(off), cache=False, registry=Registry(PluginHost()))
    found = done.cells[0].result
    assert found["x"].recheck == pytest.approx(3.0 * off, rel=1e-6)
    assert (
        ("computed again" in capsys.readouterr().err) == suspicious == any("computed again" in n for n in found.notes)
    )


def test_a_failed_second_computation_costs_no_number(capsys):
    done = evaluate(TinyModel(), TinyDataset(), Wobbly(None), cache=False, registry=Registry(PluginHost()))
    assert done.cells[0].result["x"].value == 3.0 and done.cells[0].result["x"].recheck is None
    assert "the recheck failed" in capsys.readouterr().err
