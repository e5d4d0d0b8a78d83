"""Plugins that are told of finished cells and runs: what they hear, and what their misdeeds cost (themselves)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import stabilitykit
from stabilitykit import hookimpl
from stabilitykit.plugins.loading import load_plugins
from stabilitykit.plugins.registry import Registry
from stabilitykit.runs.folder import load_run
from stabilitykit.testing import TinyDataset, TinyModel
from tests.core.testing.test_checks import Good

PROGRAM = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, SITE)
from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.base.watch import task, watch
from stabilitykit.plugins.loading import find, key_of
from stabilitykit.runs.folder import Cell
from stabilitykit.supervision.supervisor import supervise

tmp, resume = Path(sys.argv[1]), len(sys.argv) > 2
listeners = {key_of(p): f"plugin {p.name} of {p.dist.name} 1" for p in find() if p.name.startswith("hears")}

def command():
    recorder = watch().recorder(tmp / "run", resume, {}, listeners)
    earlier = {cell.slug: cell for cell in recorder.earlier()[1]}
    for name in "abc":
        cell = Cell("m", "d", name, result=PropertyResult([Measurement("x", 1.5, Kind.EXACT, 1)]))
        if cell.slug in {c.slug for c in recorder.cells}:
            continue
        with task("cell", cell.slug, f"property {name}"):
            DURING
        if cell.slug in watch().lost:
            cell.status, cell.result, cell.error = "failed", None, dict(watch().lost[cell.slug])
        recorder.finish(earlier.get(cell.slug, cell), {"request": {"k": 1}, "provenance": {}, "pairs": []})
    recorder.close("complete", {"request": {"k": 1}, "provenance": {}, "pairs": []})
    return 0

def show(recorder, printing):
    print("shown", flush=True)
    return lambda: (tmp / "run" / "report.html").write_text("report") * 0

sys.exit(supervise(command, show))
"""

# Plugin -> (its hook for cells, what the warning about it says; None: there is none).
MISDEEDS = {
    "raises": ("raise ValueError('no disk')", "stabilitykit_cell_finished failed: ValueError: no disk"),
    "exits": ("raise SystemExit(4)", "stabilitykit_cell_finished failed: SystemExit: 4"),
    "interrupts": ("raise KeyboardInterrupt", "stabilitykit_cell_finished failed: KeyboardInterrupt"),
    "dies": ("os._exit(3)", "stabilitykit_cell_finished ended the process, as os._exit(3) does"),
    "crashes": ("os.abort()", "stabilitykit_cell_finished crashed the process (SIGABRT"),
    "hangs": ("time.sleep(60)", "stabilitykit_cell_finished took longer than 4 s (STABILITYKIT_HOOK_TIMEOUT)"),
    "stubborn": ("signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); time.sleep(60)", "took longer than 4 s"),
    "execs": ("os.execv('/bin/sleep', ['sleep', '60'])", "replaced its process (exec) or closed its connection"),
    "prints": ("print('NOISE'); os.write(1, b'NOISE'); os.system('echo NOISE')", None),
    "changes": ("cell['status'] = 'failed'; cell['result']['measurements'].clear(); run.clear()", None),
    "forks": ("os.fork()", None),
    "leaves": ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); os.chdir('/')", None),
}
HEAD = "import os, signal, threading, time, json\nfrom stabilitykit import hookimpl\n"
NOTES = """
@hookimpl
def stabilitykit_cell_finished(cell, run):
    values = [m["value"] for m in (cell["result"] or {}).get("measurements", [])]
    there = os.path.exists(os.path.join(run["folder"], "cells"))
    note(["cell", cell["property"], cell["status"], values, cell["seconds"], there, run["request"]])

@hookimpl
def stabilitykit_run_finished(run, cells):
    note(["run", run["status"], [cell["property"] for cell in cells],
          os.path.exists(os.path.join(run["folder"], "report.html"))])

def note(what):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(what) + "\\n")
"""


def install(site, plugins):
    """``plugins``: name -> source, as installed distributions in the folder ``site``."""
    site.mkdir()
    for name, source in plugins.items():
        (site / f"hears_{name}.py").write_text(HEAD + source)
        info = site / f"hears_{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[stabilitykit]\nhears-{name} = hears_{name}\n")
    return site


def start(tmp_path, plugins, during="pass", arguments=(), **environment):
    site = tmp_path / "site"
    if not site.exists():
        install(site, plugins)
    code = PROGRAM.replace("SITE", repr(str(site))).replace("DURING", during)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "STABILITYKIT_HOOK_TIMEOUT": "4", "NOTES": str(tmp_path / "notes"), **environment},
    )


def run(*given, **more):
    process = start(*given, **more)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def notes(tmp_path):
    path = tmp_path / "notes"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def hook(body):
    return f"@hookimpl\ndef stabilitykit_cell_finished(cell, run):\n    {body}\n"


@pytest.fixture(scope="module")
def misdeeds(tmp_path_factory):
    """One run that every misdeed hears of, and one honest plugin."""
    tmp_path = tmp_path_factory.mktemp("misdeeds")
    plugins = {name: hook(body) for name, (body, _) in MISDEEDS.items()} | {"notes": NOTES}
    return tmp_path, run(tmp_path, plugins)


def test_misdeeds_lose_and_change_no_result(misdeeds):
    tmp_path, (code, out, err) = misdeeds
    assert (code, out) == (0, "shown\n"), err
    info, cells = load_run(tmp_path / "run")
    assert info["status"] == "complete" and [c.property for c in cells] == ["a", "b", "c"]
    assert all(c.ok and c.result["x"].value == 1.5 for c in cells)
    assert "Traceback" not in err and err.count("NOISE") == 9


@pytest.mark.parametrize("name", MISDEEDS)
def test_each_misdeed_is_named(misdeeds, name):
    _, (_, _, err) = misdeeds
    warnings = [line for line in err.splitlines() if f"warning: plugin hears-{name} of dist-{name} 1: " in line]
    expected = MISDEEDS[name][1]
    assert len(warnings) == (expected is not None), err  # of three cells, once
    assert expected is None or (expected in warnings[0] and "stand" in warnings[0])


def test_the_honest_one_hears_everything_once_and_in_order(misdeeds):
    tmp_path, _ = misdeeds
    told = [["cell", name, "ok", [1.5], 0.0, True, {"k": 1}] for name in "abc"]
    assert notes(tmp_path) == [*told, ["run", "complete", ["a", "b", "c"], True]]


def test_what_resume_keeps_is_not_told_again_and_a_lost_cell_is(tmp_path):
    run(tmp_path, {"notes": NOTES})
    (tmp_path / "notes").unlink()
    lost = next((tmp_path / "run" / "cells").glob("m--d--b*"))
    lost.unlink()
    _, _, err = run(tmp_path, {}, "os._exit(5) if name == 'b' and not watch().lost else None", ["resume"])
    assert notes(tmp_path) == [
        ["cell", "b", "failed", [], 0.0, True, {"k": 1}],
        ["run", "complete", ["a", "b", "c"], True],
    ], err


def test_no_cell_waits_for_a_hook(tmp_path):
    """The hook for the first cell ends only when the last one has begun."""
    wait = "while not os.path.exists(os.environ['NOTES'] + '.go'): time.sleep(0.01)"
    plugins = {"slow": NOTES.replace("    values =", f"    {wait}\n    values =", 1)}
    during = "(tmp / 'notes.go').touch() if name == 'c' else None"
    code, _, err = run(tmp_path, plugins, during, STABILITYKIT_HOOK_TIMEOUT="30")
    assert (code, err) == (0, "") and [note[1] for note in notes(tmp_path)] == ["a", "b", "c", "complete"]


def test_ctrl_c_does_not_wait_for_a_hook_and_the_run_is_not_finished(tmp_path):
    plugins = {"hangs": hook("time.sleep(60)"), "notes": NOTES}
    during = "(tmp / 'go').touch(), time.sleep(60)"
    process = start(tmp_path, plugins, f"({during}) if name == 'c' else None", (), STABILITYKIT_HOOK_TIMEOUT="50")
    until = time.monotonic() + 30
    while not ((tmp_path / "go").exists() and len(notes(tmp_path)) == 2) and time.monotonic() < until:
        time.sleep(0.02)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - before < 8, err
    assert err.count("warning: ") == 1 and "plugin hears-hangs of dist-hangs 1: was ended before" in err
    assert [note[:2] for note in notes(tmp_path)] == [["cell", "a"], ["cell", "b"]]
    info, cells = load_run(tmp_path / "run")
    assert info["status"] == "interrupted" and [c.property for c in cells] == ["a", "b"]


def test_a_plugin_that_cannot_be_loaded_any_more_is_a_warning(tmp_path):
    spoil = "(Path(SITE) / 'hears_notes.py').write_text('1 / 0')".replace("SITE", repr(str(tmp_path / "site")))
    code, _, err = run(tmp_path, {"notes": NOTES}, spoil)
    assert code == 0 and "plugin hears-notes of dist-notes 1: cannot be loaded" in err and "ZeroDivisionError" in err
    assert len(load_run(tmp_path / "run")[1]) == 3


# In a plain Python process.


def registry(**plugins):
    points = [
        SimpleNamespace(
            name=name,
            value=name,
            load=lambda hooks=hooks: SimpleNamespace(**{key: hookimpl(value) for key, value in hooks.items()}),
            dist=SimpleNamespace(name=f"dist-{name}", version="1"),
        )
        for name, hooks in plugins.items()
    ]
    return Registry(load_plugins(points))


def measured(tmp_path=None, resume=False, **plugins):
    folder = None if tmp_path is None else tmp_path / "run"
    return stabilitykit.evaluate(
        TinyModel(), TinyDataset(), [Good()], cache=False, registry=registry(**plugins), output=folder, resume=resume
    )


def test_in_python_hooks_are_called_in_the_process_with_copies(tmp_path, capsys):
    heard = []

    def hear(cell, run):
        heard.append((cell["property"], cell["result"]["measurements"][0]["value"], run["folder"]))

    def spoil(cell, run):
        print("NOISE")
        cell["result"]["measurements"].clear()
        run.clear()

    def fail(cell):
        raise SystemExit(3)

    def after(cells, run):
        heard.append(([c["status"] for c in cells], run["status"], run["folder"]))

    names = {"stabilitykit_cell_finished": hear, "stabilitykit_run_finished": after}
    others = {"fails": {"stabilitykit_cell_finished": fail}, "spoils": {"stabilitykit_cell_finished": spoil}}
    done = measured(tmp_path, **others, hears=names)
    plain = measured()
    assert done.ok and done.cells[0].result.to_json() == plain.cells[0].result.to_json()
    folder = str(tmp_path / "run")
    assert heard == [(done.cells[0].property, plain["property"]["share"].value, folder), (["ok"], "complete", folder)]
    out, err = capsys.readouterr()
    assert out == "" and "NOISE" in err
    assert "plugin fails of dist-fails 1: stabilitykit_cell_finished failed: SystemExit" in err
    measured(tmp_path, resume=True, hears=names)
    assert heard[2:] == [(["ok"], "complete", folder)]  # the cell is kept, and no news


def test_in_python_what_a_hook_changes_of_the_process_is_blamed_on_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = measured(moves={"stabilitykit_cell_finished": lambda: os.chdir("/")})
    assert done.ok and "plugin moves of dist-moves 1 changed the current folder" in capsys.readouterr().err


def test_a_failed_build_is_told_too():
    heard = []

    class Broken(TinyDataset):
        name = "broken"

        def images(self, indices):
            raise RuntimeError("gone")

    done = stabilitykit.evaluate(
        TinyModel(),
        [Broken(), TinyDataset()],
        [Good()],
        cache=False,
        registry=registry(hears={"stabilitykit_cell_finished": lambda cell: heard.append(cell["status"])}),
    )
    assert [cell.status for cell in done.cells] == heard == ["failed", "ok"]


def test_a_plugin_may_offer_nothing_but_hooks():
    host = registry(hears={"stabilitykit_run_finished": lambda run: None}).host
    assert host.records[0].provides == ["hook stabilitykit_run_finished"] and host.listeners[0].hooks == (
        "stabilitykit_run_finished",
    )
    failed = registry(hears={"stabilitykit_run_finished": lambda runs: None}).host.failures
    assert "runs" in failed[0].error
