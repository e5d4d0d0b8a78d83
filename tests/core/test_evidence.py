"""What numbers were seen to predict: the documentation, reports and the file that ships say the same."""

from __future__ import annotations

from pathlib import Path

from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.reporting import core_sections, evidence
from stabilitykit.reporting.evidence import NOTHING, Evidence, evidence_json, markdown, numbers_of, seen_to_predict
from stabilitykit.reporting.glosses import glosses
from stabilitykit.reporting.rundata import RunData
from stabilitykit.runs.folder import Cell
from tests.core.report_runs import make_run

NUMBERS = Path(__file__).parents[2] / "docs" / "numbers.md"


def told(number="expansive_constant.max", scope="networks", readout="head", target="weather"):
    return Evidence(number, scope, readout, target, "Spearman +0.50 (9 networks)", "not beyond the season")


def measured(*names: str, readout: str = "head", **columns: list[float]) -> Cell:
    result = PropertyResult([Measurement(name, 0.1, Kind.EXACT, 3) for name in names], per_image=columns)
    return Cell("m", "d", "p", record={"readout": readout}, result=result)


def test_the_documentation_prints_what_ships() -> None:
    """When this fails: python examples/validity/study.py --write-evidence (see its --help)."""
    text = NUMBERS.read_text(encoding="utf-8")
    assert f"<!-- begin: evidence -->\n\n{markdown()}\n<!-- end: evidence -->" in text


def test_the_file_that_ships_is_what_its_writer_writes() -> None:
    entries = evidence.evidence()
    assert evidence_json(entries) == evidence.PACKAGED.read_text(encoding="utf-8")
    assert {entry.scope for entry in entries} <= set(evidence.SCOPES)
    assert len({(e.number, e.scope, e.readout, e.target) for e in entries}) == len(entries)


def test_a_number_without_an_entry_says_so() -> None:
    table = [told(), told(target="tides", readout="lens")]
    assert seen_to_predict("somebody.elses", table=table) == NOTHING == "nothing shown yet"
    assert seen_to_predict("expansive_constant.max", "probe", table) == NOTHING
    assert "lens readouts, tides" in seen_to_predict("expansive_constant.max", "lens", table)
    assert seen_to_predict("expansive_constant.max", table=table).count("Spearman") == 2
    lines = markdown(table).splitlines()
    assert sum(line.endswith(f"| {NOTHING} |") for line in lines) == len({*glosses(), *evidence.OF_IMAGES}) - 1
    assert f"| `expansive_constant.max` | {table[0].text}; {table[1].text} |" in lines


def test_numbers_of_a_run() -> None:
    cells = [measured("a", "b", tracing_error=[1.0], own_class_distance=[1.0]), measured("b", "c", readout="lens")]
    assert list(numbers_of(cells)) == [
        *((name, "head") for name in ("a", "b", "tracing_error")),
        ("c", "lens"),
        ("prediction_depth", "head"),
    ]
    assert list(numbers_of([])) == []


def test_the_first_screen_says_what_the_documentation_says(tmp_path, monkeypatch) -> None:
    run = RunData.read(make_run(tmp_path))
    numbers = [name for name, _ in numbers_of(run.pairs[0].cells)]
    assert len(set(numbers)) == len(numbers) > 3
    entry = told(number=numbers[0], readout=str(run.pairs[0].record.get("readout")))

    def screen() -> tuple[str, str]:
        shown = str(core_sections.words(run)).replace("<wbr>", "")
        before, _, silent = shown.partition(f"{NOTHING} of ")
        return before, silent

    monkeypatch.setattr(evidence, "_shipped", lambda: (entry,))
    before, silent = screen()
    assert entry.text in before and entry.text in markdown()
    named = [f"<code>{name}</code>" in silent for name in numbers]
    assert named == [False] + [True] * (len(numbers) - 1)
    monkeypatch.setattr(evidence, "_shipped", lambda: ())
    before, silent = screen()
    assert "Spearman" not in before and all(f"<code>{name}</code>" in silent for name in numbers)
