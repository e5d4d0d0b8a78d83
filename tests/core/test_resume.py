"""--resume keeps a finished cell only where the same settings, images and network would give it again."""

from __future__ import annotations

import json

import pytest

import stabilitykit
from stabilitykit import Kind, Measurement, PropertyResult
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


class Counting(Property):
    """How often it ran; fails where told to."""

    name = "counting"
    runs = 0
    fails = False

    def evaluate(self, context):
        type(self).runs += 1
        if self.fails:
            raise RuntimeError("not this time")
        return PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)])


class Drawing(Property):
    """A random number of torch's and one of numpy's."""

    def __init__(self, name):
        self.name = name

    def evaluate(self, context):
        import numpy as np
        import torch

        return PropertyResult([Measurement("x", float(torch.rand(1)) + np.random.random(), Kind.EXACT, 1)])


def run(folder, **more):
    given = {"cache": False, "registry": Registry(PluginHost()), "output": folder, "batch_size": 8, **more}
    return stabilitykit.evaluate(TinyModel(), TinyDataset(), given.pop("properties", Counting()), **given)


@pytest.fixture
def folder(tmp_path):
    Counting.runs, Counting.fails = 0, False
    return tmp_path / "run"


def edit(folder, change):
    path = next((folder / "cells").glob("*.json"))
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_what_stands_is_kept(folder):
    run(folder)
    assert run(folder, resume=True).ok and Counting.runs == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda cell: cell["record"].update(seed=1),
        lambda cell: cell["record"].update(extract_dtype="bfloat16"),
        lambda cell: cell["record"].pop("n"),
        lambda cell: cell["record"].update(more=1),
        lambda cell: cell["record"]["model"].update(fingerprint="another"),
        lambda cell: cell["record"]["property"]["options"].update(x=1),
        lambda cell: cell["record"].update(computes="0" * 64),
        lambda cell: cell["record"].pop("computes"),
        lambda cell: cell["record"].update(computes=""),
    ],
    ids=["seed", "dtype", "less", "more", "weights", "options", "computes", "no proof", "empty proof"],
)
def test_what_would_be_measured_otherwise_now_is_computed_again(folder, change, capsys):
    run(folder)
    edit(folder, change)
    assert run(folder, resume=True).ok and Counting.runs == 2
    assert "computed again" in capsys.readouterr().err


def test_failed_cells_are_tried_again(folder):
    Counting.fails = True
    assert not run(folder).ok
    Counting.fails = False
    assert run(folder, resume=True).ok and Counting.runs == 2


def test_a_failed_cell_is_tried_again_even_where_the_network_proves_itself(folder):
    run(folder)
    edit(folder, lambda cell: cell.update(status="failed", result=None, error={"message": "then"}))
    assert run(folder, resume=True).ok and Counting.runs == 2


def test_another_request_is_refused(folder):
    run(folder)
    with pytest.raises(stabilitykit.UsageProblem, match=r"another request \(seed differ\)"):
        run(folder, resume=True, seed=1)


def test_random_numbers_do_not_depend_on_the_cells_before():
    def value(properties):
        return run(None, properties=properties).cells[-1].result["x"].value

    last = Drawing("last")
    assert value([last]) == value([Drawing("first"), last])


class Spoils(Property):
    """Changes the model for good (it was handed over as an object) or replaces a function."""

    def __init__(self, what):
        self.name, self.what = "spoils", what

    def evaluate(self, context):
        import torch

        if self.what == "model":
            with torch.no_grad():
                next(context.model.module.parameters()).add_(1.0)
        else:
            torch.relu = lambda *given: torch.clamp_min(given[0], 0)
        return PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)])


@pytest.mark.parametrize("what, said", [("model", "modified the model"), ("function", "replaced torch.relu")])
def test_whoever_spoils_what_is_shared_has_no_number(folder, monkeypatch, what, said):
    import torch

    monkeypatch.setattr(torch, "relu", torch.relu)  # put back afterwards
    done = run(folder, properties=[Spoils(what), Counting()])
    assert said in done.cells[0].error["message"] and not done.cells[0].ok
    if what == "model":  # the object is the only copy: nothing may be measured on it
        assert not done.cells[1].ok and "building it anew did not help" in done.cells[1].error["message"]
        assert Counting.runs == 0


def test_a_run_that_ended_before_its_first_cell_is_resumed(tmp_path):
    """A full disk leaves decisions without a run.json; a folder with anything else in it is somebody's."""
    from stabilitykit.base.errors import UsageProblem
    from stabilitykit.runs.folder import RunFolder

    (tmp_path / "decisions").mkdir()
    with pytest.raises(UsageProblem, match="not empty; add --resume"), RunFolder(tmp_path).open(resume=False):
        pass
    with RunFolder(tmp_path).open(resume=True):
        pass
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageProblem, match="choose another one"), RunFolder(tmp_path).open(resume=True):
        pass
