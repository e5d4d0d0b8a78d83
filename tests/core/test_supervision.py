"""The supervisor alone, without torch: what a worker's death, delay or noise costs, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.runs.folder import Cell, load_run
from stabilitykit.supervision.channel import _HEADER, JSON, LARGEST, Channel, Closed
from stabilitykit.supervision.handover import HandingOver
from stabilitykit.supervision.inheritance import Inheritance

PROGRAM = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.base.watch import task, watch
from stabilitykit.runs.folder import Cell
from stabilitykit.supervision.supervisor import supervise

tmp, limit = Path(sys.argv[1]), float(sys.argv[2])
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a suite under nohup ignores it
supervisor = os.getpid()

def note(text):
    with open(tmp / "log", "a") as log:
        log.write(f"{text}\\n")

def cells(misdeed, names="abc", limit=limit):
    recorder = watch().recorder(tmp / "run", False, {"format": "none"})
    for name in names:
        cell = Cell("m", "d", name, result=PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)]))
        if cell.slug in {c.slug for c in recorder.cells}:
            continue
        if cell.slug in watch().lost:
            cell.status, cell.result, cell.error = "failed", None, dict(watch().lost[cell.slug])
        else:
            with task("cell", cell.slug, f"property {name}", limit):
                note(name)
                if name == "b":
                    misdeed()
        recorder.finish(cell, {"k": 1})
    recorder.close("complete", {"k": 1})
    return 0

def show(recorder, printing):
    print("shown", recorder.path.name, len(recorder.cells) if recorder.cells else "", flush=True)

def command():
BODY
sys.exit(supervise(command, show))
"""


def start(tmp_path, body, limit=60.0, **environment):
    """A program whose command is ``body``."""
    code = PROGRAM.replace("BODY", "\n".join(f"    {line}" for line in body.strip().splitlines()))
    env = {**os.environ, **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def run(tmp_path, body, limit=60.0, timeout=30, **environment):
    """(exit code, stdout, stderr) of such a program."""
    process = start(tmp_path, body, limit, **environment)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, err


def log(tmp_path):
    path = tmp_path / "log"
    return path.read_text().split() if path.exists() else []


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid, seconds=5.0):
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def test_a_death_costs_the_cell_and_nothing_is_run_twice(tmp_path):
    code, out, err = run(tmp_path, "return cells(lambda: os._exit(3))")
    assert (code == 0 and out == "shown run \n") or out.startswith("shown run"), err
    info, found = load_run(tmp_path / "run")
    assert info["status"] == "complete" and [c.ok for c in found] == [True, False, True]
    assert found[1].error["culprit"] == "property b" and "os._exit(3)" in found[1].error["message"]
    assert log(tmp_path) == ["a", "b", "c"]


def test_the_time_limit_is_kept_and_costs_the_cell(tmp_path):
    body = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if (tmp / "begun").exists() and not (tmp / "ended").exists():
    (tmp / "ended").write_text(str(time.monotonic()))
return cells(lambda: ((tmp / "begun").write_text(str(time.monotonic())), time.sleep(60)))
"""
    run(tmp_path, body, limit=0.5)
    begun, ended = (float((tmp_path / name).read_text()) for name in ("begun", "ended"))
    assert 0.4 < ended - begun < 2.2
    found = load_run(tmp_path / "run")[1]
    assert [c.ok for c in found] == [True, False, True]
    assert found[1].error["type"] == "TooLong" and "0.5 s" in found[1].error["message"]


def test_a_death_between_two_cells_ends_the_run_and_costs_no_cell(tmp_path):
    code, _, err = run(tmp_path, "cells(lambda: None)\nnote('end')\nos._exit(9)")
    assert code == 1 and "finished cells are on disk" in err
    assert log(tmp_path) == ["a", "b", "c", "end"]  # not tried again
    assert all(c.ok for c in load_run(tmp_path / "run")[1])


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interrupted_run_says_so(tmp_path, name, code):
    ended, _, err = run(
        tmp_path, f"return cells(lambda: (os.kill(supervisor, signal.{name}), time.sleep(60)))", timeout=20
    )
    info, found = load_run(tmp_path / "run")
    assert ended == code and info["status"] == "interrupted" and [c.property for c in found] == ["a"]
    assert "--resume" in err and "Traceback" not in err


def test_a_plugin_that_is_deadly_when_loaded_is_not_loaded_again(tmp_path):
    body = """
if "bad" not in watch().broken:
    note("loaded")
    with task("plugin", "bad", "plugin bad", 5.0):
        os.abort()
note(json.dumps(watch().broken["bad"]).replace(" ", "_"))
return 7
"""
    assert run(tmp_path, body)[0] == 7
    assert log(tmp_path)[0] == "loaded" and "SIGABRT" in log(tmp_path)[1] and len(log(tmp_path)) == 2


def test_deadly_pictures_cost_the_pictures(tmp_path):
    body = """
recorder = watch().recorder(tmp / "run", False, {})
if not recorder.cells:
    recorder.finish(Cell("m", "d", "a", result=PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)])), {})
if recorder.wants_image("d", 0):
    note("draws")
    with task("images", ["m", "d"], "dataset d"):
        os._exit(1)
recorder.close("complete", {})
return 0
"""
    code, _, err = run(tmp_path, body)
    assert code == 0 and "pictures" in err and log(tmp_path) == ["draws"]
    assert load_run(tmp_path / "run")[0]["status"] == "complete"


def test_what_was_printed_is_not_printed_twice(tmp_path):
    body = """
print("a result", flush=True)
with task("plugin", "x", "plugin x", 5.0):
    os._exit(1)
"""
    code, out, err = run(tmp_path, body)
    assert code == 1 and out == "a result\n" and "run it again" in err


def test_noise_of_plugins_is_no_output(tmp_path):
    body = """
print("before")
with task("cell", "s", "property p", None):
    print("noise")
    os.write(1, b"noise of C\\n")
    os.system("echo noise of a child")
os.write(1, b"noise of C\\n")
print("after")
return 0
"""
    code, out, err = run(tmp_path, body)
    assert code == 0 and out == "before\nafter\n" and err.count("noise") == 4


@pytest.mark.parametrize("body, code", [("return 7", 7), ("raise UsageProblem('x')", 2), ("os._exit(0)", 1)])
def test_the_exit_code_is_the_commands(tmp_path, body, code):
    assert run(tmp_path, body)[0] == code


def test_a_forked_child_does_not_go_on_with_the_run(tmp_path):
    code, _, _ = run(tmp_path, "return cells(os.fork)")
    assert code == 0 and log(tmp_path) == ["a", "b", "c"]


def test_one_of_several_ranks_does_not_go_on_alone(tmp_path):
    code, _, err = run(tmp_path, "return cells(lambda: os._exit(3))", RANK="0")
    assert code == 1 and log(tmp_path) == ["a", "b"] and "property b" in err


def test_children_die_with_the_worker(tmp_path):
    body = """
def misdeed():
    (tmp / "pid").write_text(str(subprocess.Popen(["sleep", "300"]).pid))
    os._exit(1)
return cells(misdeed)
"""
    run(tmp_path, body)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_worker_is_in_a_session_of_its_own(tmp_path):
    body = "print(json.dumps([os.getsid(0) == os.getpid(), os.getppid() == supervisor]))\nreturn 0"
    assert json.loads(run(tmp_path, body)[1]) == [True, True]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to be told of the parent's death")
def test_a_worker_dies_with_its_supervisor(tmp_path):
    process = start(tmp_path, '(tmp / "pid").write_text(str(os.getpid()))\ntime.sleep(60)')
    until = time.monotonic() + 20
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_message_beyond_reason_closes_the_channel():
    ours, theirs = Channel.pair()
    try:
        theirs.send({"t": "end"})
        ours.fill()
        assert [json.loads(data) for _, data in ours.frames()] == [{"t": "end"}]
        theirs._end.sendall(_HEADER.pack(JSON, LARGEST + 1))
        ours.fill()
        with pytest.raises(Closed):
            list(ours.frames())
    finally:
        ours.close()
        theirs.close()


def test_a_worker_leaves_what_its_caller_does_at_exit_to_the_caller(tmp_path):
    """Folders of the process that calls ``main`` are removed when that process ends, not when a worker of it does."""
    code = (
        "import atexit, os, tempfile\nfrom stabilitykit.supervision.supervisor import supervise\n"
        "folder = tempfile.TemporaryDirectory()\natexit.register(lambda: print('ended', os.getpid()))\n"
        "code = supervise(lambda: 0, lambda *_: None)\n"
        "print(code, os.path.isdir(folder.name), os.getpid())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first.startswith("0 True ") and second == f"ended {first.split()[-1]}", done.stdout + done.stderr


def test_what_a_run_was_asked_is_told_once_and_when_it_changes():
    said: list[dict[str, object]] = []
    handing = HandingOver(said.append, Inheritance(), {"request": None, "cells": [], "path": "run"})
    result = PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)])
    first, second = {"request": {"properties": ["a", "b", "c"]}}, {"request": {"properties": ["a", "b", "c"]}, "n": 1}
    for name, info in (("a", first), ("b", first), ("c", second)):
        handing.finish(Cell("m", "d", name, result=result), info)
    assert [message["info"] for message in said] == [first, None, second]
