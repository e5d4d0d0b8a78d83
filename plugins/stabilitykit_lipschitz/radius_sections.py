"""Report section of certified radii: curves per depth, and what number formats move beside them."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from stabilitykit import PropertyResult
from stabilitykit.base.text import place_text
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

# Curves that can be told apart; of more depths some are drawn, all stand in the table.
MOST_CURVES = 6


def radii(run: RunData) -> Markup | None:
    """Share of decisions that survive a state error of r, radii per depth, what formats move, the nearest images."""
    parts = []
    for cell, result in run.results("certified_radius"):
        if "depth" not in result.tables:
            continue
        parts += [run.heading(cell), _chart(run, cell, result), _precision(result), _alone(result), _depths(result)]
        parts += [_images(run, cell, result), measurements(result.measurements)]
    if not parts:
        return None
    about = (
        "A decision with certified radius r stays what it is for every state nearer than r (l2): its margin over every "
        "other class, divided by how fast that margin can change. Of linear readouts r is the distance to the decision "
        "boundary."
    )
    return Markup("").join([note(about), *parts])


def _chart(run: RunData, cell: Cell, result: PropertyResult) -> Markup:
    rows = records(result.tables["shares"]) if "shares" in result.tables else []
    depths = sorted({int(r["depth"]) for r in rows})
    if not depths:
        return Markup("")
    drawn = sorted({depths[round(k * (len(depths) - 1) / (MOST_CURVES - 1))] for k in range(MOST_CURVES)})
    curves = []
    for k, t in enumerate(drawn):
        own = [r for r in rows if int(r["depth"]) == t]
        name = place_text(t, own[0]["at"])
        points = [(float(r["r"]), 100 * float(r["share"])) for r in own]
        titles = [f"{name}: {number(y, 3)} % survive {number(x)}" for x, y in points]
        curves.append(Curve(f"depth {name}", points, dashed=k % 2 == 1, titles=titles))
    svg = line_chart(
        curves,
        x=Axis.over("state error r (l2)", [float(r["r"]) for r in rows]),
        y=Axis("decisions that provably survive, %", 0, 105),
        title="Decisions that provably survive a state error",
    )
    left = len(depths) - len(drawn)
    more = f" {left} more depths stand in the table of the run." if left else ""
    return run.figure(
        f"certified-radius-{cell.slug}", svg, f"x % of decisions provably survive a state error of r.{more}"
    )


HEADS = ["format", "depth", "median radius", "moves (median)", "moves (most)", "radius / move", "certified", "changed"]


def _precision(result: PropertyResult) -> Markup:
    rows = records(result.tables["precision"]) if "precision" in result.tables else []
    if not rows:
        return Markup("")
    told = (
        f"What each format really moves, {rows[0]['n']} images: stem and blocks run in it, the readout in float64. "
        "Changed is never more than what is not certified."
    )
    return Markup("").join([note(told), table(HEADS, _listed(rows), stacked=True)])


def _alone(result: PropertyResult) -> Markup:
    """Each block alone, its least certified format and block in the line above."""
    rows = records(result.tables["alone"]) if "alone" in result.tables else []
    if not rows:
        return Markup("")
    formats = list(dict.fromkeys(r["format"] for r in rows))
    least = [min((r for r in rows if r["format"] == name), key=lambda r: float(r["certified"])) for name in formats]
    told = "; ".join(
        f"{r['format']} {100 * float(r['certified']):.4g} %, {place_text(int(r['depth']), r['at'])}" for r in least
    )
    about = (
        f"Each block alone in the format, {rows[0]['n']} images: it is given the clean state, and its own move stands "
        f"beside the radius of the decision at its output. Fewest certified: {told}."
    )
    heads = [*HEADS[:1], "block (depth of its output)", *HEADS[2:]]
    return Markup("").join([note(about), table(heads, _listed(rows), stacked=True)])


def _listed(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            r["format"],
            place_text(int(r["depth"]), r["at"]),
            number(as_float(r["median radius"])),
            number(as_float(r["moved median"])),
            number(as_float(r["moved max"])),
            number(as_float(r["room"]), 3),
            f"{100 * float(r['certified']):.4g} %",
            f"{100 * float(r['flipped']):.4g} %",
        ]
        for r in rows
    ]


def _depths(result: PropertyResult) -> Markup:
    rows = records(result.tables["depth"])
    keys = ("smallest", "q10", "q25", "median", "q75", "q90", "relative median")
    listed = [
        [place_text(int(r["depth"]), r["at"]), *(number(as_float(r[k])) for k in keys), r["method"], r["note"] or ""]
        for r in rows
    ]
    heads = ["depth", *keys, "method", "note"]
    return details(result.tables["depth"].title, table(heads, listed, stacked=True))


def _images(run: RunData, cell: Cell, result: PropertyResult) -> Markup:
    rows = records(result.tables["images"]) if "images" in result.tables else []
    shown = [
        picture(
            run.image(cell.dataset, r["index"]),
            f"{r['class']}, image {r['index']}",
            f"{r['class']}, image {r['index']}",
            f"{r['decided']}, then {r['runner_up']}",
            f"radius {number(as_float(r['radius']), 3)}",
        )
        for r in rows[:10]
    ]
    return strip(shown) if shown else Markup("")
