"""Where states are kept while readouts are trained, and what results say of trained readouts."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import READOUT_FIT
from stabilitykit.evaluation import cache, fitting
from stabilitykit.evaluation.evaluate import evaluate
from stabilitykit.evaluation.fitting import room_for_states
from stabilitykit.review.verify import verify
from stabilitykit.runs.folder import load_run
from stabilitykit.testing.fixtures import TinyDataset, TinyModel

BIG = ((1 << 20, 1 << 20), "float32")


@pytest.fixture
def few(monkeypatch):
    """Arrays of more than 8 bytes go to the disk."""
    monkeypatch.setattr(cache, "SCRATCH_BYTES", 8)
    monkeypatch.setattr(fitting, "SCRATCH_BYTES", 8)


def test_states_are_kept_where_there_is_room_and_leave_nothing_behind(few, tmp_path, capsys):
    array = room_for_states(tmp_path / "new", "m")((5, 7), "float32")
    array[:] = np.arange(35).reshape(5, 7)
    assert isinstance(array, np.memmap) and array.sum() == 34 * 35 / 2
    assert list((tmp_path / "new").iterdir()) == [] and capsys.readouterr().err == ""


def test_without_room_the_network_runs_once_per_epoch_and_that_is_said(few, tmp_path, monkeypatch, capsys):
    assert room_for_states(tmp_path, "m")(*BIG) is None
    assert "4398.0 GB" in (said := capsys.readouterr().err) and "once per epoch" in said and "GB free" in said
    monkeypatch.setenv("STABILITYKIT_SCRATCH", "1e-9")
    assert room_for_states(tmp_path, "m")((5, 7), "float32") is None
    assert "$STABILITYKIT_SCRATCH allows" in capsys.readouterr().err
    monkeypatch.setenv("STABILITYKIT_SCRATCH", "1")
    assert room_for_states(tmp_path, "m")((5, 7), "float32") is not None


def test_a_disk_that_is_full_costs_time_only(few, tmp_path, monkeypatch, capsys):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    assert room_for_states(tmp_path, "m")((5, 7), "float32") is None
    assert "No space left on device" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["-1", "much", "inf", "nan"])
def test_a_limit_is_a_number_of_gigabytes(value, monkeypatch, tmp_path):
    monkeypatch.setenv("STABILITYKIT_SCRATCH", value)
    with pytest.raises(UsageProblem, match="number of gigabytes"):
        room_for_states(tmp_path, "m")((5, 7), "float32")


KILLED = """
import pathlib, sys, time
from stabilitykit.evaluation import cache, fitting
cache.SCRATCH_BYTES = 8
array = fitting.room_for_states(pathlib.Path(sys.argv[1]), "m")((1000, 1000), "float32")
array[:] = 1
print("filled", flush=True)
time.sleep(60)
"""


def test_a_killed_process_leaves_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "filled\n"
    process.kill()
    process.wait()
    assert list(tmp_path.iterdir()) == []


def run(readout, folder=None, **more):
    given = {"probe_epochs": 2, "batch_size": 7, "cache": False, "any_classes": True, **more}
    return evaluate(TinyModel(), TinyDataset(20), "expansivity", readout=readout, output=folder, **given)


@pytest.mark.parametrize("readout", ["probe", "lens"])
def test_every_result_says_how_well_its_readouts_do(readout):
    found = run(readout).cells[0].result
    table = found.tables[READOUT_FIT]
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    assert [row["depth"] for row in rows] == [0, 1, 2, 3]
    assert [row["block"] for row in rows] == ["(before the blocks)", "block 0", "block 1", "block 2"]
    assert rows[-1]["accuracy in sample"] == found["accuracy"].value and rows[0]["N in sample"] == 20
    held = [row["accuracy held out"] for row in rows]
    counts = {row["N held out"] for row in rows}
    assert (held == [None] * 4 and counts == {0}) if readout == "lens" else (None not in held and counts == {3})
    assert any(("in-sample" if readout == "lens" else "held out: 3") in note for note in found.notes)


@pytest.mark.parametrize("readout", ["probe", "lens"])
def test_images_of_another_dataset_make_the_evaluated_ones_held_out(readout):
    found = run(readout, probe_dataset=TinyDataset(30, seed=1)).cells[0].result
    row = dict(zip(found.tables[READOUT_FIT].columns, found.tables[READOUT_FIT].rows[-1]))
    assert (row["N held out"], row["N in sample"]) == (20, 30)
    assert row["accuracy held out"] == found["accuracy"].value
    same = run(readout, probe_dataset=TinyDataset(20))
    assert any("evaluated images" in note and "held out: the" not in note for note in same.cells[0].result.notes)
    assert same.cells[0].record["probe"]["trained_on_evaluated_images"] is True


@pytest.mark.parametrize("readout", ["probe", "lens"])
def test_steps_stand_in_the_record_and_the_request(readout, tmp_path):
    (cell,) = run(readout, tmp_path / "run", probe_steps=4).cells
    assert cell.record["probe"]["steps"] == 4 and "epochs" not in cell.record["probe"]
    assert load_run(tmp_path / "run")[0]["request"]["probe_steps"] == 4
    (other,) = run(readout, tmp_path / "other").cells
    assert other.record["probe"]["epochs"] == 2
    assert "probe_steps" not in load_run(tmp_path / "other")[0]["request"]


def test_steps_are_a_whole_number():
    with pytest.raises(UsageProblem, match="probe steps is a whole number"):
        run("probe", probe_steps=0)


def test_no_table_where_nothing_was_trained():
    assert READOUT_FIT not in run("head").cells[0].result.tables


@pytest.mark.parametrize("readout", ["probe", "lens"])
def test_a_run_is_measured_again_to_the_last_bit(readout, tmp_path, monkeypatch):
    options = {"probe_steps": 4, "limit": 30, "batch_size": 10, "cache": False, "readout": readout}
    evaluate("resnet18-digits", "digits", "expansivity", output=tmp_path / "run", **options)
    monkeypatch.setenv("STABILITYKIT_SCRATCH", "0")  # less room than when it was made
    found = verify(tmp_path / "run")
    assert found.ok, found
