"""Runs: cells stand alone, needs are met, culprits are named, interrupted runs resume to the same results."""

import json
import signal

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit import CellProblem, Component, Kind, Measurement, Option, PropertyResult, UsageProblem
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.runs.folder import CSV_COLUMNS, RunFolder, load_run
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


class Spread(Property):
    """Largest norm of a readout, with its image as witness."""

    calls = 0

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def evaluate(self, context):
        type(self).calls += 1
        norms = np.linalg.norm(context.trajectory.values[-1], axis=1) * self.scale
        row = int(norms.argmax())
        witness = context.describe_images([context.indices[row]])
        return PropertyResult(
            [Measurement("spread", norms[row], Kind.EXACT, len(norms), witness=witness)],
            images=[int(context.indices[row])],
        )

    def verify(self, context, result):
        rows = context.rows_of(result["spread"].witness["indices"])
        return {"spread": float(np.linalg.norm(context.readouts(rows)[-1, 0])) * self.scale}


class Doubled(Property):
    def evaluate(self, context):
        return PropertyResult([Measurement("doubled", 2 * context.results["spread"]["spread"].value, Kind.EXACT, 1)])


class Names(Property):
    def evaluate(self, context):
        names = sorted(context.results)
        return PropertyResult([Measurement("count", len(names), Kind.EXACT, 1)], notes=names)


class Raises(Property):
    def evaluate(self, context):
        raise RuntimeError("something\nwith two lines")


class Clear(Property):
    def evaluate(self, context):
        raise CellProblem("one class only")


class ReturnsNan(Property):
    def evaluate(self, context):
        return PropertyResult([Measurement("x", float("nan"), Kind.EXACT, 1)])


class ReturnsDict(Property):
    def evaluate(self, context):
        return {"x": 1}


class Prints(Property):
    def evaluate(self, context):
        print("noise on stdout")
        return PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)])


class Modifies(Property):
    def evaluate(self, context):
        with torch.no_grad():
            next(context.model.module.parameters()).add_(1.0)
        return PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)])


class Exits(Property):
    def evaluate(self, context):
        raise SystemExit(0)


class NotAProperty:
    pass


def component(kind, name, target, **more):
    return Component(kind, name, f"{__name__}:{target}", "", distribution="test-dist", version="7", **more)


@pytest.fixture
def registry():
    properties = [
        component("property", "spread", "Spread", options=(Option("scale", "float", 1.0),)),
        component("property", "doubled", "Doubled", needs=("spread",)),
        component("property", "needs-raises", "Doubled", needs=("raises",)),
        component("property", "wants", "Names", wants=("spread", "raises")),
        component("property", "circle-a", "Doubled", needs=("circle-b",)),
        component("property", "circle-b", "Doubled", needs=("circle-a",)),
    ]
    for name in ("Raises", "Clear", "ReturnsNan", "ReturnsDict", "Prints", "Modifies", "Exits", "NotAProperty"):
        properties.append(component("property", name.lower(), name))
    things = [
        component("model", "tiny", "TinyModel", options=(Option("seed", "int", 0), Option("classes", "int", 3))),
        component(
            "dataset",
            "tiny",
            "TinyDataset",
            options=(Option("count", "int", 24), Option("seed", "int", 0), Option("classes", "int", 3)),
        ),
    ]
    return Registry(PluginHost(components=[*properties, *things]))


def run(registry, properties, model="tiny", dataset="tiny", **more):
    return stabilitykit.evaluate(model, dataset, properties, registry=registry, **({"cache": False} | more))


def test_needs_are_added_and_met_once(registry):
    Spread.calls = 0
    outcome = run(registry, ["doubled", "spread"])
    assert outcome.ok and [c.property for c in outcome.cells] == ["spread", "doubled"] and Spread.calls == 1
    assert outcome["doubled"]["doubled"].value == 2 * outcome["spread"]["spread"].value
    added = run(registry, ["doubled"])
    assert [c.requested for c in added.cells] == [False, True]


@pytest.mark.parametrize(
    "name, message",
    [
        ("raises", "RuntimeError: something"),
        ("clear", "one class only"),
        ("returnsnan", "NaN"),
        ("returnsdict", "expected a PropertyResult"),
        ("modifies", "modified the model"),
        ("exits", "SystemExit"),
        ("notaproperty", "expected a stabilitykit.Property"),
        ("needs-raises", "needs property raises, which failed"),
    ],
)
def test_one_bad_property_leaves_the_rest_and_is_named(registry, name, message, capsys):
    outcome = run(registry, [name, "spread"])
    bad = next(c for c in outcome.cells if c.property == name)
    assert outcome.exit_code == 1 and not bad.ok and message in bad.error["message"]
    assert "\n" not in bad.error["message"] and "test-dist 7" in bad.error["culprit"]
    reference = run(registry, ["spread"])
    assert outcome["spread"].to_json() == reference["spread"].to_json()


def test_a_wanted_property_may_fail(registry):
    outcome = run(registry, ["wants"])
    assert outcome["wants"].notes == ["spread"]
    assert {c.property: c.ok for c in outcome.cells} == {"spread": True, "raises": False, "wants": True}


def test_matrix(registry):
    outcome = run(
        registry, ["spread", "spread:scale=2.0"], model=["tiny", "tiny:seed=1"], dataset=["tiny", "tiny:seed=5"]
    )
    assert len(outcome.cells) == 8 and outcome.ok
    frame = outcome.frame()
    assert len(frame) == 8 and set(frame.columns) == set(CSV_COLUMNS)
    assert frame["value"].tolist() == [cell.result["spread"].value for cell in outcome.cells]
    values = {(c.model, c.dataset, c.property): c.result["spread"].value for c in outcome.cells}
    assert values["tiny", "tiny", "spread:scale=2.0"] == 2 * values["tiny", "tiny", "spread"]


def test_a_pair_that_cannot_be_built_fails_alone_in_a_matrix(registry):
    outcome = run(registry, ["spread"], model=["tiny", "tiny:classes=5"])
    assert [c.ok for c in outcome.cells] == [True, False]
    assert "5 classes" in outcome.cells[1].error["message"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": "tiny:classes=5"}, "tells 5 classes apart"),
        ({"device": "cuda:99"}, "CUDA"),
        ({"device": "abacus"}, "unknown device"),
        ({"limit": 1}, "limit"),
        ({"batch_size": 0}, "batch size"),
        ({"readout": "x"}, "readout"),
        ({"space": "x"}, "space"),
        ({"seed": -1}, "seed"),
        ({"model": "tinny"}, "did you mean tiny"),
        ({"checkpoint": "x.safetensors"}, "takes no checkpoint"),
        ({"checkpoint": ["a", "b"]}, "2 checkpoint"),
        ({"model": 3}, "got int"),
        ({"model": ["tiny", "tiny"]}, "twice"),
    ],
)
def test_bad_input_writes_nothing(registry, tmp_path, arguments, message):
    with pytest.raises(UsageProblem, match=message):
        run(registry, ["spread"], output=tmp_path / "run", **arguments)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]
    assert written == []


def test_circle_of_needs(registry):
    with pytest.raises(UsageProblem, match="circle"):
        run(registry, ["circle-a"])


def test_objects_instead_of_names():
    outcome = stabilitykit.evaluate(TinyModel(), TinyDataset(), Spread(), cache=False, registry=Registry(PluginHost()))
    assert outcome.ok and outcome["property"]["spread"].n == 24


def test_run_folder(registry, tmp_path):
    folder = tmp_path / "run"
    outcome = run(registry, ["spread", "raises"], output=folder)
    info, cells = load_run(folder)
    assert info["status"] == "complete" and info["pairs"][0]["certificate"]["bit_exact"] is True
    assert [c.to_json() for c in cells] == [c.to_json() for c in outcome.cells]
    lines = (folder / "measurements.csv").read_text().splitlines()
    assert lines[0].split(",") == list(CSV_COLUMNS) and len(lines) == 3
    index = outcome["spread"].images[0]
    assert (folder / "images" / "tiny" / f"{index}.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageProblem, match="--resume"):
        run(registry, ["spread"], output=folder)


def test_folder_in_use_by_somebody_else(registry, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for resume in (False, True):
        with pytest.raises(UsageProblem, match="not empty"):
            run(registry, ["spread"], output=tmp_path, resume=resume)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_resume_repeats_only_what_is_missing(registry, tmp_path):
    whole = run(registry, ["spread", "doubled"], output=tmp_path / "whole")
    folder = tmp_path / "part"
    run(registry, ["spread", "doubled"], output=folder)
    next((folder / "cells").glob("*doubled*")).unlink()
    Spread.calls = 0
    again = run(registry, ["spread", "doubled"], output=folder, resume=True)
    assert Spread.calls == 0
    assert [c.result.to_json() for c in again.cells] == [c.result.to_json() for c in whole.cells]
    with pytest.raises(UsageProblem, match="another request"):
        run(registry, ["spread"], output=folder, resume=True)


def test_newer_schema_and_damaged_cells_are_refused(registry, tmp_path):
    folder = tmp_path / "run"
    run(registry, ["spread"], output=folder)
    data = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(data | {"schema": 99}))
    with pytest.raises(UsageProblem, match="schema 99"):
        load_run(folder)
    (folder / "run.json").write_text(json.dumps(data))
    next((folder / "cells").iterdir()).write_text('{"model": 1}')
    with pytest.raises(UsageProblem, match="not a cell"):
        load_run(folder)
    with pytest.raises(UsageProblem, match=r"no run|does not exist"):
        RunFolder(tmp_path / "none").read_run()


def test_determinism(registry):
    first, second = (run(registry, ["spread"], limit=9, seed=4)["spread"].to_json() for _ in range(2))
    assert first == second


def test_interrupt_leaves_finished_cells(registry, tmp_path, monkeypatch):
    def interrupt(self, context):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Prints, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(registry, ["spread", "prints"], output=tmp_path / "run")
    info, cells = load_run(tmp_path / "run")
    assert info["status"] == "interrupted" and [c.property for c in cells] == ["spread"] and cells[0].ok
    monkeypatch.undo()
    assert run(registry, ["spread", "prints"], output=tmp_path / "run", resume=True).ok
