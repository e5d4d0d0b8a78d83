"""JSON Schemas: every file that is written keeps them, and they name what the code writes and reads, and no more."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator

import stabilitykit
from stabilitykit.base.decisions import COLUMNS, Decisions
from stabilitykit.base.results import SCHEMA_VERSION, Kind, Measurement, PropertyResult, Table
from stabilitykit.cli import run as run_cli
from stabilitykit.cli.config import read_config
from stabilitykit.cli.evaluate import command as evaluate_command
from stabilitykit.cli.gate_terms import KEYS, RULE_KEYS
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.settings import Settings
from stabilitykit.review.gate.likeness import WHATS
from stabilitykit.runs.folder import Cell
from stabilitykit.runs.schema import SCHEMAS, schema
from stabilitykit.testing.fixtures import TinyDataset, TinyModel
from tests.core.report_runs import make_run

VALIDATORS = {name: Draft202012Validator(schema(name)) for name in SCHEMAS}
# Each file of a run folder that is JSON, and the schema that describes it.
WRITTEN = {"run": "run.json", "cell": "cells/*.json", "decisions": "decisions/*.json", "times": "times.json"}


class Confident(Property):
    """Reads the readouts, so that decisions are written; an infinite, an undefined value and a column per image."""

    name = "confident"

    def evaluate(self, context):
        n = len(context.trajectory.values[-1])
        measurements = [
            Measurement("one", float("inf"), Kind.UPPER, n, interval=(None, float("inf")), witness={"indices": [0]}),
            Measurement("two", None, Kind.ESTIMATE, n, note="undefined here"),
        ]
        tables = {"rows": Table(["a", "b"], [[1, float("inf")], ["x", None]])}
        return PropertyResult(measurements, tables, [0], ["a note"], {"column": [1.0] * n})


class Fails(Property):
    name = "fails"

    def evaluate(self, context):
        raise RuntimeError("a bug")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A real run with a cell that failed."""
    folder = tmp_path_factory.mktemp("schema") / "run"
    stabilitykit.evaluate(TinyModel(), TinyDataset(), [Confident(), Fails()], output=folder, cache=False, device="cpu")
    return folder


def complaints(name: str, data: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATORS[name].iter_errors(data)]


def written(folder: Path) -> list[tuple[str, object]]:
    found = [(n, json.loads(p.read_text())) for n, pattern in WRITTEN.items() for p in sorted(folder.glob(pattern))]
    names = {p.relative_to(folder) for p in folder.rglob("*.json")}
    assert len(found) == len(names), "a JSON file of a run folder that no schema describes"
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas_and_are_printed(name, capsys):
    Draft202012Validator.check_schema(schema(name))
    assert run_cli(["schema", name]) == 0
    assert json.loads(capsys.readouterr().out) == schema(name)


def test_schemas_are_listed_and_unknown_ones_refused(capsys):
    assert run_cli(["schema"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*SCHEMAS]
    assert run_cli(["schema", "cel"]) == 2
    assert "did you mean cell" in capsys.readouterr().err


def test_every_file_of_a_run_keeps_its_schema(run):
    files = written(run)
    assert {name for name, _ in files} == set(WRITTEN)
    assert {data["status"] for name, data in files if name == "cell"} == {"ok", "failed"}
    assert [complaint for name, data in files for complaint in complaints(name, data)] == []


def test_cells_of_shipped_properties_keep_their_schema(tmp_path):
    folder = make_run(tmp_path / "run")
    cells = [json.loads(path.read_text()) for path in folder.glob("cells/*.json")]
    assert cells and [c for cell in cells for c in complaints("cell", cell)] == []


def test_what_is_damaged_breaks_its_schema(run):
    """Every key taken away or added, at every closed place, is seen."""
    for name, data in written(run):
        places = [()]
        if name == "cell" and data["result"]:
            places += [("result",), ("result", "measurements", 0), ("result", "tables", "rows")]
        for place in places:
            for key in _at(data, place):
                if (name, key) in (("times", "created"), ("times", "command"), ("cell", "per_image")):
                    continue  # absent where there is none
                less = copy.deepcopy(data)
                del _at(less, place)[key]
                assert complaints(name, less), (name, place, key)
            more = copy.deepcopy(data)
            _at(more, place)["never_heard_of"] = 1
            assert complaints(name, more), (name, place)


def _at(data, place):
    for step in place:
        data = data[step]
    return data


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("status",), "fine"),
        (("schema",), 2),
        (("result",), None),
        (("result", "measurements", 0, "value"), "nan"),
        (("result", "measurements", 0, "kind"), "guess"),
        (("result", "measurements", 0, "n"), -1),
        (("result", "measurements", 0, "interval"), [1]),
        (("result", "images"), ["a"]),
    ],
)
def test_wrong_values_break_the_schema_of_cells(run, place, value):
    data = next(data for name, data in written(run) if name == "cell" and data["status"] == "ok")
    *way, last = place
    _at(data, way)[last] = value
    assert complaints("cell", data)


def test_schemas_name_what_the_dataclasses_write():
    cell, run, decisions = schema("cell"), schema("run"), schema("decisions")
    result = PropertyResult([], per_image={"a": [1]})
    measurement = Measurement("a", 1.0, Kind.EXACT, 1)
    assert set(cell["properties"]) == set(Cell("m", "d", "p").to_json()) - {"seconds"}
    assert set(cell["$defs"]["result"]["properties"]) == set(result.to_json())
    assert set(cell["$defs"]["measurement"]["properties"]) == set(measurement.to_json())
    assert set(cell["$defs"]["measurement"]["properties"]) == {field.name for field in fields(Measurement)}
    assert set(cell["$defs"]["table"]["properties"]) == set(Table([], []).to_json())
    assert cell["$defs"]["measurement"]["properties"]["kind"]["enum"] == [str(kind) for kind in Kind]
    assert set(decisions["properties"]) == {"schema", *(field.name for field in fields(Decisions))}
    assert tuple(decisions["properties"]["columns"]["properties"]) == COLUMNS
    request = set(run["properties"]["request"]["properties"])
    always = {"models", "datasets", "properties", "probe_dataset", "device", *Settings().request()}
    named = Settings(class_names=("a", "b"), probe_steps=3).request()
    assert request == {*always, *named, "objects"} and set(run["properties"]["request"]["required"]) == always
    assert set(Extraction().record()) < request
    for one in (cell, run, decisions):
        assert one["properties"]["schema"]["const"] == SCHEMA_VERSION
        assert one["$id"].endswith(f":{SCHEMA_VERSION}")


def test_the_schema_of_configurations_names_the_options_of_evaluate():
    known = schema("config")["properties"]
    options = {p.name: p for p in evaluate_command.params if isinstance(p, click.Option) and p.name != "config"}
    aliases = {"model": "models", "dataset": "datasets", "property": "properties"}
    aliases |= {"checkpoint": "checkpoints", "format": "output_format"}
    assert set(known) == {*options, *aliases}
    for name, target in aliases.items():
        assert known[name] == {"$ref": f"#/properties/{target}"}
    for name, option in options.items():
        if isinstance(option.type, click.Choice):
            assert known[name]["enum"] == [*option.type.choices], name
        elif option.is_flag:
            assert known[name]["type"] == "boolean", name
        elif isinstance(option.type, click.IntRange):
            assert "integer" in known[name]["type"] and known[name]["minimum"] == option.type.min, name


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (
            "models: resnet18\ndatasets: [digits, {name: mnist, options: {root: data}}]\nlimit: 10\nbatch-size: 5\n",
            True,
        ),
        ("model: resnet18\nprobe_dataset: digits\nspace: logits\n", True),
        ("modle: resnet18\n", False),
        ("limit: 1\n", False),
        ("batch-size: many\n", False),
        ("space: nowhere\n", False),
    ],
)
def test_configurations(tmp_path, text, good):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert (complaints("config", read_config(path)) == []) is good


def test_the_schema_of_gates_names_their_keys():
    known = schema("gate")
    assert tuple(known["properties"]) == KEYS
    assert tuple(known["$defs"]["entry"]["anyOf"][1]["properties"]) == RULE_KEYS
    assert known["properties"]["accept"]["anyOf"][0]["enum"] == [*WHATS]
    good = {"fail-if": ["a.x < 1", {"if": "a.x < baseline", "model": "n*"}], "baseline": "b", "accept": ["n"]}
    assert complaints("gate", good) == []
    for bad in ({"fail": 1}, {"fail-if": [{"model": "a"}]}, {"tolerance": -1}, {"accept": "all"}):
        assert complaints("gate", bad)
