"""The results as CSV tables, and as blocks of Markdown between the marks of a page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from across import Rows

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.files import write_atomic
from stabilitykit.base.text import csv_text

DIGITS = 5
BLOCK = re.compile(r"(<!-- begin: ([\w-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)

MOST_ROWS = 25
"""Of a long table on the page; files have all of them."""


def write_tables(folder: Path, tables: Mapping[str, Rows]) -> None:
    """One CSV a table, floats with five significant digits; a table without rows leaves none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        path = folder / f"{name}.csv"
        if rows:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            shown = [{column: _rounded(value) for column, value in row.items()} for row in rows]
            write_atomic(path, csv_text(columns, shown))
        else:
            path.unlink(missing_ok=True)


def write_page(path: Path, blocks: Mapping[str, str]) -> None:
    """Put ``blocks`` between the marks ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->`` of a page that is there.

    Raises:
        UsageProblem: the page is missing, or has a mark that no block is for.
    """
    if not path.exists():
        raise UsageProblem(f"--page {path}: no such page; the prose is written by hand, only its tables are filled in")
    text = path.read_text(encoding="utf-8")
    unknown = [name for _, name, _ in BLOCK.findall(text) if name not in blocks]
    if unknown:
        raise UsageProblem(f"--page {path} asks for {', '.join(unknown)}; there is {', '.join(blocks)}")
    filled = BLOCK.sub(lambda found: f"{found[1]}\n{blocks[found[2]]}\n\n{found[3]}", text)
    write_atomic(path, filled)


def blocks(tables: Mapping[str, Rows], left_out: Mapping[str, str]) -> dict[str, str]:
    """Markdown by name: ``population``, ``hypotheses``, ``holds``, ``beyond``, ``baselines``, ``transfer``, ``pair``,
    ``nothing`` and ``left-out``."""
    found = tables["verdicts"]
    holding = [row for row in found if row["holds"] and not row["same thing"]]
    constants = [row for row in holding if not row["number"].startswith("baseline")]
    rhos = [key for key in (found[0] if found else {}) if key.startswith("rho, ")]
    partials = [key for key in (found[0] if found else {}) if key.startswith("partial, ")]
    beyond = [row for row in found if row["beyond accuracy"] and not row["same thing"]]
    seen = {row["number"] for row in holding}
    nothing = list(dict.fromkeys(row["number"] for row in found if row["number"] not in seen))
    what = ("number", "outcome")
    fixed = ("number", "outcome", "expected", "group", "n", "rho", "low", "high", "q", "partial", "partial q", "result")
    return {
        "population": table(_population(tables["networks"]), None),
        "hypotheses": table(tables["hypotheses"], fixed),
        "holds": strongest(constants, rhos, (*what, *rhos, "beyond accuracy", "without adversarial")),
        "beyond": table(_by_strength(beyond, partials), (*what, *partials)),
        "baselines": table([row for row in holding if row not in constants], (*what, *rhos)),
        "transfer": table(tables["transfer"], None),
        "pair": table(tables["pair"], None),
        "nothing": ", ".join(f"`{name}`" for name in nothing) or "(none)",
        "left-out": "\n".join(f"- {key}: {why}" for key, why in left_out.items()) or "(nothing)",
    }


def strongest(rows: Rows, by: Sequence[str], columns: Sequence[str]) -> str:
    """The first MOST_ROWS by strength, and how many more there are."""
    shown = table(_by_strength(rows, by)[:MOST_ROWS], columns)
    more = len(rows) - MOST_ROWS
    return shown if more <= 0 else f"{shown}\n\n{more} weaker ones are in verdicts.csv."


def _by_strength(rows: Rows, columns: Sequence[str]) -> Rows:
    return sorted(rows, key=lambda row: -min(abs(row[column]) for column in columns))


def _population(networks: Rows) -> Rows:
    """Ranges of a group."""
    rows: Rows = []
    for group in dict.fromkeys(row["group"] for row in networks):
        chosen = [row for row in networks if row["group"] == group]
        row: dict[str, Any] = {"group": group, "networks": len(chosen)}
        row["adversarially trained"] = sum(bool(n["eps"]) for n in chosen)
        for name in ("accuracy", "pgd", "noise", "int8", "pruning", "ece", "gap"):
            values = [n[name] for n in chosen if n.get(name) is not None]
            row[name] = f"{np.min(values):.2f} to {np.max(values):.2f}" if values else "-"
        rows.append(row)
    return rows


def table(rows: Rows, columns: Sequence[str] | None) -> str:
    """A Markdown table of those columns (None: all); without rows the word "none"."""
    if not rows:
        return "none"
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(_text(row.get(column)) for column in columns) + " |" for row in rows])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.2g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else float(f"{value:.{DIGITS}g}")
