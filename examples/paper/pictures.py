"""Tables 3 to 5 and Figures 2 and 3 of finished runs, beside what the paper says."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper_values import TABLE_3, TABLES_4_5, TITLES
from readings import results_of

from stabilitykit.base.files import write_atomic
from stabilitykit.reporting.rundata import records
from stabilitykit.runs.folder import RunFolder

Rows = list[dict[str, Any]]


def table_3(runs: Mapping[str, Path], names: Mapping[str, Sequence[str]]) -> Rows:
    """The class pairs the paper shows, then our own closest pair of each model."""
    rows = []
    for name, run in runs.items():
        results, _ = results_of(run)
        if "expansivity labels" not in results:
            continue  # its cell failed, which was said
        pairs = [r for r in records(results["expansivity labels"].tables["class_pairs"]) if r["reduction"] == "min"]
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
