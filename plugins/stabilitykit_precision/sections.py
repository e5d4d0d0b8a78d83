"""Report section of the property ``precision``: decisions that low precision changes."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from stabilitykit import Measurement, PropertyResult
from stabilitykit.reporting import Axis, Curve, RunData, details, line_chart, note, number, picture, strip, table, tag
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.runs.folder import Cell

# Pictures in the strip; every image stands in the table.
PICTURES = 40


def decisions(run: RunData) -> Markup | None:
    """In plain words, then every image whose decision changes, a table of the formats, a chart over the parts."""
    parts = []
    for cell, result in run.results("precision"):
        if "formats" not in result.tables:
            continue
        parts += [run.heading(cell), *(tag("p", text) for text in sentences(result))]
        parts += [_pictures(run, cell, result), _flips(result), _formats(result), _chart(run, cell, result)]
    if not parts:
        return None
    about = (
        "The whole network runs in each number format; a decision is the class of the largest logit. Below, each part "
        "runs alone in the format, on the states that the network itself computes before it."
    )
    return Markup("").join([note(about), *parts])


def sentences(result: PropertyResult) -> list[str]:
    """One sentence per format: how many decisions change, the accuracy, and where most of it comes from."""
    found = []
    measurements = {m.name: m for m in result.measurements}
    for row in records(result.tables["formats"]):
        format = row["format"]
        flips = measurements.get(f"flips.{format}")
        text = f"{format} changes {row['flips']} of {flips.n if flips else '?'} decisions"
        if row["accuracy_before"] is not None:
            text += f", accuracy {row['accuracy_before']:.4g} → {row['accuracy_after']:.4g}"
        main = measurements.get(f"main_part.{format}")
        if main is not None and main.value is not None:
            text += f"; {_origin(main)}"
        found.append(text + ".")
    return found


def _origin(main: Measurement) -> str:
    """Where the changed decisions come from, in words."""
    assert main.value is not None
    count, name = round(main.value * main.n), main.witness["at"]
    if not count:
        return f"no part alone changes any of them, {name} moves the logits most"
    share = "most of it comes" if 2 * count > main.n else "the largest part of it comes"
    return f"{share} from {name} (alone it changes {count} of {main.n})"


def _formats(result: PropertyResult) -> Markup:
    rows = [
        [
            row["format"],
            row["flips"],
            number(as_float(row["mean_change"])),
            number(as_float(row["smallest_margin_flipped"])),
            number(as_float(row["largest_margin_flipped"])),
            row["scheme"],
        ]
        for row in records(result.tables["formats"])
    ]
    heads = ["format", "changed", "mean change of logits", "smallest margin that flipped", "largest", "scheme"]
    return table(heads, rows, stacked=True)


def _chart(run: RunData, cell: Cell, result: PropertyResult) -> Markup:
    rows = records(result.tables["parts"]) if "parts" in result.tables else []
    if not rows:
        return Markup("")
    formats = list(dict.fromkeys(str(r["format"]) for r in rows))
    curves = [
        Curve(f, [(float(r["part"]), as_float(r["mean_change"])) for r in rows if r["format"] == f]) for f in formats
    ]
    names = [str(r["name"]) for r in rows if r["format"] == formats[0]]
    values = [value for curve in curves for _, value in curve.points]
    svg = line_chart(
        curves,
        x=Axis("part that alone runs in the format", -0.5, len(names) - 0.5, names=tuple(names)),
        y=Axis.over("mean change of the logits", values),
        title="Each part alone",
    )
    return run.figure(f"precision-{cell.slug}", svg, result.tables["parts"].title + ".")


def _pictures(run: RunData, cell: Cell, result: PropertyResult) -> Markup:
    """Every image whose decision changes once, with what it becomes in which formats."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for row in records(result.tables["flips"]):
        by_image.setdefault(row["index"], []).append(row)
    shown = [
        picture(
            run.image(cell.dataset, index),
            f"{rows[0]['class']}, image {index}",
            f"{rows[0]['class']}, image {index}",
            *(f"{row['format']}: {row['was']} → {row['became']}" for row in rows),
        )
        for index, rows in list(by_image.items())[:PICTURES]
    ]
    if not shown:
        return Markup("")
    left = len(by_image) - len(shown)
    return Markup("").join([strip(shown), note(f"{left} more images stand in the table.") if left else ""])


def _flips(result: PropertyResult) -> Markup:
    rows: list[list[Any]] = [
        [
            row["format"],
            row["index"],
            row["class"],
            row["was"],
            row["became"],
            number(as_float(row["margin_before"])),
            number(as_float(row["margin_after"])),
        ]
        for row in records(result.tables["flips"])
    ]
    if not rows:
        return tag("p", "No decision changes in any format.")
    heads = ["format", "image", "class", "was", "became", "margin before", "after"]
    return details(f"{result.tables['flips'].title} ({len(rows)} rows)", table(heads, rows, limit=200))
