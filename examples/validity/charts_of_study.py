"""The figures of docs/validity.md, as .svg files that follow light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from across import OUTCOMES, SUBSETS, Rows

from stabilitykit.base.files import write_atomic
from stabilitykit.reporting.axes import Axis
from stabilitykit.reporting.charts import Curve, interval_chart, line_chart
from stabilitykit.reporting.frame import Frame
from stabilitykit.reporting.standalone import standalone

CELL, NAMES, HEAD, GAP = 22.0, 232.0, 78.0, 18.0


def draw(folder: Path, networks: Rows, constants: Rows, correlations: Rows, hypotheses: Rows) -> None:
    """Write validity-hypotheses.svg, validity-map.svg and validity-pgd.svg into ``folder``, where there is a group
    large enough for them."""
    folder.mkdir(parents=True, exist_ok=True)
    if not correlations:
        return
    charts = {"hypotheses": fixed(hypotheses), "map": correlation_map(correlations)}
    group = correlations[-1]["group"]
    charts["pgd"] = against_pgd(networks, constants, group)
    for name, chart in charts.items():
        write_atomic(folder / f"validity-{name}.svg", chart)


def fixed(hypotheses: Rows) -> str:
    """Spearman's rho of what was fixed beforehand, with intervals."""
    rows = []
    for row in hypotheses:
        if not math.isnan(row["rho"]):
            number = row["number"].removeprefix("head: ")
            name = f"{number} {row['expected']} {row['outcome']}"
            rows.append((f"{name[:24]}, {row['group'].split(',')[0][:5]}", row["low"], row["rho"], row["high"]))
    axis = Axis("Spearman's rho, 95 % bootstrap interval", -1, 1)
    return standalone(interval_chart(rows, x=axis, title="What was fixed beforehand"))


def correlation_map(correlations: Rows) -> str:
    """rho of every number of the head, and of the baselines, with every outcome; one panel a group."""
    whole = [row for row in correlations if row["subset"] == SUBSETS[0] and row["number"][:4] in ("head", "base")]
    numbers = sorted(dict.fromkeys(row["number"] for row in whole), key=lambda number: number.startswith("baseline"))
    groups = list(dict.fromkeys(row["group"] for row in whole))
    panel = CELL * len(OUTCOMES) + GAP
    width, height = NAMES + panel * len(groups), HEAD + CELL * len(numbers) + 44
    frame = Frame(Axis("", 0, 1), Axis("", 0, 1), "Spearman's rho of numbers and outcomes", height, width=width)
    cells = {(row["group"], row["number"], row["outcome"]): row for row in whole}
    for r, number in enumerate(numbers):
        y = HEAD + CELL * r
        frame.text(NAMES - 8, y + 15, number.removeprefix("head: "), anchor="end", small=True)
        for g, group in enumerate(groups):
            for c, outcome in enumerate(OUTCOMES):
                row = cells.get((group, number, outcome))
                if row is not None:
                    _cell(frame, NAMES + panel * g + CELL * c, y, row["rho"], row["q"])
    for g, group in enumerate(groups):
        left = NAMES + panel * g
        frame.text(left, 12, group.split(",")[0], anchor="start")
        for c, outcome in enumerate(OUTCOMES):
            x = left + CELL * (c + 0.5) + 3
            frame.text(x, HEAD - 6, outcome, anchor="start", small=True, transform=f"rotate(-55 {x} {HEAD - 6})")
    said = "blue: rho > 0, orange: rho < 0, a dot: q < 0.05 in that data set"
    frame.text(NAMES, height - 12, said, anchor="start", soft=True, small=True)
    return standalone(frame.svg())


def _cell(frame: Frame, x: float, y: float, rho: float, q: float) -> None:
    fill = "f0" if rho > 0 else "f1"
    size = CELL - 2
    frame.add("rect", x=x, y=y, width=size, height=size, class_=fill, fill_opacity=round(0.85 * abs(rho), 2))
    if q < 0.05:
        frame.add("circle", cx=x + size / 2, cy=y + size / 2, r=2, fill="var(--ink)")


def against_pgd(networks: Rows, constants: Rows, group: str) -> str:
    """Dots: the expansive constant (Definition 1) of a group's networks against their accuracy under PGD."""
    values = {row["network"]: row["value"] for row in constants if row["number"] == "head: expansive_constant.max"}
    chosen = [n for n in networks if n["group"] == group and n["pgd"] is not None and values.get(n["network"])]
    kinds = (("trained as usual", False), ("adversarially trained", True))
    curves = [
        Curve(name, _points(chosen, values, attacked), line=False)
        for name, attacked in kinds
        if _points(chosen, values, attacked)
    ]
    if not curves:
        return ""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points if y is not None]
    x = Axis("expansive_constant.max (probabilities)", 0, max(xs) * 1.1)
    y = Axis("accuracy under PGD, mean over radii", 0, max(ys) * 1.1 or 1)
    return standalone(line_chart(curves, x=x, y=y, title=f"{group}: Definition 1 and attacks"))


def _points(networks: Rows, values: dict[str, float], attacked: bool) -> Sequence[tuple[float, float | None]]:
    return sorted((values[n["network"]], n["pgd"]) for n in networks if bool(n["eps"]) == attacked)
