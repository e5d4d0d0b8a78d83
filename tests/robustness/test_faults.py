"""Kills, full disks, competing processes: a small part of benchmarks/faults.py, which injects the rest on demand."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "faults.py"


def inject(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_killed_at_random_moments_nothing_is_lost():
    out = inject("--kills", 2, "--seed", 11, "--only")
    assert "| **all** | 2 | 2 |" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario",
    [
        "full-disk",
        "file-limit",
        "read-only",
        "two-processes",
        "signals",
        "large-full-disk",
        "large-killed-worker",
        "eight-processes",
    ],
)
def test_other_faults(scenario):
    inject("--kills", 0, "--only", scenario)


def test_the_checks_notice_a_torn_file(tmp_path):
    """A harness that cannot fail proves nothing: half a file, another result and a foreign version are seen."""
    sys.path.insert(0, str(SCRIPT.parents[1]))
    from benchmarks.faults import Workload, check_whole

    (tmp_path / "cells").mkdir()
    work = Workload("w", lambda folder, again: [], versions={"a.json": {'["ok", 1]'}, "w.safetensors": {"x"}})
    (tmp_path / "cells" / "a.json").write_text('{"status": "ok", "result": 1}')
    assert check_whole(tmp_path, work) == []
    (tmp_path / "cells" / "a.json").write_text('{"status": "ok", "result": 2}')
    assert "another result" in check_whole(tmp_path, work)[0]
    (tmp_path / "cells" / "a.json").write_text('{"status": "ok", "res')
    assert "JSONDecodeError" in check_whole(tmp_path, work)[0]
    (tmp_path / "cells" / "a.json").unlink()
    (tmp_path / "w.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    assert check_whole(tmp_path, work)
    (tmp_path / "w.safetensors").unlink()
    (tmp_path / "report.html").write_text("<html>half")
    assert check_whole(tmp_path, work)
