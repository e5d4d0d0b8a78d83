"""A run folder tells the truth at every moment: while it is written, when it was killed, when a plugin emptied it."""

from __future__ import annotations

import json
import shutil

import pytest

from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.runs.folder import Cell, load_run
from stabilitykit.runs.recorder import FolderRecorder


def cell(name, dataset="d"):
    return Cell("m", dataset, name, result=PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)]))


def status(folder):
    return json.loads((folder / "run.json").read_text())["status"]


def test_cells_are_on_disk_as_soon_as_they_are_finished(tmp_path):
    folder = tmp_path / "run"
    with FolderRecorder(folder, False) as recorder:
        for number, name in enumerate("abc", 1):
            recorder.finish(cell(name), {"request": {}})
            assert len(list((folder / "cells").glob("*.json"))) == number
            assert status(folder) == "running"
        recorder.close("complete")
    info, cells = load_run(folder)
    assert info["status"] == "complete" and [c.property for c in cells] == ["a", "b", "c"]


def test_cells_that_a_plugin_removed_are_written_again(tmp_path):
    folder = tmp_path / "run"
    with FolderRecorder(folder, False) as recorder:
        recorder.finish(cell("a"), {})
        recorder.finish(cell("b"), {})
        shutil.rmtree(folder / "cells")
        recorder.close("interrupted")
    assert [c.property for c in load_run(folder)[1]] == ["a", "b"] and status(folder) == "interrupted"


def test_names_that_look_alike_in_a_file_system_have_files_of_their_own():
    names = ["a/b", "a:b", "a b", "a_b", "A_b", "a" * 300, "a" * 301]
    assert len({cell(name).slug.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    "change", [{"status": "ok", "result": None}, {"status": "fine"}, {"model": 3}, {"status": "ok", "result": {}}]
)
def test_what_is_no_finished_cell_is_not_read_as_one(change):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Cell.from_json({**cell("a").to_json(), **change})
