"""Verification is green on what was measured and red when a weight, an image, a label or any leaf is altered."""

import json
import random
import re

import numpy as np
import pytest
from click.testing import CliRunner

import stabilitykit
from stabilitykit import Component, Kind, Measurement, Option, PropertyResult, Table, UsageProblem
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.review.circumstances import Circumstances
from stabilitykit.review.files import RunFiles
from stabilitykit.review.verify import verify
from stabilitykit.testing.fixtures import TinyDataset
from stabilitykit.testing.mutations import Mutated, mutations


class Pairs(Property):
    """The smallest distance of two images of different class at the last depth, with every kind of leaf."""

    def evaluate(self, context):
        values = context.trajectory.values[-1]
        apart = np.linalg.norm(values[:, None] - values[None], axis=2)
        apart[context.labels[:, None] == context.labels[None]] = np.inf
        first, second = np.unravel_index(int(apart.argmin()), apart.shape)
        value = float(apart[first, second])
        witness = context.describe_images(context.indices[[first, second]]) | {"block": len(context.trajectory.values)}
        nearest = Table(
            ["index", "nearest"],
            [[int(i), float(row.min())] for i, row in zip(context.indices, apart, strict=True)],
            "Nearest image of another class",
        )
        smallest = Measurement(
            "smallest",
            value,
            Kind.EXACT,
            len(values),
            "probability (l2)",
            witness,
            "here",
            (value, None),
            note=f"{value}",
        )
        mean = Measurement(
            "mean", float(apart[np.isfinite(apart)].mean()), Kind.EXACT, len(values), note="of all pairs"
        )
        return PropertyResult([smallest, mean], {"nearest": nearest}, witness["indices"], ["a note"])

    def verify(self, context, result):
        rows = context.rows_of(result["smallest"].witness["indices"])
        first, second = np.split(context.readouts(rows)[-1], 2)
        return {"smallest": float(np.linalg.norm(first - second, axis=1)[0])}


@pytest.fixture(scope="module")
def registry():
    def component(kind, name, target, *options, **more):
        return Component(kind, name, target, "", options=options, distribution="d", **more)

    fixtures = "stabilitykit.testing.fixtures"
    return Registry(
        PluginHost(
            components=[
                component("model", "tiny", f"{fixtures}:TinyModel", Option("seed", "int", 0)),
                component("model", "code", f"{fixtures}:TinyModel", Option("seed", "int", 0), runs_code=True),
                component("dataset", "tiny", f"{fixtures}:TinyDataset", Option("seed", "int", 0)),
                component("property", "spread", "tests.core.test_evaluation:Spread"),
                component("property", "pairs", "tests.core.test_verify:Pairs"),
                component("property", "prints", "tests.core.test_evaluation:Prints"),
            ]
        )
    )


def evaluated(registry, folder, model="tiny"):
    properties = ["spread", "pairs", "prints"]
    stabilitykit.evaluate(
        model, "tiny", properties, registry=registry, cache=False, output=folder, limit=13, batch_size=4, device="cpu"
    )
    return folder


@pytest.fixture
def folder(registry, tmp_path):
    return evaluated(registry, tmp_path / "run")


@pytest.fixture(scope="module")
def mutated(registry, tmp_path_factory):
    return Mutated(evaluated(registry, tmp_path_factory.mktemp("mutated") / "run"), registry)


def edited(folder, pattern, edit):
    """Apply ``edit`` to the JSON of the file in ``folder`` that matches."""
    path = next(folder.glob(pattern))
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_green(registry, folder):
    found = verify(folder, registry=registry)
    verdicts = {v.measurement: v for v in found}
    assert {v.status for v in found} == {"stands"} and found.ok
    assert verdicts["spread"].difference == 0.0
    assert found.circumstances.tolerance == (0.0, 0.0)
    assert {u.file for u in found.uncovered} == {"times.json", "run.json"}
    assert {v.measurement: v.status for v in verify(folder, registry=registry, witnesses_only=True)} == {
        "spread": "stands",
        "smallest": "stands",
        "mean": "not recomputed",
        "x": "not recomputed",
    }


@pytest.mark.parametrize("what", ["weights", "images", "number", "witness"])
def test_red(registry, folder, what, monkeypatch):
    from stabilitykit.testing import fixtures

    def change(data):
        measurement = data["result"]["measurements"][0]
        if what == "number":
            measurement["value"] *= 1 + 1e-6
        elif what == "witness":
            now = measurement["witness"]["indices"][0]
            measurement["witness"]["indices"] = [next(i for i in _evaluated(13).tolist() if i != now)]

    if what == "weights":
        plain = fixtures.TinyModel.__init__
        monkeypatch.setattr(fixtures.TinyModel, "__init__", lambda self, seed: plain(self, seed=seed + 1))
    elif what == "images":
        plain = fixtures.TinyDataset.__init__

        def altered(self, seed):
            plain(self, seed=seed)
            self._images[5, 0, 0, 0] += 0.01

        monkeypatch.setattr(fixtures.TinyDataset, "__init__", altered)
    edited(folder, "cells/*spread*", change)
    verdict = next(v for v in verify(folder, registry=registry) if v.property == "spread")
    assert verdict.status == "fails" and verdict.message


def test_every_altered_leaf_fails_or_is_listed_by_name(mutated):
    assert mutated.verdict(mutated.files) == "stands"
    every = list(mutations(mutated.files))
    chosen = random.Random(0).sample(every, 200)
    verdicts = [(m, mutated.verdict(m.files, m.file, m.path)) for m in chosen]
    assert [(m.file, m.path) for m, verdict in verdicts if verdict == "stands"] == []
    outside = [(m.file, m.path) for m, verdict in verdicts if verdict == "listed"]
    assert all(f == "run.json" and re.match(r"provenance\.|request\.", path) for f, path in outside)


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("measurements.csv", r"rows\[0\]\.value"),
        ("measurements.csv", r"rows\[1\]\.lower"),
        ("measurements.csv", r"rows\[1\]\.recheck"),
        ("measurements.csv", r"rows\[1\]\.witness"),
        ("measurements.csv", r"rows\[2\]\.unit"),
        ("cells/.*pairs.*", r"result\.measurements\.smallest\.witness\.classes\[0\]"),
        ("cells/.*pairs.*", r"result\.measurements\.smallest\.witness\.orders\[1\]"),
        ("cells/.*pairs.*", r"result\.measurements\.smallest\.witness\.block"),
        ("cells/.*pairs.*", r"result\.measurements\.smallest\.recheck"),
        ("cells/.*pairs.*", r"result\.measurements\.smallest\.n"),
        ("cells/.*pairs.*", r"result\.measurements\.smallest\.note"),
        ("cells/.*pairs.*", r"result\.measurements\.mean\.value"),
        ("cells/.*pairs.*", r"result\.tables\.nearest\.rows\[7\]\.nearest"),
        ("cells/.*pairs.*", r"record\.n"),
        ("cells/.*pairs.*", r"record\.dataset\.class_names\[0\]"),
        ("cells/.*pairs.*", r"record\.property\.plugin\.version"),
        ("cells/.*pairs.*", r"schema"),
        *(("run.json", rf"request\.{name}") for name in ("seed", "limit", "batch_size", "space", "device", "compile")),
        ("run.json", r"pairs\[0\]\.certificate\.bit_exact"),
        ("run.json", r"pairs\[0\]\.record\.threads"),
        ("run.json", r"cells\[1\]\[2\]"),
        ("run.json", r"status"),
        ("decisions/.*", r"columns\.(index|label|prediction|confidence|margin|prediction_depth)\[3\]"),
        ("decisions/.*", r"(comparable|unit|model|dataset|schema|blocks\[1\]|classes\[0\]|outputs\[0\])"),
        ("images.csv", r"rows\[2\]\..*"),
        ("images.csv", r"columns\[4\]"),
    ],
)
def test_the_altered_leaf_is_found(mutated, file, path):
    altered = [m for m in mutations(mutated.files) if re.fullmatch(file, m.file) and re.fullmatch(path, m.path)]
    assert altered
    assert {mutated.verdict(m.files, m.file, m.path) for m in altered} <= {"fails", "refused"}


def test_settings_changed_in_run_json_turn_numbers_red(registry, folder):
    edited(folder, "run.json", lambda data: data["request"].update(batch_size=5))
    found = verify(folder, registry=registry)
    assert {v.status for v in found} == {"fails"}
    assert "batch_size was 4 when it was measured and is 5 now" in " ".join(v.message for v in found)


@pytest.mark.parametrize("key", ["classes", "orders"])
def test_witness_classes_are_compared_without_measuring_again(registry, folder, key):
    def change(data):
        witness = next(m for m in data["result"]["measurements"] if m["name"] == "smallest")["witness"]
        witness[key][0] = witness[key][1] = 7 if key == "orders" else "other"

    edited(folder, "cells/*pairs*", change)
    found = verify(folder, registry=registry, witnesses_only=True)
    assert [v.measurement for v in found if v.status == "fails" and f"gives {key}" in v.message] == ["smallest"]


def test_cells_that_are_gone_or_were_copied(registry, folder):
    path = next((folder / "cells").glob("*spread*"))
    (folder / "cells" / "copy.json").write_text(path.read_text())
    messages = " ".join(v.message for v in verify(folder, registry=registry))
    assert "2 files in cells/ hold it" in messages and "stands in cells/copy.json" in messages
    (folder / "cells" / "copy.json").unlink()
    path.unlink()
    assert any("missing in cells/" in v.message for v in verify(folder, registry=registry))


def test_two_equal_runs_differ_in_times_alone(registry, tmp_path):
    first, second = (evaluated(registry, tmp_path / name) for name in ("a", "b"))
    files = [sorted(p.relative_to(run) for p in run.rglob("*") if p.is_file()) for run in (first, second)]
    assert files[0] == files[1]
    different = {str(p) for p in files[0] if (first / p).read_bytes() != (second / p).read_bytes()}
    assert different <= {"times.json"}
    times = json.loads((first / "times.json").read_text())
    assert len(times["seconds"]) == 3 and times["created"] and "command" in times
    text = "".join(p.read_text() for p in [first / "run.json", *(first / "cells").iterdir()])
    assert '"seconds"' not in text and '"created"' not in text and '"command"' not in text


def test_what_cannot_be_trusted_is_refused_in_one_line(registry, tmp_path):
    folder = evaluated(registry, tmp_path / "run", model="code")
    with pytest.raises(UsageProblem, match="--trust-run"):
        verify(folder, registry=registry)
    assert verify(folder, registry=registry, trust=True).ok


def test_module_runs_end_in_one_line_and_exit_2(tmp_path):
    from stabilitykit.cli.verify import command

    (tmp_path / "cells").mkdir()
    request = {"models": ["module:x:y"], "datasets": ["digits"], "properties": ["expansivity"]}
    (tmp_path / "run.json").write_text(json.dumps({"schema": 2, "status": "complete", "request": request, "cells": []}))
    outcome = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(outcome.exception, UsageProblem) and outcome.exception.exit_code == 2
    assert len(str(outcome.exception).splitlines()) == 1 and outcome.stdout == ""


def test_another_machine_is_compared_within_the_drift(registry, folder):
    def elsewhere(data):
        data["provenance"]["device"]["name"] = "another processor"

    def drifted(data):
        data["result"]["measurements"][1]["value"] *= 1 + 1e-5

    csv = folder / "measurements.csv"
    edited(folder, "run.json", elsewhere)
    edited(folder, "cells/*pairs*", drifted)
    cells = list(RunFiles.read(folder).parsed.values())
    csv.write_text(stabilitykit.runs.folder.to_csv(cells))
    found = verify(folder, registry=registry)
    assert found.ok and any("another processor" in text for text in found.circumstances.other_machine)
    assert any(u.path == "provenance.device.name" for u in found.uncovered)
    assert not verify(folder, registry=registry, relative=1e-9).ok
    edited(folder, "cells/*pairs*", lambda data: data["result"]["measurements"][1].update(value=1.0))
    assert not verify(folder, registry=registry).ok


def test_numbers_are_equal_to_the_last_bit_on_the_machine_of_the_run():
    assert Circumstances().tolerance == (0.0, 0.0)
    assert Circumstances(relative=1e-6).tolerance[0] == 1e-6
    assert Circumstances(other_machine=("x",)).tolerance[0] > 0


class Times(Property):
    """A number that its option decides."""

    name = "times"

    def __init__(self, factor=0):
        self.factor = factor

    def evaluate(self, context):
        images = len(context.trajectory)
        return PropertyResult([Measurement("times", 2.0 * self.factor, Kind.EXACT, images, reference="here")])


def test_a_run_of_another_version_is_measured_with_the_options_it_records(tmp_path):
    def registry(default):
        option = Option("factor", "int", default)
        fixtures, own = "stabilitykit.testing.fixtures", "tests.core.test_verify:Times"
        kinds = {"model": f"{fixtures}:TinyModel", "dataset": f"{fixtures}:TinyDataset"}
        components = [Component(kind, "tiny", target, "", distribution="d") for kind, target in kinds.items()]
        components.append(Component("property", "times", own, "", options=(option,), distribution="d"))
        return Registry(PluginHost(components=components))

    for name, spec in (("default", "times"), ("given", "times:factor=5")):
        folder = tmp_path / name
        stabilitykit.evaluate("tiny", "tiny", spec, registry=registry(2), cache=False, output=folder, device="cpu")
        assert verify(folder, registry=registry(2)).ok
        assert verify(folder, registry=registry(3)).ok == (name == "given")  # the very same code has other defaults
        edited(folder, "run.json", lambda data: data["provenance"].update(git="another version"))
        assert verify(folder, registry=registry(3)).ok
        edited(folder, "cells/*", lambda data: data["result"]["measurements"][0].update(value=6.0))
        assert not verify(folder, registry=registry(3)).ok


def _evaluated(limit):
    from stabilitykit.evaluation.subject import choose_indices

    return choose_indices(24, limit, 0)


class Sixty(TinyDataset):
    """Enough images to tell decisions from chance."""

    def __init__(self):
        super().__init__(count=60)


class Depth(Property):
    """Needs no readouts."""

    name = "depth"

    def evaluate(self, context):
        return PropertyResult([Measurement("depth", float(context.model.num_blocks), Kind.EXACT, 1, reference="here")])


def test_what_only_a_trajectory_shows_is_not_asked_of_a_run_without_one(tmp_path):
    """That a network decides by chance is said by neither evaluate nor verify where no property needs readouts."""
    targets = {
        "model": "stabilitykit.testing.fixtures:TinyModel",
        "dataset": "tests.core.test_verify:Sixty",
        "property": "tests.core.test_verify:Depth",
    }
    components = [Component(kind, "tiny", target, "", distribution="d") for kind, target in targets.items()]
    registry = Registry(PluginHost(components=components))
    run = stabilitykit.evaluate(
        "tiny", "tiny", "tiny", registry=registry, cache=False, output=tmp_path / "run", device="cpu"
    )
    assert not any("chance" in text for text in run.info["pairs"][0]["warnings"])
    assert verify(tmp_path / "run", registry=registry).ok
