"""The gate: open only where everything asked for is there, comparable and as it should be."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.base.errors import GATE_CLOSED, UsageProblem
from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.cli import run as run_cli
from stabilitykit.evaluation.job import COMPUTES
from stabilitykit.review.gate.change import changed
from stabilitykit.review.gate.condition import Numbers, Undecidable, parse
from stabilitykit.review.gate.judge import Rule, Terms, judge
from stabilitykit.review.gate.verdicts import Outcome
from stabilitykit.review.settings import NO_SETTINGS
from stabilitykit.runs.folder import Cell, RunFolder
from tests.core.report_runs import PLUGIN, make_run, record

CONSTANT = "expansivity.expansive_constant.max"
FALLS = f"{CONSTANT} < 0.9 * baseline"


def small_run(
    folder: Path,
    value: float | None = 1.0,
    *,
    kind: Kind = Kind.EXACT,
    n: int = 500,
    models: tuple[str, ...] = ("net",),
    failed: tuple[str, ...] = (),
    changes: dict | None = None,
    status: str = "complete",
) -> Path:
    """A run of one constant, ``expansivity.expansive_constant.max``, and ``expansivity.x`` = 2."""
    run = RunFolder(folder)
    cells = []
    for model in models:
        kept = record(model, "digits", ("a", "b"), n, "expansivity") | (changes or {})
        measurements = [Measurement("expansive_constant.max", value, kind, n, "probability (l2)", {"indices": [3, 8]})]
        result = PropertyResult([*measurements, Measurement("x", 2.0, Kind.EXACT, n)])
        cell = Cell(model, "digits", "expansivity", result=result, record=kept, plugin=PLUGIN)
        if model in failed:
            error = {"type": "CellProblem", "message": "one class only", "culprit": "x"}
            cell = Cell(model, "digits", "expansivity", "failed", error=error, plugin=PLUGIN)
        cells.append(cell)
    run.write_run(
        {"status": status, "request": {}, "pairs": [], "cells": [[c.model, c.dataset, c.property] for c in cells]}
    )
    for cell in cells:
        run.write_cell(cell)
    return folder


def outcomes(run: Path, baseline: Path | None, *conditions: str, **terms) -> list[Outcome]:
    found = judge(run, baseline, Terms([Rule(parse(text)) for text in conditions], **terms))
    assert found.is_open is all(v.outcome is Outcome.PASSED for v in found.verdicts)
    assert found.exit_code == (0 if found.is_open else GATE_CLOSED)
    return [verdict.outcome for verdict in found.verdicts]


# --- conditions


@st.composite
def arithmetic(draw, depth: int = 3) -> str:
    """An expression in a, b and numbers, which Python reads the same way."""
    if depth == 0:
        return draw(st.sampled_from(["p.a", "p.b", "0.5", "2", "1e-3"]))
    one, two = draw(arithmetic(depth - 1)), draw(arithmetic(depth - 1))
    form = draw(
        st.sampled_from(["{} + {}", "{} - {}", "{} * {}", "({} / {})", "-({} + {})", "min({}, {})", "abs({} - {})"])
    )
    return f"({form.format(one, two)})"


@given(
    arithmetic(), arithmetic(), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.floats(-9, 9), st.floats(-9, 9)
)
def test_conditions_say_what_python_says(left, right, sign, a, b):
    text = f"not ({left} {sign} {right}) or p.a > 3 and p.b < 2"
    names = {"__builtins__": {}, "abs": abs, "min": min, "p": type("P", (), {"a": a, "b": b})}
    try:
        expected = eval(text, names)
        parts = [eval(side, names) for side in (left, right)]
    except ZeroDivisionError:
        expected, parts = None, []
    numbers = Numbers({"p.a": a, "p.b": b}, {})
    if expected is None or any(math.isnan(part) for part in parts):
        with pytest.raises(Undecidable):
            parse(text).holds(numbers)
    else:
        assert parse(text).holds(numbers) is bool(expected)


def test_baseline_is_of_the_constant_in_its_comparison():
    read = parse("a.x < 0.9 * baseline or b.y > 2 * baseline")
    assert read.run == ("a.x", "b.y") and read.baseline == ("a.x", "b.y")
    assert read.holds(Numbers({"a.x": 1.0, "b.y": 5.0}, {"a.x": 1.0, "b.y": 2.0}))
    assert not read.holds(Numbers({"a.x": 1.0, "b.y": 4.0}, {"a.x": 1.0, "b.y": 2.0}))
    assert parse("abs(a.x - baseline(b.y)) > 1").baseline == ("b.y",)
    assert parse("'lipschitz:method=x.upper-2' > 1").run == ("lipschitz:method=x.upper-2",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not parse"),
        ("a.x <", "does not parse"),
        ("a.x", "a comparison was expected"),
        ("1 < 2", "names no constant"),
        ("a.x + 1", "a comparison was expected"),
        ("(a.x < 1) + 1 > 0", "a number was expected"),
        ("a.x < True", "a number was expected"),
        ("a.x < 1j", "a number was expected"),
        ("a.x < 1e999", "too large"),
        ("a.x ** 2 < 1", "a number was expected"),
        ("a.x in b.y", "only < <="),
        ("a.x < b.y * baseline", "baseline(NAME)"),
        ("baseline < 1", "baseline(NAME)"),
        ("x < 1", "PROPERTY.NAME"),
        ("__import__('os').system('true') < a.x", "functions are"),
        ("a.x.__class__() < 1", "functions are"),
        ("mim(a.x, 1) < 1", "did you mean min"),
        ("max(*a.x) < 1", "plain arguments"),
        ("abs(a.x, 1) < 1", "abs takes one"),
        ("[a.x for i in a.x] < 1", "a number was expected"),
        ("(lambda: 1)() < a.x", "functions are"),
        ("a.x[0] < 1", "a number was expected"),
        ("f'{a.x}' < 1", "a number was expected"),
        ("(y := a.x) < 1", "a number was expected"),
        ("(" * 400 + "a.x" + ")" * 400 + " < 1", "condition"),
        ("a.x < 1" + " or a.x < 1" * 200, "at most 1000"),
        ("a.x < 1\0", "condition"),
    ],
)
def test_anything_else_is_refused(text, says):
    with pytest.raises(UsageProblem) as refused:
        parse(text)
    assert says in str(refused.value)


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text):
    try:
        assert parse(text).run
    except UsageProblem as error:
        assert "condition" in str(error)


# --- verdicts


def test_a_failing_and_a_passing_gate(tmp_path):
    base = small_run(tmp_path / "base", 1.0)
    assert outcomes(small_run(tmp_path / "a", 0.95), base, FALLS) == [Outcome.PASSED]
    assert outcomes(small_run(tmp_path / "b", 0.85), base, FALLS) == [Outcome.FAILED]
    assert outcomes(tmp_path / "b", base, FALLS, "expansivity.x > 3") == [Outcome.FAILED, Outcome.PASSED]
    assert outcomes(tmp_path / "b", None, f"{CONSTANT} < 0.5") == [Outcome.PASSED]


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({"value": None}, "undefined in the run"),
        ({"failed": ("net",)}, "one class only"),
        ({"kind": Kind.ESTIMATE}, "kind differs: estimate, in the baseline exact"),
        ({"n": 400}, "N differs: 400, in the baseline 500"),
        ({"changes": {"space": "logits"}}, "space differs: logits, in the baseline probabilities"),
        ({"changes": {"readout": "probe"}}, "readout differs"),
        ({"changes": {"never_heard_of": 1}}, "never_heard_of differs: 1, in the baseline not recorded"),
        ({"changes": {"limit": 500, "dataset": {"fingerprint": "cd" * 32, "size": 9999}}}, "chosen by seed 0"),
        ({"changes": {"dataset": {"fingerprint": "other"}}}, "images are not the baseline's"),
        ({"changes": {"dataset": {}}}, "nobody recorded which images"),
        ({"changes": {"model": {"preprocessing": {"resize": 32}}}}, "preprocessing"),
        ({"changes": {"property": {"name": "expansivity", "options": {"pairs": "all"}}}}, "options.pairs differs"),
        ({"models": ("net", "more")}, "baseline has no such model"),
        ({"status": "interrupted"}, "not complete"),
    ],
)
def test_what_cannot_be_compared_closes_the_gate(tmp_path, now, says):
    """Each in turn; the value itself is the baseline's."""
    base = small_run(tmp_path / "base", 1.0)
    run = small_run(tmp_path / "run", **{"value": 1.0, **now})
    for conditions in ([FALLS], []):
        found = judge(run, base, Terms([Rule(parse(text)) for text in conditions]))
        undecided = [v for v in found.verdicts if v.outcome is Outcome.UNDECIDED]
        assert not found.is_open and undecided and any(says in v.reason for v in undecided), found


def test_a_model_the_baseline_has_and_the_run_has_not_closes_the_gate(tmp_path):
    base = small_run(tmp_path / "base", models=("net", "more"))
    run = small_run(tmp_path / "run", models=("net",))
    assert outcomes(run, base, FALLS) == [Outcome.PASSED, Outcome.UNDECIDED]
    assert Outcome.UNDECIDED in outcomes(run, base)
    rule = Rule(parse(FALLS), model="none*")
    assert [v.outcome for v in judge(run, base, Terms([rule])).verdicts] == [Outcome.UNDECIDED]
    rule = Rule(parse(FALLS), model="ne*", dataset="dig*")
    assert [v.outcome for v in judge(run, base, Terms([rule])).verdicts] == [Outcome.PASSED]


def test_an_undecidable_part_is_not_hidden_by_a_decidable_one(tmp_path):
    run = small_run(tmp_path / "run", None)
    assert outcomes(run, None, f"expansivity.x > 3 and {CONSTANT} < 1") == [Outcome.UNDECIDED]
    run = small_run(tmp_path / "zero", 0.0)
    assert outcomes(run, None, f"expansivity.x > 3 and 1 / {CONSTANT} < 1") == [Outcome.UNDECIDED]
    run = small_run(tmp_path / "inf", math.inf)
    assert outcomes(run, None, f"{CONSTANT} - {CONSTANT} < 1") == [Outcome.UNDECIDED]
    assert outcomes(run, None, f"{CONSTANT} > 1e300") == [Outcome.FAILED]


def test_what_is_accepted_is_said(tmp_path):
    base = small_run(tmp_path / "base", 1.0)
    run = small_run(tmp_path / "run", 0.95, n=400)
    assert outcomes(run, base, FALLS) == [Outcome.UNDECIDED]
    found = judge(run, base, Terms([Rule(parse(FALLS))], accepted=frozenset({"n"})))
    assert found.is_open and any("N differs: 400" in note for note in found.verdicts[0].notes)


def test_a_lone_model_is_compared_under_another_name(tmp_path):
    base, run = small_run(tmp_path / "base"), small_run(tmp_path / "run", models=("net-v2",))
    found = judge(run, base, Terms([Rule(parse(FALLS))]))
    assert found.is_open and "the baseline is net on digits" in found.verdicts[0].notes


def test_without_conditions_every_constant_of_the_baseline_is_asked_for(tmp_path):
    base = make_run(tmp_path / "base", failed=False)
    assert set(outcomes(base, base)) == {Outcome.PASSED} and len(outcomes(base, base)) == 7
    run = make_run(tmp_path / "run", failed=False)
    folder = RunFolder(run)
    (cell,) = folder.read_cells()
    assert cell.result is not None
    moved, *rest = cell.result.measurements
    cell.result.measurements = [Measurement(**(vars(moved) | {"value": moved.value * 1.06})), *rest[:-1]]
    folder.write_cell(cell)
    assert outcomes(run, base) == [Outcome.FAILED, *[Outcome.PASSED] * 5, Outcome.UNDECIDED]
    assert outcomes(run, base, tolerance=0.07)[0] is Outcome.PASSED
    # A failed cell is no constant, and no silence either.
    assert Outcome.UNDECIDED in outcomes(make_run(tmp_path / "failed"), base)
    assert Outcome.UNDECIDED in outcomes(base, tmp_path / "failed")


values = st.one_of(st.none(), st.floats(allow_nan=False))


@given(values, values, st.floats(0, 2))
def test_a_change_is_beyond_the_tolerance(a, b, tolerance):
    now, before = (Measurement("m", v, Kind.EXACT, 1) for v in (a, b))
    found, words = changed(now, before, tolerance)
    assert words
    if a is None or b is None:
        assert found is (False if a is b else None)
    elif math.isfinite(a) and math.isfinite(b) and b:
        assert found is (abs(a - b) / abs(b) > tolerance) or math.isclose(abs(a - b) / abs(b), tolerance)
    else:
        assert found is (a != b)


def test_what_is_no_setting_is_named_as_records_name_it():
    assert COMPUTES in NO_SETTINGS


# --- the command


def gate(*words: object) -> int:
    return run_cli(["gate", *map(str, words)])


def test_the_command_writes_what_build_servers_and_people_read(tmp_path, monkeypatch, capsys):
    base, run = small_run(tmp_path / "base"), small_run(tmp_path / "run", 0.8, models=("net|<b>`@x`",))
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    outputs = ["--junit", tmp_path / "out" / "gate.xml", "--markdown", tmp_path / "gate.md", "--step-summary"]
    conditions = ["-f", FALLS, "-f", "expansivity.x > 3", "-f", "1 / (expansivity.x - 2) < 1"]
    assert gate(run, "-b", base, *conditions, *outputs) == GATE_CLOSED == 4
    assert "gate closed: 1 failed, 1 undecided, 1 passed" in capsys.readouterr().out
    suites = ET.parse(tmp_path / "out" / "gate.xml").getroot()
    assert suites.attrib | {"tests": "3", "failures": "1", "errors": "1"} == suites.attrib
    cases = suites.findall("./testsuite/testcase")
    assert [[child.tag for child in case if child.tag != "system-out"] for case in cases] == [
        ["failure"],
        [],
        ["error"],
    ]
    assert cases[0].get("name") == FALLS and "exact on the sample, N 500" in cases[0].findtext("system-out", "")
    text = (tmp_path / "gate.md").read_text()
    assert summary.read_text() == "before\n" + text
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 3 and all(row.count("|") == 6 for row in rows) and "<b>" not in text and "@x" not in text
    assert gate(run, "-b", base, *conditions, "--format", "json") == 4
    data = json.loads(capsys.readouterr().out)
    assert data["open"] is False and data["verdicts"][0]["numbers"][0]["witness"] == {"indices": [3, 8]}


def test_a_file_asks_the_same(tmp_path, capsys):
    base, run = small_run(tmp_path / "base"), small_run(tmp_path / "run", 0.8, n=400)
    config = tmp_path / "gate.toml"
    rule = f'{{if = "{FALLS}", model = "n*"}}'
    config.write_text(f'baseline = "{base}"\naccept = "n"\nfail-if = ["expansivity.x > 3", {rule}]\n')
    assert gate(run, "-c", config) == 4
    assert "1 failed, 1 passed" in capsys.readouterr().out
    assert gate(run, "-c", config, "--accept", "kind") == 4
    assert "1 undecided, 1 passed" in capsys.readouterr().out
    config.write_text(f'baseline = "{base}"\ntolerance = 0.5\naccept = ["n"]\n')
    assert gate(run, "-c", config) == 0 and gate(run, "-c", config, "--tolerance", "0.1") == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fail_iff = 'a.x < 1'", "did you mean fail-if"),
        ("fail-if = 3", "is a text"),
        ("fail-if = [{model = 'a'}]", "has no condition"),
        ("fail-if = [{if = 'a.x < 1', modle = 'a'}]", "did you mean model"),
        ("fail-if = 'a.x <'", "does not parse"),
        ("tolerance = -1", "tolerance is a number"),
        ("tolerance = nan", "tolerance is a number"),
        ("accept = 'all'", "accept is made of"),
        ("baseline = 1", "is a text"),
        ("fail-if = 'a.x < baseline'", "give --baseline"),
        ("", "nothing to check"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_read(tmp_path, capsys, text, says):
    config = tmp_path / "gate.toml"
    config.write_text(text)
    assert gate(tmp_path / "no-run", "-c", config, "--junit", tmp_path / "j.xml") == 2
    assert says in capsys.readouterr().err and not (tmp_path / "j.xml").exists()


def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    run = small_run(tmp_path / "run")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    junit = tmp_path / "j.xml"
    for words, says in (
        ((run, "-f", "expansivity.expansive_constant.mix < 1"), "did you mean expansivity.expansive_constant.max"),
        ((run, "-f", "expansivity.x < 1", "--baseline", tmp_path / "absent"), "not a run folder"),
        ((run, "-f", "expansivity.x < 1", "--step-summary"), "GITHUB_STEP_SUMMARY is not set"),
        ((run, "-f", "expansivity.x < 1", "--markdown", junit), "different files"),
        ((run, "-f", "expansivity.x < 1", "--markdown", tmp_path), "is a folder"),
    ):
        assert gate(*words, "--junit", junit) == 2
        found = capsys.readouterr()
        assert says in found.err and len(found.err.strip().splitlines()) == 1 and not junit.exists()
