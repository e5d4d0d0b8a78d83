"""Two and three processes give the answer of one, to the last bit; a dead one leaves finished cells valid."""

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.machine.distributed import row_bounds
from tests import preloaded

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 600  # a loaded machine starts several Pythons slowly; a hang still ends


@given(st.integers(0, 500), st.integers(1, 64), st.integers(1, 9))
def test_rows_are_split_at_whole_batches(count, batch, size):
    bounds = row_bounds(count, batch, size)
    assert len(bounds) == size + 1 and bounds[0] == 0 and bounds[-1] == count
    assert all(a <= b and (a % batch == 0 or a == count) for a, b in itertools.pairwise(bounds))
    batches = [-(-(b - a) // batch) for a, b in itertools.pairwise(bounds)]
    assert max(batches) - min(batches) <= 1


def free_port():
    """A port the system gave out just now: runs side by side do not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(processes, arguments, folder, **environment):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(processes),
        "--master-port",
        str(free_port()),
        "-m",
        "stabilitykit",
        *arguments,
    ]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def results(folder):
    return {p.name: json.loads(p.read_text())["result"] for p in sorted((folder / "cells").glob("*.json"))}


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_same_answer_as_one_process(tmp_path, processes):
    arguments = [
        "evaluate",
        "-p",
        "expansivity",
        "-p",
        "shadowing",
        "--limit",
        "100",
        "--batch-size",
        "16",
        "--quiet",
        "--no-cache",
        "--format",
        "json",
    ]
    alone = preloaded.run([*arguments, "-o", "alone"], cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    many = torchrun(processes, [*arguments, "-o", "many"], tmp_path)
    assert many.returncode == 0, many.stderr[-3000:]
    assert results(tmp_path / "many") == results(tmp_path / "alone")
    assert len(json.loads(many.stdout)["cells"]) == 2  # only rank 0 speaks


def test_a_dying_process_leaves_finished_cells(tmp_path):
    plugin = tmp_path / "dying.py"
    plugin.write_text(
        "import os, signal\nfrom stabilitykit import Property\n"
        "class Dies(Property):\n    parallel = True\n    def evaluate(self, context):\n"
        "        if context.world.rank == 1:\n            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        context.world.all_gather(1)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nsys.path.insert(0, '.')\nimport stabilitykit\nfrom dying import Dies\n"
        "stabilitykit.evaluate('resnet18-digits', 'digits', ['expansivity', Dies()], limit=60, output='run',"
        " cache=False)\n"
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
        str(script),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert "died" in done.stderr or "SIGKILL" in done.stderr or "Signal 9" in done.stderr
    cells = [json.loads(p.read_text()) for p in (tmp_path / "run" / "cells").glob("*.json")]
    assert any(c["property"] == "expansivity" and c["status"] == "ok" for c in cells)
