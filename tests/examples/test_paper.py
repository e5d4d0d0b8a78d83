"""The reproduction of the paper's tables, over runs made by hand: right numbers in the right places."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from stabilitykit.base.results import Kind, Measurement, PropertyResult, Table
from stabilitykit.runs.folder import load_run
from tests.core.report_runs import make_run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "paper"


@pytest.fixture()
def tables(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    import tables

    yield tables
    for name in ("tables", "paper_values", "reproduce"):
        sys.modules.pop(name, None)


@pytest.fixture()
def run(tmp_path) -> Path:
    orbit = [["Sh_paper", "eps", t, t, str(t), 3 * t, None if t == 0 else 0.1 * t, 7, "7", 0.01 * t] for t in range(4)]
    columns = [
        "constant",
        "role",
        "depth",
        "image",
        "class",
        "order",
        "jump into it",
        "tracer",
        "tracer class",
        "distance to tracer",
    ]
    return make_run(
        tmp_path / "run",
        failed=False,
        extra={
            "shadowing": PropertyResult(
                [Measurement("Sh_paper", 2.5, Kind.ESTIMATE, 500, "ratio", {"eps": 0.1, "delta": 0.25})],
                {"orbits": Table(columns, orbit)},
                images=[0, 1, 2, 3, 7],
            ),
            "lipschitz": PropertyResult([Measurement("lipschitz", 3.5, Kind.UPPER, 500)]),
            "topological": PropertyResult([Measurement("T_g.paper", 2.5 / 3.5, Kind.ESTIMATE, 500)]),
        },
    )


def test_table_1_differences(tables):
    found = {"precision": 0.98, "recall": 0.97, "f1": 0.975, "loss": 0.05, "n": 10, "epochs": 3, "seed": 0}
    rows = {r["measure"]: r for r in tables.table_1({"mnist_r18": found})}
    assert rows["f1"]["paper"] == 0.9891 and rows["f1"]["difference"] == pytest.approx(0.975 - 0.9891)


def test_table_2_reads_each_column(tables, run):
    rows = {r["column"]: r for r in tables.table_2({"mnist_r18": run}, "head")}
    result = load_run(run)[1][0].result
    assert rows["g-expansive"]["ours"] == result["expansive_constant.min"].value
    assert rows["g-expansive, Definition 1 (max)"]["ours"] == result["expansive_constant.max"].value
    assert rows["g-shadowing"]["ours"] == 2.5 and rows["g-shadowing"]["paper"] == 2.3583
    assert (rows["g-shadowing"]["eps"], rows["g-shadowing"]["paper eps"]) == (0.1, 0.1025)
    assert rows["Lip(g)"]["kind"] == "upper bound" and rows["topological"]["ours"] == 2.5 / 3.5


def test_table_3_finds_the_papers_class_pairs(tables, run):
    digits = [str(d) for d in range(10)]
    rows = tables.table_3({"mnist_r50": run}, {"mnist_r50": digits})
    shown = [r for r in rows if r["shown because"] == "in the paper"]
    assert [r["classes"] for r in shown] == ["2 - 1", "2 - 5", "2 - 6", "2 - 7"]
    table = load_run(run)[1][0].result.tables["class_pairs"]
    for row in shown:
        a, b = row["classes"].split(" - ")
        (expected,) = [r for r in table.rows if r[2] == "min" and {r[0], r[1]} == {a, b}]
        assert row["our distance"] == expected[3] and row["our block"] == expected[8]
    assert rows[-1]["shown because"] == "our closest pair"
    assert rows[-1]["our distance"] == min(r[3] for r in table.rows if r[2] == "min")


def test_everything_is_written_and_reads_back(tables, run, tmp_path):
    out = tmp_path / "out"
    made = {
        "table_2": tables.table_2({"mnist_r18": run}, "head"),
        "table_3": [],
        "tables_4_5": tables.tables_4_5({"mnist_r18": run}, out),
    }
    drawn = tables.figures({"mnist_r18": run}, out)
    assert drawn == ["figure-2-mnist_r18.svg", "figure-3-mnist_r18.svg"]
    assert (out / "figures" / "strip-mnist_r18.png").stat().st_size > 100
    tables.write(out, made, {"figures": drawn})
    rows = list(csv.DictReader((out / "table_2.csv").open()))
    assert [float(r["ours"]) for r in rows] == [r["ours"] for r in made["table_2"]]
    assert [r["depth"] for r in json.loads((out / "results.json").read_text())["tables"]["tables_4_5"]] == [0, 1, 2, 3]
    text = (out / "results.md").read_text()
    assert "Tables 4 and 5" in text and "figures/figure-3-mnist_r18.svg" in text and str(tmp_path) not in text


def test_a_failed_cell_leaves_its_rows_out(tables, tmp_path):
    run = make_run(tmp_path / "failed")  # its shadowing cell failed
    assert tables.tables_4_5({"mnist_r18": run}, tmp_path) == []
    assert "g-shadowing" not in {r["column"] for r in tables.table_2({"mnist_r18": run}, "head")}
