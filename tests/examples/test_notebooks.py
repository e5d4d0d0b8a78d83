"""The notebooks of the documentation: executed, small, and still true."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def code(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run(name, monkeypatch, tmp_path):
    """Every cell in one namespace, as a kernel does it; the last expression of a cell is only evaluated."""
    monkeypatch.setenv("STABILITYKIT_CACHE", str(tmp_path))
    scope = {"__name__": "__main__"}
    for number, cell in enumerate(code(name)):
        with contextlib.redirect_stdout(None):
            exec(compile("".join(cell["source"]), f"{name}[{number}]", "exec"), scope)


def test_there_are_four():
    assert NAMES == ["a-new-property", "low-precision", "my-own-network", "tutorial"]
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.ipynb)" in index for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_kept_executed_and_small(name):
    cells = code(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not any(output["output_type"] == "error" for output in outputs)
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < 120_000 and "/home/" not in text and "/tmp/" not in text


def test_a_notebook_still_runs(monkeypatch, tmp_path):
    run("a-new-property", monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "a-new-property"])
def test_the_others_still_run(name, monkeypatch, tmp_path):
    run(name, monkeypatch, tmp_path)
