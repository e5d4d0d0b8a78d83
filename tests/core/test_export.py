"""Exports read back to the same numbers, in every format."""

from __future__ import annotations

import builtins
import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.cli import run as run_cli
from stabilitykit.runs.export import escape_latex, export, latex_number
from stabilitykit.runs.folder import CSV_COLUMNS, load_run
from tests.core.report_runs import HOSTILE, make_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    odd = PropertyResult(
        [
            Measurement("unbounded", math.inf, Kind.LOWER, 7, "ratio", interval=(1.5, math.inf)),
            Measurement("undefined", None, Kind.ESTIMATE, 7, note="no orbit"),
            Measurement("tiny", 5e-324, Kind.UPPER, 7, interval=(None, 1e-300), recheck=1e-17),
        ]
    )
    return make_run(
        tmp_path_factory.mktemp("export") / "run",
        models=("resnet18", "m_<&>$%#{}"),
        classes=HOSTILE,
        extra={"odd": odd},
    )


def measurements(folder: Path):
    return [(c, m) for c in load_run(folder)[1] if c.result for m in c.result.measurements]


def test_csv_reads_back_to_the_last_digit(run_folder):
    rows = list(csv.DictReader(io.StringIO(export(run_folder, "csv").decode())))
    assert tuple(rows[0]) == CSV_COLUMNS
    good = [r for r in rows if r["status"] == "ok"]
    expected = measurements(run_folder)
    assert len(good) == len(expected)
    for row, (cell, m) in zip(good, expected):
        assert (row["model"], row["property"], row["measurement"]) == (cell.model, cell.property, m.name)
        assert (None if row["value"] == "" else float(row["value"])) == m.value
        assert row["kind"] == str(m.kind) and int(row["n"]) == m.n
        assert json.loads(row["witness"]) == m.to_json()["witness"]
    (failed,) = [r for r in rows if r["status"] == "failed"]
    assert failed["property"] == "shadowing" and failed["error"]


def test_json_holds_run_and_cells(run_folder):
    data = json.loads(export(run_folder, "json"))
    assert data["status"] == "complete" and data["provenance"]["seed"] == 0
    assert [r["property"] for r in data["results"]] == [c.property for c in load_run(run_folder)[1]]
    assert data["results"][0]["result"]["tables"]["class_pairs"]["rows"]


def test_parquet_has_typed_columns_and_the_same_numbers(run_folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    path = tmp_path / "run.parquet"
    assert run_cli(["export", str(run_folder), "--format", "parquet", "-o", str(path)]) == 0
    table = parquet.read_table(path)
    assert set(table.column_names) == set(CSV_COLUMNS)
    assert str(table.schema.field("value").type) == "double" and str(table.schema.field("n").type) == "int64"
    rows = [r for r in table.to_pylist() if r["status"] == "ok"]
    assert [r["value"] for r in rows] == [m.value for _, m in measurements(run_folder)]


def test_parquet_without_pyarrow_names_the_extra(run_folder, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert run_cli(["export", str(run_folder), "--format", "parquet"]) == 2
    assert "stabilitykit[parquet]" in capsys.readouterr().err


def test_latex_is_a_balanced_table_with_kinds_as_signs(run_folder):
    text = export(run_folder, "latex").decode()
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = 2 + 2
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
    assert r"$\geq$\,$\infty$" in text and "undefined" in text and r"m\_\textless{}\&\textgreater{}\$\%\#\{\}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


@given(st.text())
def test_escaped_text_holds_no_command_of_its_own(text):
    known = r"\\text(?:backslash|asciitilde|asciicircum|less|greater|bar|quotedbl)\{\}|\\[&%$#_{}]"
    assert not re.search(r"[\\&%$#_{}~^<>|\"]", re.sub(known, "", escape_latex(text)))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_latex_numbers_keep_four_digits(value):
    text = latex_number(value).strip("$").replace(r" \times 10^{", "e").replace("}", "")
    assert float(text) == float(f"{value:.4g}")


def test_stdout_unknown_format_and_folder_as_output(run_folder, tmp_path, capfdbinary):
    assert run_cli(["export", str(run_folder)]) == 0
    assert capfdbinary.readouterr().out == export(run_folder, "csv")
    assert run_cli(["export", str(run_folder), "--format", "xml"]) == 2
    assert run_cli(["export", str(run_folder), "-o", str(tmp_path)]) == 2
    assert run_cli(["export", str(tmp_path / "absent")]) == 2
    with pytest.raises(UsageProblem):
        export(run_folder, "xml")


def test_figures_are_files(tmp_path):
    from stabilitykit.cli import run

    assert run(["export", str(make_run(tmp_path / "run")), "--format", "figures", "-o", str(tmp_path / "out")]) == 0
    names = [path.name for path in (tmp_path / "out").glob("*.svg")]
    assert any(name.startswith("figure-2") for name in names) and any(name.startswith("figure-3") for name in names)
