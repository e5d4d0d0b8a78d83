"""Report sections of g-expansivity: who is confusable with whom, at which block, how that changes along depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from stabilitykit import Measurement, PropertyResult
from stabilitykit.reporting import (
    Axis,
    Curve,
    Dot,
    PairData,
    RunData,
    cards,
    details,
    dot_chart,
    heat_map,
    kind_badge,
    line_chart,
    note,
    number,
    picture,
    strip,
    table,
    tag,
)
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.store import Cell

# Beyond so many classes a chart per class is a smear: the closest ones are shown, and the text says so.
MOST_CLASSES = 24
WORDS = {"max": "max over blocks (Definition 1)", "min": "min over blocks (Table 2)", "mean": "mean over blocks"}


def _found(run: RunData) -> Iterable[tuple[PairData, Cell, PropertyResult]]:
    for pair in run.pairs:
        for cell, result in pair.results("expansivity"):
            yield pair, cell, result


def _measurement(result: PropertyResult, name: str) -> Measurement | None:
    return next((m for m in result.measurements if m.name == name), None)


def _rows(result: PropertyResult, name: str) -> list[dict[str, Any]]:
    return records(result.tables[name]) if name in result.tables else []


def _unit(result: PropertyResult) -> str:
    found = _measurement(result, "expansive_constant.min")
    return found.unit if found else ""


def glance(run: RunData) -> Markup | None:
    """The closest pair of all: who, where, how near, how sure."""
    parts = []
    for _, cell, result in _found(run):
        closest, widest = (_measurement(result, f"expansive_constant.{r}") for r in ("min", "max"))
        if closest is None or closest.value is None or len(closest.witness.get("indices", ())) != 2:
            continue
        w = closest.witness
        (i, j), (a, b) = w["indices"], _texts(w.get("classes"), 2)
        blocks = len(w.get("distances", ())) - 1
        sure = Markup("").join([kind_badge(closest.kind), f" over {closest.n} images"])
        where = _place(w.get("block"), blocks)
        told = [tag("p", tag("strong", a), " and ", tag("strong", b), f" come nearest at {where}:"),
                tag("p", number(closest.value), tag("span", f" {closest.unit}", class_="muted"), class_="big"),
                tag("p", sure, _recheck(closest))]
        if widest is not None and widest.value is not None:
            pair_text = " and ".join(_texts(widest.witness.get("classes"), 2))
            told.append(tag("p", "Yet every two of these images of different class are at least "
                                 f"{number(widest.value)} apart at some block (Definition 1; the nearest: "
                                 f"{pair_text}).", class_="muted"))
        parts.append(run.heading(cell))
        parts.append(tag("div", strip([_image(run, cell, i, a, w, 0), _image(run, cell, j, b, w, 1)]),
                         tag("div", *told), class_="lead"))
    return Markup("").join(parts) if parts else None


def _recheck(m: Measurement) -> str:
    if m.recheck is None:
        return ""
    return ", recomputed bit for bit" if m.recheck == 0 else f", recomputed within {number(m.recheck, 2)}"


def _texts(values: Any, count: int) -> list[str]:
    values = list(values or [])
    return [str(values[k]) if k < len(values) else "?" for k in range(count)]


def _place(block: Any, blocks: int) -> str:
    if block == 0:
        return "the input of the first block"
    return f"block {block}" + (f" of {blocks}" if blocks > 0 else "")


def _image(run: RunData, cell: Cell, index: Any, name: str, witness: Mapping[str, Any], which: int) -> Markup:
    order = _texts(witness.get("orders"), which + 1)[which]
    return picture(run.image(cell.dataset, index), f"{name}, image {index}", name, f"#{order} in class",
                   f"image {index}")


def depth(run: RunData) -> Markup | None:
    """Accuracy and the closest and median distances along depth."""
    parts = []
    for _, cell, result in _found(run):
        made = [_accuracy(run, cell, result), _distances(run, cell, result)]
        if any(made):
            parts += [run.heading(cell), *(m for m in made if m)]
    if not parts:
        return None
    return Markup("").join([note("Depth 0 is the state before any block; depth t is after t blocks."), *parts])


def _accuracy(run: RunData, cell: Cell, result: PropertyResult) -> Markup | None:
    rows = _rows(result, "accuracy")
    if not rows:
        return None
    lines = (("accuracy", "accuracy"), ("agrees with the final decision", "agrees_with_final"),
             ("decided from here on", "decided"))
    curves = [Curve(name, [(r["block"], as_float(r[key])) for r in rows]) for name, key in lines
              if any(r.get(key) is not None for r in rows)]
    if not curves:
        return None
    blocks = rows[-1]["block"]
    svg = line_chart(curves, x=Axis.depths(blocks), y=Axis("share of images", 0, 1.03),
                     title="Accuracy of the readout after each block")
    return run.figure(f"accuracy-{cell.slug}", svg,
                      f"Decisions of the readout after each block, {rows[0]['N']} images.")


def _distances(run: RunData, cell: Cell, result: PropertyResult) -> Markup | None:
    rows = _rows(result, "depth")
    if not rows:
        return None
    closest = Curve("closest pair of different class", [(r["block"], as_float(r["closest"])) for r in rows], titles=[
        f"depth {r['block']}: {number(r['closest'])}, {r['class_i']} #{r['order_i']} and {r['class_j']} #{r['order_j']}"
        for r in rows])
    median = Curve("median pair", [(r["block"], as_float(r["median"])) for r in rows], dashed=True)
    y = Axis.over(f"distance, {_unit(result)}", [v for c in (closest, median) for _, v in c.points])
    svg = line_chart([closest, median], x=Axis.depths(rows[-1]["block"]), y=y,
                     title="Closest and median cross-class distance along depth")
    zeros = sum(1 for r in rows if r["closest"] == 0)
    remark = f" {zeros} of the closest are exactly 0 and drawn at the lower end." if zeros and y.log else ""
    return run.figure(f"distances-{cell.slug}", svg,
                      "Distances between images of different class after each block." + remark)


def figures(run: RunData) -> Markup | None:
    """Figures 2 and 3: for each class the constants of its pairs with every other class."""
    parts = []
    for pair, cell, result in _found(run):
        made = [_per_class(run, pair, cell, result, reduction, figure)
                for reduction, figure in (("mean", "Figure 2"), ("min", "Figure 3"))]
        if any(made):
            parts += [run.heading(cell), *(m for m in made if m)]
    if not parts:
        return None
    return Markup("").join([
        note("One dot for every pair of classes, drawn above both: the distance of the closest pair of images, one of "
             "each class. Colours name the other class; point at a dot to read the images."), *parts])


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
        told = (f"{row['class_a']} #{row['order_a']} and {row['class_b']} #{row['order_b']}: {number(row['value'])} "
                f"at block {row['block']}")
        for name, other in ((row["class_a"], row["class_b"]), (row["class_b"], row["class_a"])):
            nearest = lowest[name] == row["value"] and len(names) <= 12
            dots.append(Dot(place[name], row["value"], place[other], told, str(other)[:6] if nearest else ""))
    how = "mean over blocks" if reduction == "mean" else "min over blocks"
    svg = dot_chart(dots, x=Axis.categories("class", names),
                    y=Axis.over(f"{how}, {_unit(result)}", [r["value"] for r in rows], room=0.1),
                    title=f"{figure}: constants of every class pair, {how}",
                    legend=names if len(names) <= 12 else ())
    caption = f"{figure}: distance {'averaged over' if reduction == 'mean' else 'at the closest of'} all blocks"
    if len(names) <= 12:
        caption += "; the nearest other class is written under its dot"
    return run.figure(f"{figure.lower().replace(' ', '-')}-{cell.slug}", svg, caption + "." + left_out)


def _classes(pair: PairData, result: PropertyResult, reduction: str) -> tuple[list[str], list[dict[str, Any]], str]:
    """Class names in dataset order (the closest MOST_CLASSES if there are more), their pairs, a remark."""
    rows = [r | {"class_a": str(r["class_a"]), "class_b": str(r["class_b"]), "value": as_float(r["value"])}
            for r in _rows(result, "class_pairs") if r["reduction"] == reduction]
    rows = sorted((r for r in rows if r["value"] is not None), key=lambda r: r["value"])
    by_closeness = list(dict.fromkeys(name for r in rows for name in (r["class_a"], r["class_b"])))
    kept = set(by_closeness[:MOST_CLASSES])
    labels = {name: label for label, name in enumerate(pair.class_names)}
    names = sorted(kept, key=lambda name: (labels.get(name, len(labels)), len(name), name))
    remark = "" if len(kept) == len(by_closeness) else \
        f" The {len(kept)} classes with the closest pairs, of {len(by_closeness)}."
    return names, [r for r in rows if r["class_a"] in kept and r["class_b"] in kept], remark


def heat(run: RunData) -> Markup | None:
    """Heat map over class pairs, one per reduction."""
    parts = []
    for pair, cell, result in _found(run):
        maps = {}
        for reduction in ("min", "mean", "max"):
            made = _heat(run, pair, cell, result, reduction)
            if made:
                maps[reduction] = made
        if maps:
            parts += [run.heading(cell), maps.pop("min", Markup("")),
                      *(details(f"The same by {WORDS[r]}", made) for r, made in maps.items())]
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
        told = (f"{row['class_a']} #{row['order_a']} and {row['class_b']} #{row['order_b']}: {number(row['value'])} at "
                f"block {row['block']}")
        for r, c in ((a, b), (b, a)):
            values[r][c], titles[r][c] = row["value"], told
    svg = heat_map(names, values, titles=titles, label=f"distance ({_unit(result)}); strong = close",
                   title=f"Closest pair of every two classes, {reduction}")
    return run.figure(f"class-pairs-{reduction}-{cell.slug}", svg,
                      f"Closest pair of images of every two classes, {WORDS[reduction]}." + left_out)


def closest(run: RunData) -> Markup | None:
    """Table 3: the closest pairs as images."""
    parts = []
    for _, cell, result in _found(run):
        rows = [r for r in _rows(result, "class_pairs") if r["reduction"] == "min"]
        shown = [r for r in rows if run.image(cell.dataset, r["index_a"]) and run.image(cell.dataset, r["index_b"])][:8]
        if not rows:
            continue
        parts.append(run.heading(cell))
        parts.append(cards([_pair_card(run, cell, row, _unit(result)) for row in shown or rows[:6]]))
        columns = ["class a", "class b", "distance", "block", "order a", "order b", "image a", "image b"]
        listed = [[r["class_a"], r["class_b"], r["value"], r["block"], r["order_a"], r["order_b"], r["index_a"],
                   r["index_b"]] for r in rows]
        parts.append(details(f"All {len(rows)} class pairs", table(columns, listed, limit=200)))
    if not parts:
        return None
    return Markup("").join([
        note("As in the paper's Table 3: the block at which two images of different class are nearest, their number "
             "within their class (from 0, in the dataset's order) and the distance."), *parts])


def _pair_card(run: RunData, cell: Cell, row: Mapping[str, Any], unit: str) -> Markup:
    images = [picture(run.image(cell.dataset, row[f"index_{s}"]), f"{row[f'class_{s}']}, image {row[f'index_{s}']}",
                      row[f"class_{s}"], f"#{row[f'order_{s}']}", f"image {row[f'index_{s}']}") for s in "ab"]
    value = tag("div", number(as_float(row["value"])), tag("span", f" {unit}", class_="muted"), class_="big")
    return Markup("").join([strip(images), value,
                            tag("div", f"at {_place(row['block'], 0)}", class_="muted")])


def curve(run: RunData) -> Markup | None:
    """Subsample curves: a constant belongs to its N."""
    parts = []
    for _, cell, result in _found(run):
        rows = _rows(result, "curve")
        curves = [Curve(WORDS[reduction], [(r["N"], as_float(r["value"])) for r in rows if r["reduction"] == reduction])
                  for reduction in WORDS]
        curves = [c for c in curves if any(v is not None for _, v in c.points)]
        if not curves:
            continue
        svg = line_chart(curves, x=Axis.over("N (images, logarithmic)", [r["N"] for r in rows], log=True),
                         y=Axis.over(f"g-expansive constant, {_unit(result)}",
                                     [v for c in curves for _, v in c.points]),
                         title="Constants over nested subsamples")
        parts += [run.heading(cell), run.figure(f"curve-{cell.slug}", svg, "Constants over nested random subsamples.")]
    if not parts:
        return None
    return Markup("").join([
        note("A smallest distance over N images can only fall as N grows, so two models are comparable at equal N "
             "only: read both curves at the same N."), *parts])
