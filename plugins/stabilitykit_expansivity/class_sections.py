"""Report sections of g-expansivity by class: who is confusable with whom (Figures 2 and 3, Table 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from stabilitykit import PropertyResult, Table
from stabilitykit.base.text import place_text
from stabilitykit.reporting import (
    Axis,
    Dot,
    PairData,
    RunData,
    cards,
    details,
    dot_chart,
    heat_map,
    note,
    number,
    picture,
    strip,
    table,
    tag,
)
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.runs.folder import Cell
from stabilitykit_expansivity.reading import WORDS, class_pairs, results_of, unit_of, where_text

# Beyond so many classes a chart per class is a smear: the closest ones are shown, and the text says so.
MOST_CLASSES = 24
# Pairs of classes that are listed; the others are in the run folder.
MOST_LISTED = 200


def figures(run: RunData) -> Markup | None:
    """Figures 2 and 3: for each class the constants of its pairs with every other class."""
    parts = []
    for pair, cell, result in results_of(run):
        made = [
            _per_class(run, pair, cell, result, reduction, figure)
            for reduction, figure in (("mean", "Figure 2"), ("min", "Figure 3"))
        ]
        if any(made):
            parts += [run.heading(cell), *(m for m in made if m)]
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "One dot for every pair of classes, drawn above both: the distance of the closest pair of "
                "images, one of "
                "each class. Colours name the other class; point at a dot to read the images."
            ),
            *parts,
        ]
    )


def _per_class(
    run: RunData, pair: PairData, cell: Cell, result: PropertyResult, reduction: str, figure: str
) -> Markup | None:
    names, rows, left_out = _classes(pair, result, reduction)
    if not rows:
        return None
    place = {name: k for k, name in enumerate(names)}
    lowest: dict[str, float] = {}
    for row in rows:
        for name in (row["class_a"], row["class_b"]):
            lowest[name] = min(lowest.get(name, math.inf), row["value"])
    dots = []
    for row in rows:
        told = (
            f"{row['class_a']} #{row['order_a']} and {row['class_b']} #{row['order_b']}: {number(row['value'])} "
            f"at block {place_text(row['block'], row.get('at'))}"
        )
        for name, other in ((row["class_a"], row["class_b"]), (row["class_b"], row["class_a"])):
            nearest = lowest[name] == row["value"] and len(names) <= 12
            dots.append(Dot(place[name], row["value"], place[other], told, str(other)[:6] if nearest else ""))
    how = "mean over blocks" if reduction == "mean" else "min over blocks"
    svg = dot_chart(
        dots,
        x=Axis.categories("class", names),
        y=Axis.over(f"{how}, {unit_of(result)}", [r["value"] for r in rows], room=0.1),
        title=f"{figure}: constants of every class pair, {how}",
        legend=names,
    )
    caption = f"{figure}: distance {'averaged over' if reduction == 'mean' else 'at the closest of'} all blocks"
    if len(names) <= 12:
        caption += "; the nearest other class is written under its dot"
    return run.figure(f"{figure.lower().replace(' ', '-')}-{cell.slug}", svg, caption + "." + left_out)


def _classes(pair: PairData, result: PropertyResult, reduction: str) -> tuple[list[str], list[dict[str, Any]], str]:
    """Class names in dataset order (the closest MOST_CLASSES if there are more), their pairs, a remark."""
    pairs = class_pairs(result, reduction)
    if not pairs.rows:
        return [], [], ""
    first, second = pairs.columns.index("class_a"), pairs.columns.index("class_b")
    by_closeness = list(dict.fromkeys(str(row[k]) for row in pairs.rows for k in (first, second)))
    kept = set(by_closeness[:MOST_CLASSES])
    shown = Table(pairs.columns, [r for r in pairs.rows if str(r[first]) in kept and str(r[second]) in kept])
    rows = [
        r | {"class_a": str(r["class_a"]), "class_b": str(r["class_b"]), "value": as_float(r["value"])}
        for r in records(shown)
    ]
    labels = {name: label for label, name in enumerate(pair.class_names)}
    names = sorted(kept, key=lambda name: (labels.get(name, len(labels)), len(name), name))
    remark = (
        ""
        if len(kept) == len(by_closeness)
        else f" The {len(kept)} classes with the closest pairs, of {len(by_closeness)}."
    )
    return names, rows, remark


def heat(run: RunData) -> Markup | None:
    """Heat map over class pairs, one per reduction."""
    parts = []
    for pair, cell, result in results_of(run):
        maps = {}
        for reduction in ("min", "mean", "max"):
            made = _heat(run, pair, cell, result, reduction)
            if made:
                maps[reduction] = made
        if maps:
            parts += [
                run.heading(cell),
                maps.pop("min", Markup("")),
                *(details(f"The same by {WORDS[r]}", made) for r, made in maps.items()),
            ]
    return Markup("").join(parts) if parts else None


def _heat(run: RunData, pair: PairData, cell: Cell, result: PropertyResult, reduction: str) -> Markup | None:
    names, rows, left_out = _classes(pair, result, reduction)
    if not rows:
        return None
    place = {name: k for k, name in enumerate(names)}
    values: list[list[float | None]] = [[None] * len(names) for _ in names]
    titles = [[""] * len(names) for _ in names]
    for row in rows:
        a, b = place[row["class_a"]], place[row["class_b"]]
        told = (
            f"{row['class_a']} #{row['order_a']} and {row['class_b']} #{row['order_b']}: {number(row['value'])} at "
            f"block {place_text(row['block'], row.get('at'))}"
        )
        for r, c in ((a, b), (b, a)):
            values[r][c], titles[r][c] = row["value"], told
    svg = heat_map(
        names,
        values,
        titles=titles,
        label=f"distance ({unit_of(result)}); strong = close",
        title=f"Closest pair of every two classes, {reduction}",
    )
    return run.figure(
        f"class-pairs-{reduction}-{cell.slug}",
        svg,
        f"Closest pair of images of every two classes, {WORDS[reduction]}." + left_out,
    )


def closest(run: RunData) -> Markup | None:
    """Table 3: the closest pairs as images."""
    parts = []
    for _, cell, result in results_of(run):
        pairs = class_pairs(result, "min")
        rows = records(Table(pairs.columns, pairs.rows[:MOST_LISTED]))
        shown = [r for r in rows if run.image(cell.dataset, r["index_a"]) and run.image(cell.dataset, r["index_b"])][:8]
        if not rows:
            continue
        parts.append(run.heading(cell))
        parts.append(cards([_pair_card(run, cell, row, unit_of(result)) for row in shown or rows[:6]]))
        columns = ["class a", "class b", "distance", "block", "order a", "order b", "image a", "image b"]
        listed = [
            [
                r["class_a"],
                r["class_b"],
                r["value"],
                place_text(r["block"], r.get("at")),
                r["order_a"],
                r["order_b"],
                r["index_a"],
                r["index_b"],
            ]
            for r in rows
        ]
        parts.append(details(f"All {len(pairs.rows)} class pairs", table(columns, listed, total=len(pairs.rows))))
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "As in the paper's Table 3: the block at which two images of different class are nearest, their number "
                "within their class (from 0, in the dataset's order) and the distance."
            ),
            *parts,
        ]
    )


def _pair_card(run: RunData, cell: Cell, row: Mapping[str, Any], unit: str) -> Markup:
    images = [
        picture(
            run.image(cell.dataset, row[f"index_{s}"]),
            f"{row[f'class_{s}']}, image {row[f'index_{s}']}",
            row[f"class_{s}"],
            f"#{row[f'order_{s}']}",
            f"image {row[f'index_{s}']}",
            run.words(cell).taken(row[f"index_{s}"]),
        )
        for s in "ab"
    ]
    value = tag("div", number(as_float(row["value"])), tag("span", f" {unit}", class_="muted"), class_="big")
    return Markup("").join(
        [strip(images), value, tag("div", f"at {where_text(row['block'], row.get('at'))}", class_="muted")]
    )
