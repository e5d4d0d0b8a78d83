"""Report sections of g-expansivity over all classes: the closest pair, what depth does, what N does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from stabilitykit import Measurement, PropertyResult
from stabilitykit.base.text import place_text
from stabilitykit.reporting import Axis, Curve, RunData, kind_badge, line_chart, note, number, picture, strip, tag
from stabilitykit.reporting.rundata import as_float
from stabilitykit.runs.folder import Cell
from stabilitykit_expansivity.reading import WORDS, blind_text, measurement, results_of, rows_of, unit_of, where_text


def glance(run: RunData) -> Markup | None:
    """The closest pair of all: who, where, how near, how sure."""
    parts = []
    for _, cell, result in results_of(run):
        closest, widest = (measurement(result, f"expansive_constant.{r}") for r in ("min", "max"))
        if closest is None or closest.value is None or len(closest.witness.get("indices", ())) != 2:
            continue
        w = closest.witness
        (i, j), (a, b) = w["indices"], _texts(w.get("classes"), 2)
        blocks = len(w.get("distances", ())) - 1
        sure = Markup("").join([kind_badge(closest.kind), f" over {closest.n} images"])
        where = where_text(w.get("block"), w.get("at"), blocks)
        told = [
            tag("p", tag("strong", a), " and ", tag("strong", b), f" come nearest at {where}:"),
            tag("p", number(closest.value), tag("span", f" {closest.unit}", class_="muted"), class_="big"),
            tag("p", sure, _recheck(closest)),
        ]
        if widest is not None and widest.value is not None:
            pair_text = " and ".join(_texts(widest.witness.get("classes"), 2))
            told.append(
                tag(
                    "p",
                    "Yet every two of these images of different class are at least "
                    f"{number(widest.value)} apart at some block (Definition 1; the nearest: "
                    f"{pair_text}).",
                    class_="muted",
                )
            )
        parts.append(run.heading(cell))
        parts.append(
            tag(
                "div",
                strip([_image(run, cell, i, a, w, 0), _image(run, cell, j, b, w, 1)]),
                tag("div", *told),
                class_="lead",
            )
        )
    return Markup("").join(parts) if parts else None


def _recheck(m: Measurement) -> str:
    if m.recheck is None:
        return ""
    return ", recomputed bit for bit" if m.recheck == 0 else f", recomputed within {number(m.recheck, 2)}"


def _texts(values: Any, count: int) -> list[str]:
    values = list(values or [])
    return [str(values[k]) if k < len(values) else "?" for k in range(count)]


def _image(run: RunData, cell: Cell, index: Any, name: str, witness: Mapping[str, Any], which: int) -> Markup:
    order = _texts(witness.get("orders"), which + 1)[which]
    return picture(
        run.image(cell.dataset, index),
        f"{name}, image {index}",
        name,
        f"#{order} in class",
        f"image {index}",
        run.words(cell).taken(index),
    )


def depth(run: RunData) -> Markup | None:
    """Accuracy and the closest and median distances along depth."""
    parts = []
    for _, cell, result in results_of(run):
        made = [_accuracy(run, cell, result), _distances(run, cell, result)]
        if any(made):
            parts += [run.heading(cell), *(m for m in made if m)]
    if not parts:
        return None
    return Markup("").join([note("Depth 0 is the state before any block; depth t is after t blocks."), *parts])


def _accuracy(run: RunData, cell: Cell, result: PropertyResult) -> Markup | None:
    rows = rows_of(result, "accuracy")
    if not rows:
        return None
    lines = (
        ("accuracy", "accuracy"),
        ("agrees with the final decision", "agrees_with_final"),
        ("decided from here on", "decided"),
    )
    curves = [
        Curve(name, [(r["block"], as_float(r[key])) for r in rows])
        for name, key in lines
        if any(r.get(key) is not None for r in rows)
    ]
    if not curves:
        return None
    svg = line_chart(
        curves, x=Axis.along(rows), y=Axis("share of images", 0, 1.03), title="Accuracy of the readout after each block"
    )
    return run.figure(
        f"accuracy-{cell.slug}",
        svg,
        f"Decisions of the readout after each block, {rows[0]['N']} images." + blind_text(rows),
    )


def _distances(run: RunData, cell: Cell, result: PropertyResult) -> Markup | None:
    rows = rows_of(result, "depth")
    if not rows:
        return None
    closest = Curve(
        "closest pair of different class",
        [(r["block"], as_float(r["closest"])) for r in rows],
        titles=[
            f"depth {place_text(r['block'], r.get('at'))}: {number(r['closest'])}, {r['class_i']} #{r['order_i']} and "
            f"{r['class_j']} #{r['order_j']}"
            for r in rows
        ],
    )
    median = Curve("median pair", [(r["block"], as_float(r["median"])) for r in rows], dashed=True)
    y = Axis.over(f"distance, {unit_of(result)}", [v for c in (closest, median) for _, v in c.points])
    svg = line_chart(
        [closest, median], x=Axis.along(rows), y=y, title="Closest and median cross-class distance along depth"
    )
    zeros = sum(1 for r in rows if r["closest"] == 0)
    remark = f" {zeros} of the closest are exactly 0 and drawn at the lower end." if zeros and y.log else ""
    return run.figure(
        f"distances-{cell.slug}",
        svg,
        "Distances between images of different class after each block." + remark + blind_text(rows),
    )


def curve(run: RunData) -> Markup | None:
    """Subsample curves: a constant belongs to its N."""
    parts = []
    for _, cell, result in results_of(run):
        rows = rows_of(result, "curve")
        curves = [
            Curve(WORDS[reduction], [(r["N"], as_float(r["value"])) for r in rows if r["reduction"] == reduction])
            for reduction in WORDS
        ]
        curves = [c for c in curves if any(v is not None for _, v in c.points)]
        if not curves:
            continue
        svg = line_chart(
            curves,
            x=Axis.over("N (images, logarithmic)", [r["N"] for r in rows], log=True),
            y=Axis.over(f"g-expansive constant, {unit_of(result)}", [v for c in curves for _, v in c.points]),
            title="Constants over nested subsamples",
        )
        parts += [run.heading(cell), run.figure(f"curve-{cell.slug}", svg, "Constants over nested random subsamples.")]
    if not parts:
        return None
    return Markup("").join(
        [
            note(
                "A smallest distance over N images can only fall as N grows, so two models are comparable at equal N "
                "only: read both curves at the same N."
            ),
            *parts,
        ]
    )
