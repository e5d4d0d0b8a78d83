"""A run folder tells the truth at every moment: while it is written, when it was killed, when a plugin emptied it."""

from __future__ import annotations

import json
import shutil

import pytest

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.runs.folder import Cell, load_run
from stabilitykit.runs.recorder import FolderRecorder


def cell(name, dataset="d"):
    return Cell("m", dataset, name, result=PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)]))


def timed(name, seconds):
    found = cell(name)
    found.seconds = seconds
    return found


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


def test_times_of_a_killed_run_are_kept_a_line_a_cell_and_become_one_file(tmp_path):
    folder, times = tmp_path / "run", tmp_path / "run" / "times.jsonl"
    with FolderRecorder(folder, False) as recorder:  # let go of without an end, as a killed process does
        recorder.finish(timed("a", 1.5), {})
        recorder.finish(timed("b", 2.5), {})
    assert len(times.read_text().splitlines()) == 2
    with times.open("ab") as stream:
        stream.write(b'["c.0", 3')  # the line at which it was killed
    assert [c.seconds for c in load_run(folder)[1]] == [1.5, 2.5]
    with FolderRecorder(folder, True) as recorder:
        for earlier in recorder.earlier()[1]:
            recorder.finish(earlier, {})
        recorder.finish(timed("c", 3.5), {})
        recorder.close("complete")
    assert not times.exists() and [c.seconds for c in load_run(folder)[1]] == [1.5, 2.5, 3.5]
    assert len(json.loads((folder / "times.json").read_text())["seconds"]) == 3


def test_times_of_cells_that_are_written_again_stand_in_one_file(tmp_path):
    folder = tmp_path / "run"
    with FolderRecorder(folder, False) as recorder:
        recorder.finish(timed("a", 1.5), {})
        shutil.rmtree(folder)
        recorder.close("complete")
    assert not (folder / "times.jsonl").exists() and [c.seconds for c in load_run(folder)[1]] == [1.5]


def test_lines_are_not_added_through_a_link(tmp_path):
    folder, other = tmp_path / "run", tmp_path / "other"
    other.write_text("mine")
    with pytest.raises(UsageProblem), FolderRecorder(folder, False) as recorder:
        recorder.finish(cell("a"), {})
        (folder / "times.jsonl").unlink()
        (folder / "times.jsonl").symlink_to(other)
        recorder.finish(cell("b"), {})
    assert other.read_text() == "mine"
    with pytest.raises(UsageProblem):
        load_run(folder)


def test_names_that_look_alike_in_a_file_system_have_files_of_their_own():
    names = ["a/b", "a:b", "a b", "a_b", "A_b", "a" * 300, "a" * 301]
    assert len({cell(name).slug.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    "change", [{"status": "ok", "result": None}, {"status": "fine"}, {"model": 3}, {"status": "ok", "result": {}}]
)
def test_what_is_no_finished_cell_is_not_read_as_one(change):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Cell.from_json({**cell("a").to_json(), **change})
