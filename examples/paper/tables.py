"""Tables 1-5 and Figures 2-3 from finished runs, each beside the paper's values."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper_values import READINGS, TABLE_1, TABLE_2, TABLE_3, TABLES_4_5, TITLES

from stabilitykit.base.files import write_atomic, write_json
from stabilitykit.base.results import PropertyResult
from stabilitykit.reporting.rundata import records
from stabilitykit.runs.folder import RunFolder, load_run

Rows = list[dict[str, Any]]
COLUMNS_2 = {
    "g-expansive": ("expansivity", "expansive_constant.min"),
    "g-shadowing": ("shadowing", "Sh_paper"),
    "Lip(g)": ("lipschitz", "lipschitz"),
    "topological": ("topological", "T_g.paper"),
}
HEADINGS = {"table_1": "Table 1", "table_2": "Table 2", "table_3": "Table 3", "tables_4_5": "Tables 4 and 5"}
STRICTER = {
    "g-expansive, Definition 1 (max)": ("expansivity", "expansive_constant.max"),
    "g-expansive, Figure 2 (mean)": ("expansivity", "expansive_constant.mean"),
    "g-shadowing, profile": ("shadowing", "Sh_profile"),
    "g-shadowing, lower bound over all sample orbits": ("shadowing", "Sh_all.lower"),
    "g-shadowing, upper bound over all sample orbits": ("shadowing", "Sh_all.upper"),
    "g-shadowing, exact over all sample orbits": ("shadowing", "Sh_exact"),
    "topological, profile": ("topological", "T_g.profile"),
    "topological, lower bound from the exact value": ("topological", "T_g.lower"),
}


def results_of(run: Path) -> tuple[dict[str, PropertyResult], str]:
    """Results by property name, and the dataset's label."""
    _, cells = load_run(run)
    found = {c.record["property"]["name"]: c.result for c in cells if c.result is not None}
    return found, cells[0].dataset


def table_1(metrics: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Ours and the paper's classification results."""
    rows = []
    for name, found in metrics.items():
        for key in ("precision", "recall", "f1", "loss"):
            rows.append(
                {
                    "model": TITLES[name],
                    "measure": key,
                    "paper": TABLE_1[name][key],
                    "ours": found[key],
                    "difference": found[key] - TABLE_1[name][key],
                    "N": found["n"],
                    "epochs (paper: 100)": found["epochs"],
                    "seed": found["seed"],
                }
            )
    return rows


def table_2(runs: Mapping[str, Path], readout: str) -> Rows:
    """The four columns in our reading of each, then the stricter readings (no value of the paper beside them)."""
    rows = []
    for name, run in runs.items():
        results, _ = results_of(run)
        for column, (prop, measurement) in {**COLUMNS_2, **STRICTER}.items():
            measured = results[prop].measurements if prop in results else []
            m = next((m for m in measured if m.name == measurement), None)
            if m is None:
                continue
            paper = TABLE_2[name].get(column)
            rows.append(
                {
                    "model": TITLES[name],
                    "column": column,
                    "paper": paper,
                    "ours": m.value,
                    "ours / paper": m.value / paper if paper and m.value is not None else None,
                    "kind": str(m.kind),
                    "N": m.n,
                    "eps": _part(m.witness, "eps"),
                    "paper eps": _if(column, name, "eps"),
                    "delta": _part(m.witness, "delta"),
                    "paper delta": _if(column, name, "delta"),
                    "readout": readout,
                    "reading": READINGS.get(column, ""),
                }
            )
    return rows


def _part(witness: Mapping[str, Any], key: str) -> Any:
    return witness.get(key) if isinstance(witness.get(key), float) else None


def _if(column: str, name: str, key: str) -> float | None:
    return TABLE_2[name][key] if column == "g-shadowing" else None


def table_3(runs: Mapping[str, Path], names: Mapping[str, Sequence[str]]) -> Rows:
    """The class pairs the paper shows, then our own closest pair of each model."""
    rows = []
    for name, run in runs.items():
        results, _ = results_of(run)
        if "expansivity" not in results:
            continue  # its cell failed, which was said
        pairs = [r for r in records(results["expansivity"].tables["class_pairs"]) if r["reduction"] == "min"]
        for shown in (p for p in TABLE_3 if p.model == name):
            wanted = {names[name][c] for c in shown.classes}
            ours = next((r for r in pairs if {r["class_a"], r["class_b"]} == wanted), None)
            rows.append(
                _pair_row(name, ours, names[name])
                | {
                    "shown because": "in the paper",
                    "classes": " - ".join(names[name][c] for c in shown.classes),
                    "paper orders": " - ".join(map(str, shown.orders)),
                    "paper block": shown.block,
                    "paper distance": shown.distance,
                }
            )
        if pairs:
            rows.append(_pair_row(name, pairs[0], names[name]) | {"shown because": "our closest pair"})
    return rows


def _pair_row(name: str, pair: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": TITLES[name],
        "shown because": "",
        "classes": "",
        "paper orders": None,
        "paper block": None,
        "paper distance": None,
    }
    if pair is None:
        return row | {"our orders (from 0)": None, "our images": None, "our block": None, "our distance": None}
    return row | {
        "classes": f"{pair['class_a']} - {pair['class_b']}",
        "our orders (from 0)": f"{pair['order_a']} - {pair['order_b']}",
        "our images": f"{pair['index_a']} - {pair['index_b']}",
        "our block": pair["block"],
        "our distance": pair["value"],
    }


def tables_4_5(runs: Mapping[str, Path], out: Path) -> Rows:
    """The best-traced image (the orbit with the smallest eps), depth by depth, and its strip as a picture."""
    rows = []
    for name, run in runs.items():
        results, dataset = results_of(run)
        if "shadowing" not in results:
            continue
        orbit = [
            r
            for r in records(results["shadowing"].tables["orbits"])
            if r["constant"] == "Sh_paper" and r["role"] == "eps"
        ]
        strip([RunFolder(run).image_path(dataset, r["image"]) for r in orbit], out / "figures" / f"strip-{name}.png")
        for r in orbit:
            rows.append(
                {
                    "model": TITLES[name],
                    "depth": r["depth"],
                    "class": r["class"],
                    "order (from 0)": r["order"],
                    "image": r["image"],
                    "distance to tracer": r["distance to tracer"],
                    "jump into it": r["jump into it"],
                    "tracer": f"{r['tracer class']} ({r['tracer']})",
                    "paper": TABLES_4_5[name] if r["depth"] == 0 else "",
                }
            )
    return rows


def strip(images: Sequence[Path], path: Path) -> None:
    """Images side by side in one PNG."""
    from PIL import Image

    opened = [Image.open(p).convert("RGB") for p in images if p.exists()]
    if not opened:
        return
    width = sum(i.width + 2 for i in opened) - 2
    made = Image.new("RGB", (width, max(i.height for i in opened)), "white")
    left = 0
    for image in opened:
        made.paste(image, (left, 0))
        left += image.width + 2
    stream = io.BytesIO()
    made.save(stream, "PNG", optimize=True)
    write_atomic(path, stream.getvalue())


def figures(runs: Mapping[str, Path], out: Path) -> list[str]:
    """Figures 2 and 3 of every run as SVG files; returns their names."""
    from stabilitykit.reporting.page import write_report

    names = []
    for name, run in runs.items():
        write_report(run)
        for number in (2, 3):
            for source in sorted((run / "figures").glob(f"figure-{number}-*.svg"))[:1]:
                target = out / "figures" / f"figure-{number}-{name}.svg"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                names.append(target.name)
    return names


def write(out: Path, tables: Mapping[str, Rows], about: Mapping[str, Any]) -> None:
    """One CSV per table, everything as results.json, and results.md for people."""
    for name, rows in tables.items():
        stream = io.StringIO()
        if rows:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_atomic(out / f"{name}.csv", stream.getvalue())
    write_json(out / "results.json", {"about": about, "tables": tables})
    write_atomic(out / "results.md", markdown(tables, about))


def markdown(tables: Mapping[str, Rows], about: Mapping[str, Any]) -> str:
    """All tables as Markdown, with how they were made."""
    lines = [
        "# The paper's tables and figures, reproduced",
        "",
        "Written by `examples/paper/reproduce.py`; every number is in the CSV files with all its digits.",
        "",
        "```json",
        json.dumps(about, indent=1, ensure_ascii=False),
        "```",
        "",
    ]
    for name, rows in tables.items():
        lines += [f"## {HEADINGS.get(name, name)}", ""]
        if not rows:
            lines += ["(no run)", ""]
            continue
        hidden = {"reading"}
        columns = [c for c in rows[0] if c not in hidden]
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_text(r.get(c)) for c in columns) + " |" for r in rows] + [""]
    lines += ["## Our reading of each estimator", ""] + [f"- **{k}**: {v}" for k, v in READINGS.items()]
    lines += [
        "",
        "Images are numbered from 0 within their class; the paper does not say where it starts. Constants "
        "depend on the trained weights: agreement means the same order of magnitude, not the same digits.",
        "",
    ]
    pictures = about.get("figures") or []
    if pictures:
        lines += ["## Figures 2 and 3, and the strips of Tables 4 and 5", ""]
        lines += [f"![{p}](figures/{p})" for p in pictures]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
