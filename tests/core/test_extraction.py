"""Faster extraction: compiled and low-precision trajectories are the network's, and what they move is stated."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit import CellProblem, Component, Kind, Measurement, PropertyResult
from stabilitykit.base.results import EXTRACTION_EFFECT
from stabilitykit.dynamics.compiled import CompiledForward
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.trajectory import batch_logits
from stabilitykit.evaluation.extraction_effect import ExtractionEffect
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


class Largest(Property):
    """Largest norm of a final readout; fails on small samples if told so."""

    least = 0

    def evaluate(self, context):
        if len(context.indices) < type(self).least:
            raise CellProblem("too few images")
        norms = np.linalg.norm(context.trajectory.values[-1], axis=1)
        witness = context.describe_images([context.indices[norms.argmax()]])
        return PropertyResult(
            [
                Measurement("largest", norms.max(), Kind.EXACT, len(norms), witness=witness),
                Measurement("nothing", None, Kind.EXACT, len(norms), note="never defined."),
            ]
        )

    def verify(self, context, result):
        rows = context.rows_of(result["largest"].witness["indices"])
        return {"largest": float(np.linalg.norm(context.readouts(rows)[-1, 0]))}


@pytest.fixture
def registry():
    def component(kind, name, target):
        return Component(kind, name, f"{__name__}:{target}", "", distribution="test-dist", version="7")

    return Registry(
        PluginHost(
            components=[
                component("property", "largest", "Largest"),
                Component(
                    "property",
                    "twice",
                    f"{__name__}:Twice",
                    "",
                    needs=("largest",),
                    distribution="test-dist",
                    version="7",
                ),
            ]
        )
    )


def measured(registry, count=24, **more):
    run = stabilitykit.evaluate(
        TinyModel(), TinyDataset(count), "largest", registry=registry, cache=False, space="logits", **more
    )
    assert run.ok, run.cells[0].error
    return run["largest"]


def test_the_effect_of_bfloat16_is_what_two_runs_differ_by(registry):
    low, plain = measured(registry, extract_dtype="bfloat16"), measured(registry)
    assert low["largest"].value != plain["largest"].value
    name, before, after, difference = low.tables[EXTRACTION_EFFECT].rows[0]
    assert (name, before, after) == ("largest", plain["largest"].value, low["largest"].value)
    assert difference == after - before
    assert "bfloat16 extraction moved it from" in low["largest"].note and "on 24 images" in low["largest"].note
    assert low["nothing"].note == (
        "never defined. bfloat16 extraction moved it in a way that could not be measured on 24 images"
    )
    assert EXTRACTION_EFFECT not in plain.tables and plain["largest"].note == ""


def test_the_effect_is_measured_on_a_part_of_many_images(registry):
    low = measured(registry, count=260, extract_dtype="bfloat16", batch_size=7)
    part = measured(registry, count=260, extract_dtype="bfloat16", batch_size=7, limit=200)
    assert "on 200 images" in low["largest"].note
    assert low.tables[EXTRACTION_EFFECT].rows == part.tables[EXTRACTION_EFFECT].rows


def test_a_property_that_fails_on_the_part_costs_no_number(registry, monkeypatch):
    monkeypatch.setattr(Largest, "least", 201)
    low = measured(registry, count=220, extract_dtype="bfloat16")
    assert low["largest"].value is not None and EXTRACTION_EFFECT not in low.tables
    assert "could not be measured on 200 images: " in low.notes[0] and "too few images" in low.notes[0]


class Twice(Property):
    """Needs another property."""

    def evaluate(self, context):
        return PropertyResult([Measurement("twice", 2 * context.results["largest"]["largest"].value, Kind.EXACT, 1)])


def test_a_resumed_run_states_the_same_effect(registry, tmp_path):
    """What a property needs is measured on the sample even if its own cell was finished before."""

    def run(folder, resume):
        return stabilitykit.evaluate(
            TinyModel(),
            TinyDataset(24),
            ["largest", "twice"],
            registry=registry,
            cache=False,
            extract_dtype="bfloat16",
            output=folder,
            resume=resume,
        )

    whole = run(tmp_path / "whole", False)["twice"]
    run(tmp_path / "again", False)
    (cell,) = [path for path in (tmp_path / "again" / "cells").iterdir() if "twice" in path.name]
    cell.unlink()
    resumed = run(tmp_path / "again", True)["twice"]
    assert resumed.to_json() == whole.to_json()
    assert resumed.tables[EXTRACTION_EFFECT].rows[0][3] is not None


def test_a_model_that_cannot_be_built_twice_costs_no_number(registry, monkeypatch):
    monkeypatch.setattr(ExtractionEffect, "_made", lambda self: (_ for _ in ()).throw(RuntimeError("no more memory")))
    low = measured(registry, extract_dtype="bfloat16")
    assert low["largest"].value is not None and "no more memory" in low.notes[0]


def test_plain_means_float64_where_float64_was_asked_for(registry):
    exact = measured(registry, extract_dtype="float64", channels_last=True)
    assert exact.tables[EXTRACTION_EFFECT].columns == ["measurement", "plain float64", "NHWC", "difference"]
    assert "NHWC extraction moved it not at all" in exact["largest"].note


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled_trajectories_are_those_of_the_blocks(registry, tmp_path):
    plain = measured(registry, batch_size=10)
    compiled = measured(registry, batch_size=10, compile=True)  # 24 images: the last batch is filled up
    assert compiled["largest"].value == pytest.approx(plain["largest"].value, rel=1e-6)
    assert compiled["largest"].recheck == 0.0
    assert "compiled extraction moved it" in compiled["largest"].note


def recorded_only(graph, **_):
    """In place of torch.compile: the recorded operations themselves."""
    return graph


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_recorded_operations_are_the_models_bit_for_bit(monkeypatch, dtype):
    monkeypatch.setattr(torch, "compile", recorded_only)
    model = TinyModel()
    readout = HeadReadout(model)
    images = TinyDataset(8).images(range(8))
    inputs = model.preprocess(images)
    forward = CompiledForward(model, readout, 8)
    for batch in (inputs, inputs[:8] * 2, inputs[:3]):
        np.testing.assert_array_equal(
            batch_logits(model, readout, batch, dtype, forward)[:, :3],
            batch_logits(
                model, readout, torch.cat([batch, batch[-1:].expand(8 - len(batch), *batch.shape[1:])]), dtype
            )[:, :3],
        )
    assert forward.difference == 0.0


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        (lambda graph, **_: lambda *parts: tuple(1.1 * x for x in graph(*parts)), "torch.compile moves logits by"),
        (lambda graph, **_: lambda *parts: (_ for _ in ()).throw(RuntimeError("no compiler")), "no compiler"),
    ],
)
def test_a_compiler_that_fails_or_computes_something_else_is_found_out(registry, monkeypatch, compiler, message):
    monkeypatch.setattr(torch, "compile", compiler)
    run = stabilitykit.evaluate(TinyModel(), TinyDataset(8), "largest", registry=registry, cache=False, compile=True)
    assert message in run.cells[0].error["message"] and "leave out --compile" in run.cells[0].error["message"]
