"""What verify measures again, and what it says when model, images or settings are no longer those of the run."""

from __future__ import annotations

import json

import pytest
import torch

import stabilitykit
from stabilitykit import Component, Kind, Measurement, PropertyResult
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.review.again import SETTINGS, changes
from stabilitykit.review.circumstances import Circumstances
from stabilitykit.review.leaves import Difference
from stabilitykit.review.verify import verify

RECORD = {"model": {"fingerprint": "m"}, "dataset": {"fingerprint": "d"}, **dict.fromkeys(SETTINGS, 1)}


@pytest.mark.parametrize("former, name", [((), "m"), (("old",), "old")])
def test_what_is_as_it_was_has_not_changed(former, name):
    assert changes(RECORD, former, {**RECORD, "model": {"fingerprint": name}}) == ""


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("model", {"fingerprint": "other"}, "weights or preprocessing"),
        ("model", None, "weights or preprocessing"),
        ("dataset", {"fingerprint": "other"}, "images or labels"),
        ("dataset", None, "images or labels"),
        *((key, 2, f"{key} was 2 when it was measured and is 1 now") for key in SETTINGS),
    ],
)
def test_what_changed_is_named(key, value, said):
    assert said in changes(RECORD, (), {**RECORD, key: value})


class Careless(Property):
    """Changes the model when it is run a second time; says of one number that it rests on all images."""

    again = False

    def evaluate(self, context):
        return PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1), Measurement("y", 2.0, Kind.EXACT, 1)])

    def verify(self, context, result):
        if type(self).again:
            with torch.no_grad():
                next(context.model.module.parameters()).add_(1.0)
        return {"x": 1.0}

    def verify_sample(self, context, result):
        return {"y": 2.5}


@pytest.fixture
def verified(tmp_path):
    fixtures = "stabilitykit.testing.fixtures"
    registry = Registry(
        PluginHost(
            components=[
                Component("model", "tiny", f"{fixtures}:TinyModel", "", distribution="d"),
                Component("dataset", "tiny", f"{fixtures}:TinyDataset", "", distribution="d"),
                Component("property", "careless", "tests.core.test_again:Careless", "", distribution="d"),
            ]
        )
    )
    Careless.again = False
    stabilitykit.evaluate(
        "tiny", "tiny", "careless", registry=registry, cache=False, output=tmp_path / "run", device="cpu"
    )
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "complete"

    def found(again=False):
        Careless.again = again
        return {v.measurement: v for v in verify(tmp_path / "run", registry=registry)}

    yield found
    Careless.again = False


def test_numbers_that_rest_on_all_images_are_recomputed(verified):
    verdicts = verified()
    assert verdicts["x"].status == "stands"
    assert verdicts["y"].status == "fails" and verdicts["y"].recomputed == 2.5


def test_a_recomputation_that_changes_the_model_proves_nothing(verified):
    verdicts = verified(again=True)
    assert verdicts["x"].status == "fails" and "modified the model" in verdicts["x"].message


@pytest.mark.parametrize("path", ["result.measurements.x.value", "record.computes", "result.tables.t.rows[0]"])
def test_the_same_machine_gives_the_same_bits(path):
    here = Circumstances()
    assert here.judge(Difference(path, 1.0, 1.0 + 2**-52)) is None
    assert here.judge(Difference(path, "a", "b")) is None


def test_another_machine_drifts_and_no_more():
    there = Circumstances(other_machine=("device",))
    assert there.judge(Difference("result.measurements.x.value", 1.0, 1.00001)) == ""
    assert there.judge(Difference("result.measurements.x.value", 1.0, 1.01)) is None
    assert there.judge(Difference("record.computes", "a", "b"))
