"""One line per measurement, appended whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import threading

import pytest
from stabilitykit.testing import events_of, tiny_result, tiny_run

from stabilitykit_jsonlines import VARIABLE, lines, stabilitykit_cell_finished


def told(tmp_path):
    """What the hook is told of the two cells of a small run: one measured, one failed."""
    return [event.arguments for event in events_of(tiny_run(tmp_path / "run")) if "cell" in event.arguments]


def read(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_every_measurement_is_a_line_and_a_failed_cell_is_one(tmp_path, monkeypatch):
    path = tmp_path / "all.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    for arguments in told(tmp_path):
        stabilitykit_cell_finished(**arguments)
    expected, found = tiny_result().measurements, read(path)
    assert [row.get("name") for row in found] == [*(m.name for m in expected), None]
    for row, measurement in zip(found, expected, strict=False):
        value = row["value"] if row["value"] is None else float(row["value"])
        assert value == measurement.value and (row["kind"], row["n"]) == (str(measurement.kind), measurement.n)
        assert row["run"] == str(tmp_path / "run") and row["created"] and row["property"] == "measured"
    assert math.isinf(float(found[-2]["value"])) and "no pair" in found[-1]["error"]["message"]


def test_without_the_variable_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    arguments = told(tmp_path)[0]
    before = sorted(tmp_path.iterdir())
    stabilitykit_cell_finished(**arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "all.jsonl"
    lines.append(path, ["1"])
    write, calls = os.write, []

    def full(file, data):
        calls.append(data)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:3])

    monkeypatch.setattr(lines.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        lines.append(path, ["2222222"])
    assert path.read_text() == "1\n" and len(calls) == 2


def test_a_line_that_was_torn_before_is_ended(tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text('{"torn": ')
    lines.append(path, ["1", "2"])
    assert path.read_text() == '{"torn": \n1\n2\n'


def test_runs_that_append_at_once_do_not_mix(tmp_path):
    path = tmp_path / "all.jsonl"
    groups = [[json.dumps([name, k, "x" * 5000]) for k in range(5)] for name in "abcd"]
    threads = [threading.Thread(target=lines.append, args=(path, group)) for group in groups for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [tuple(row[:2]) for row in read(path)]
    assert len(found) == 60
    for start in range(0, 60, 5):
        assert found[start : start + 5] == [(found[start][0], k) for k in range(5)]
