"""The exporters in examples/: their own tests, and a run that they hear of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core import test_hooks

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def own_tests(name):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"],
        cwd=EXAMPLES / name,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_json_lines_passes_its_own_tests():
    done = own_tests("jsonlines-exporter")
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow  # importing mlflow takes seconds
def test_mlflow_passes_its_own_tests():
    pytest.importorskip("mlflow", reason="mlflow is not installed (pip install mlflow-skinny)")
    done = own_tests("mlflow-exporter")
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr


def test_json_lines_are_written_while_a_run_goes_on(tmp_path):
    site = test_hooks.install(tmp_path / "site", {})
    shutil.copytree(EXAMPLES / "jsonlines-exporter" / "src" / "stabilitykit_jsonlines", site / "stabilitykit_jsonlines")
    info = site / "stabilitykit_jsonlines-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stabilitykit-jsonlines\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[stabilitykit]\nhears-jsonlines = stabilitykit_jsonlines\n")
    path = tmp_path / "all.jsonl"
    wait = f"while name == 'c' and not Path({str(path)!r}).exists(): time.sleep(0.01)"
    code, _, err = test_hooks.run(tmp_path, {}, wait, STABILITYKIT_JSONLINES=str(path))
    assert (code, err) == (0, ""), err
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["property"], row["name"], row["value"]) for row in rows] == [(name, "x", 1.5) for name in "abc"]
    # A file that cannot be written costs a warning.
    shutil.rmtree(tmp_path / "run")
    code, _, err = test_hooks.run(tmp_path, {}, STABILITYKIT_JSONLINES=str(path / "in-a-file.jsonl"))
    assert code == 0 and "stabilitykit_cell_finished failed: " in err and "all.jsonl" in err
