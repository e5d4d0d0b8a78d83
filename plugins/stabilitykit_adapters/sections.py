"""Report section of ``blocks``: which blocks matter, and when images are decided."""

from __future__ import annotations

from collections import Counter
from typing import Any

from markupsafe import Markup

from stabilitykit import PropertyResult
from stabilitykit.reporting import Axis, Curve, RunData, details, line_chart, note, picture, strip, table, tag
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.runs.folder import Cell


def blocks(run: RunData) -> Markup | None:
    """Effect of every block on readout, state and decisions."""
    parts = []
    for cell, result in run.results("blocks"):
        if "blocks" not in result.tables:
            continue
        rows = records(result.tables["blocks"])
        parts += [run.heading(cell), _effects(run, cell, rows), _sizes(run, cell, rows), _late(run, cell, result)]
        columns = [
            "block",
            "name",
            "skip",
            "accuracy",
            "decided",
            "closest",
            "step",
            "relative change",
            "left out: changes",
            "left out: moves",
            "kind",
        ]
        keys = [column.replace(": ", "_").replace(" ", "_") for column in columns]
        listed = [["-" if r.get(k) is None else r[k] for k in keys] for r in rows]
        for row, values in zip(rows, listed, strict=True):
            values[0] = f"{values[0]} (blind)" if row.get("blind") else values[0]
        parts.append(details("Every block in numbers", table(columns, listed)))
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "What each block does: accuracy of the readout after it, how far it moves readout and "
                "state, and how many "
                "final decisions change when this block alone is left out (replaced by the identity)."
            ),
            *parts,
        ]
    )


def _effects(run: RunData, cell: Cell, rows: list[dict[str, Any]]) -> Markup:
    lines = (
        ("accuracy after the block", "accuracy"),
        ("decided from here on", "decided"),
        ("decisions that change without it", "left_out_changes"),
    )
    curves = [
        Curve(name, [(r["block"], as_float(r[key])) for r in rows])
        for name, key in lines
        if any(r[key] is not None for r in rows)
    ]
    svg = line_chart(curves, x=_depth(rows), y=Axis("share of images", 0, 1.03), title="Which blocks matter")
    return run.figure(f"blocks-{cell.slug}", svg, "Accuracy, decided images, and decisions lost without the block.")


def _sizes(run: RunData, cell: Cell, rows: list[dict[str, Any]]) -> Markup:
    lines = (
        ("step of the readout", "step"),
        ("relative change of the state", "relative_change"),
        ("final readout moves without it", "left_out_moves"),
    )
    curves = [Curve(name, [(r["block"], as_float(r[key])) for r in rows if r[key] is not None]) for name, key in lines]
    y = Axis.over("median over images (l2)", [v for c in curves for _, v in c.points])
    svg = line_chart(curves, x=_depth(rows), y=y, title="How far each block moves things")
    return run.figure(
        f"block-sizes-{cell.slug}",
        svg,
        "Medians: step in readout space, relative change of the state, effect of leaving the block out.",
    )


def _late(run: RunData, cell: Cell, result: PropertyResult) -> Markup:
    found = (
        {r["index"]: r for r in records(result.tables["prediction_depth"])}
        if "prediction_depth" in result.tables
        else {}
    )
    counts = Counter(r["prediction_depth"] for r in found.values())
    spread = ", ".join(f"{counts[depth]} at depth {depth}" for depth in sorted(counts))
    pictures = [
        picture(
            run.image(cell.dataset, index),
            f"image {index}",
            found[index]["class"] if index in found else "",
            f"image {index}",
            f"decided at depth {found[index]['prediction_depth']}" if index in found else "",
            run.words(cell).taken(index),
        )
        for index in result.images
    ]
    return Markup("").join(
        [tag("h4", "Images decided last"), strip(pictures), note(f"Images decided: {spread}.") if spread else ""]
    )


def _depth(rows: list[dict[str, Any]]) -> Axis:
    return Axis.along([{**row, "at": row["name"]} for row in rows])
