"""One sentence on every number: the table of the documentation and the one that ships are the same."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.reporting.glosses import PACKAGED, gloss, glosses
from stabilitykit.reporting.screen import sentences
from stabilitykit.runs.folder import Cell

NUMBERS = Path(__file__).parents[2] / "docs" / "numbers.md"


def documented() -> list[list[str]]:
    """Rows (constant, is, means, not) of the table "All numbers", without links and code marks."""
    text = NUMBERS.read_text(encoding="utf-8").partition("| number | what it is")[2].partition("\n\n")[0]
    rows = []
    for line in text.splitlines()[2:]:
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        plain = [re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", cell).replace("`", "") for cell in rest[:3]]
        rows += [[name, *plain] for name in re.findall(r"`([^`]+)`", first)]
    return rows


def test_the_documentation_prints_what_ships() -> None:
    with PACKAGED.open(encoding="utf-8", newline="") as file:
        shipped = list(csv.reader(file))[1:]
    assert shipped == documented() and len(shipped) > 20
    assert all(row[1] for row in shipped)


def test_names_and_patterns() -> None:
    assert gloss("flips.bf16") == gloss("flips.int8") == glosses()["flips.*"]
    assert gloss("expansive_constant.max") != gloss("expansive_constant.max.normalised") != ""
    assert gloss("somebody.elses") == ""


def test_the_first_screen_places_a_constant_among_networks_of_equal_n_only() -> None:
    def said(n: int) -> list[str]:
        result = PropertyResult([Measurement("expansive_constant.max", 0.1, Kind.EXACT, n)])
        record = {"readout": "head", "space": "probabilities"}
        cell = Cell("m", "d", "expansivity", record=record, result=result)
        return [sentence.text for sentence in sentences([cell], None)]

    (text,) = said(1000)
    assert text.startswith("expansive_constant.max 0.1. Of ") and "N = 1,000" in text
    assert said(1001) == []
