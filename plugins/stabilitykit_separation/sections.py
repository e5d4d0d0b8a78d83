"""Report sections: the window per depth, images far from their own class, the entropy curve."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from stabilitykit import PropertyResult
from stabilitykit.reporting import (
    Axis,
    Curve,
    RunData,
    details,
    line_chart,
    measurements,
    note,
    number,
    picture,
    strip,
    table,
)
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.runs.folder import Cell

# Beyond so many classes their curves are a smear: the whole sample's alone is drawn.
MOST_CLASSES = 12


def window(run: RunData) -> Markup | None:
    """Largest distance within a class and smallest across classes along depth."""
    parts = []
    for cell, result in run.results("window"):
        rows = records(result.tables["depth"]) if "depth" in result.tables else []
        if not rows:
            continue
        curves = [
            Curve(
                name,
                [(r["block"], as_float(r[key])) for r in rows],
                dashed=dashed,
                titles=[
                    f"depth {r['block']}: {number(r[key])}, images {r[key + '_i']} and {r[key + '_j']}" for r in rows
                ],
            )
            for name, key, dashed in (
                ("largest within a class", "within", False),
                ("smallest across classes", "across", True),
            )
        ]
        svg = line_chart(
            curves,
            x=Axis.depths(rows[-1]["block"]),
            y=Axis.over(f"distance, {_unit(result)}", [v for c in curves for _, v in c.points]),
            title="Within a class and across classes, along depth",
        )
        parts += [
            run.heading(cell),
            run.figure(f"window-{cell.slug}", svg, "Where the dashed curve is above the other there is a window."),
            measurements(result.measurements),
        ]
    return _section(
        "Where every two images of a class are nearer than any two of different classes, a distance decides the class.",
        parts,
    )


def outlying(run: RunData) -> Markup | None:
    """Images nearer to another class than to their own, with both neighbours."""
    parts = []
    for cell, result in run.results("outlying"):
        rows = records(result.tables["outlying"]) if "outlying" in result.tables else []
        if not rows:
            continue
        pictures = [
            _picture(run, cell, row, key) for row in rows[:3] for key in ("image", "own nearest", "other nearest")
        ]
        columns = ("image", "class", "taken for", "own nearest", "other nearest", "other class", "ratio")
        listed = [[row[c] if c != "ratio" else as_float(row[c]) for c in columns] for row in rows]
        parts += [run.heading(cell), strip(pictures), details("Most outlying images", table(columns, listed))]
        parts.append(measurements(result.measurements))
    return _section(
        "Each image with its nearest one of its own class and its nearest one of another, by the largest distance over "
        "depth. A ratio above 1: it is nearer to another class. Often a wrong label.",
        parts,
    )


def entropy(run: RunData) -> Markup | None:
    """h_T(eps) of all images and of the classes."""
    parts = []
    for cell, result in run.results("entropy"):
        rows = records(result.tables["curve"]) if "curve" in result.tables else []
        if not rows:
            continue
        names = list(dict.fromkeys(r["class"] for r in rows))
        names = names if len(names) <= MOST_CLASSES + 1 else names[:1]
        curves = [
            Curve(name, [(float(r["eps"]), as_float(r["h_T"])) for r in rows if r["class"] == name], dashed=k > 0)
            for k, name in enumerate(names)
        ]
        svg = line_chart(
            curves,
            x=Axis.over("eps (d_T)", [r["eps"] for r in rows]),
            y=Axis.over("h_T, nats per block", [v for c in curves for _, v in c.points], zero=True, log=False),
            title="Trajectory entropy",
        )
        parts += [
            run.heading(cell),
            run.figure(f"entropy-{cell.slug}", svg, "Lower bounds, by greedy separated sets."),
            measurements(result.measurements),
        ]
    return _section("How many trajectories are told apart at resolution eps, as log s / T.", parts)


def _picture(run: RunData, cell: Cell, row: dict[str, Any], key: str) -> Markup:
    index = row[key]
    name = str(row["other class"] if key == "other nearest" else row["class"])
    apart = {"own nearest": "own distance", "other nearest": "other distance"}.get(key)
    told = key if apart is None else f"{key}, {number(as_float(row[apart]), 3)} away"
    return picture(
        run.image(cell.dataset, index),
        f"{told}: {name}, image {index}",
        name,
        told,
        f"image {index}",
        run.words(cell).taken(index),
    )


def _unit(result: PropertyResult) -> str:
    return result.measurements[0].unit


def _section(told: str, parts: list[Any]) -> Markup | None:
    return Markup("").join([note(told), *parts]) if parts else None
