"""The results as files: a CSV for each table, results.json, and results.md for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from readings import READINGS

from stabilitykit.base.files import write_atomic, write_json

Rows = Sequence[Mapping[str, Any]]
HEADINGS = {
    "table_1": "Table 1: classification",
    "table_2": "Table 2: head and probe side by side",
    "probes": "Lip(g_t) of the probes, depth by depth",
    "dependence": "What the constants are properties of: probe steps, epochs, seeds",
    "table_3": "Table 3",
    "tables_4_5": "Tables 4 and 5",
}
HIDDEN = {"says"}


def write(out: Path, tables: Mapping[str, Rows], about: Mapping[str, Any], agreement: Sequence[str]) -> None:
    """Write everything into ``out``; tables without rows leave no CSV."""
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        if rows:
            stream = io.StringIO()
            writer = csv.DictWriter(stream, _columns(rows), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_atomic(out / f"{name}.csv", stream.getvalue())
        else:
            (out / f"{name}.csv").unlink(missing_ok=True)
    write_json(out / "results.json", {"about": about, "agreement": list(agreement), "tables": tables})
    write_atomic(out / "results.md", markdown(tables, about, agreement))


def markdown(tables: Mapping[str, Rows], about: Mapping[str, Any], agreement: Sequence[str]) -> str:
    """All tables as Markdown, with how they were made."""
    lines = ["# The paper's tables and figures, reproduced", ""]
    if about.get("quick"):
        lines += ["**Written by `--quick`: small networks, few images. No number here is one of the paper's.**", ""]
    lines += ["Written by `examples/paper/reproduce.py`; every number is in the CSV files with all its digits.", ""]
    lines += ["## What agrees with the paper, and what does not", "", *(f"- {line}" for line in agreement), ""]
    for name, rows in tables.items():
        lines += [f"## {HEADINGS.get(name, name)}", ""]
        lines += [*_table(rows), ""] if rows else ["(not measured)", ""]
    lines += ["## The readings of Table 2", ""]
    lines += [f"- **{r.column}, {r.name}**: {r.says}" for r in READINGS]
    lines += [
        "",
        "Images are numbered from 0 within their class; the paper does not say where it starts.",
        "",
        "## How it was made",
        "",
        "```json",
        json.dumps(about, indent=1, ensure_ascii=False),
        "```",
        "",
    ]
    pictures = about.get("figures") or []
    if pictures:
        lines += ["## Figures 2 and 3, and the strips of Tables 4 and 5", ""]
        lines += [f"![{p}](figures/{p})" for p in pictures]
    return "\n".join(lines) + "\n"


def _table(rows: Rows) -> list[str]:
    columns = [c for c in _columns(rows) if c not in HIDDEN and any(row.get(c) not in (None, "") for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_text(row.get(c)) for c in columns) + " |" for row in rows]


def _columns(rows: Rows) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
