"""Report section: predictions, confusion matrix, accuracy per class, and the images taken for something else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from stabilitykit.base.decisions import Decisions
from stabilitykit.reporting.confusion import ConfusedPair, confused_pairs, confusion_matrix
from stabilitykit.reporting.html import details, note, number, picture, strip, table, tag
from stabilitykit.reporting.rundata import PairData, RunData
from stabilitykit.reporting.witness import Names

# Up to so many classes the matrix is shown; above, its largest entries.
MATRIX = 20
# Rows of lists: confused pairs, classes; images taken for something else.
PAIRS, CLASSES, SHOWN = 30, 60, 24


def taken_for(run: RunData) -> Markup | None:
    """What every network takes the images for."""
    parts: list[Markup] = []
    for pair in run.pairs:
        if pair.decisions is not None and len(pair.decisions):
            heading = run.pair_heading(pair) if len(run.pairs) > 1 else Markup("")
            parts += [heading, *(_comparable if pair.decisions.comparable else _foreign)(run, pair, pair.decisions)]
    return Markup("").join(parts) if parts else None


def _comparable(run: RunData, pair: PairData, decisions: Decisions) -> list[Markup]:
    right = sum(value is True for value in decisions.correct)
    pairs = confused_pairs(decisions)
    return [
        note(
            f"{right} of {len(decisions)} images are recognised. What the network decided about each one, how sure it "
            "is, and what is nearest to it stands in ",
            tag("code", "images.csv"),
            " of the run folder.",
        ),
        _matrix(decisions) if len(decisions.classes) <= MATRIX else Markup(""),
        _pairs(decisions, pairs),
        _mistakes(run, pair, decisions),
        _per_class(decisions, pairs),
        _sureness(decisions),
    ]


def _foreign(run: RunData, pair: PairData, decisions: Decisions) -> list[Markup]:
    """Outputs that are not the dataset's classes: what the images of each class are mostly taken for."""
    matrix = confusion_matrix(decisions)
    rows = []
    for label in np.flatnonzero(matrix.sum(axis=1)):
        best = int(matrix[label].argmax())
        rows.append(
            (decisions.classes[label], int(matrix[label].sum()), decisions.outputs[best], int(matrix[label, best]))
        )
    return [
        note(
            f"The network has {len(decisions.outputs)} outputs and the dataset {len(decisions.classes)} classes: none "
            "of its decisions is right or wrong here, and there is no confusion matrix."
        ),
        tag("h4", "What the images of each class are mostly taken for"),
        table(["class", "images", "mostly taken for", "of them"], rows, limit=CLASSES, stacked=True),
        _sureness(decisions),
    ]


def _matrix(decisions: Decisions) -> Markup:
    """Rows are the images' classes, columns what they are taken for; every count is written out."""
    matrix = confusion_matrix(decisions)
    names = decisions.classes
    head = tag("tr", tag("td", ""), *(tag("th", name, scope="col", class_="num") for name in names))
    body = []
    for row, name in enumerate(names):
        total = int(matrix[row].sum())
        cells = []
        for column, other in enumerate(names):
            count = int(matrix[row, column])
            share = count / total if total else 0.0
            told = f"{count} of {total} images of {name} taken for {other}"
            colour = f"var(--{'good' if row == column else 'heat'}) {round(8 + 42 * share)}%"
            shade = f"background:color-mix(in srgb,{colour},transparent)"
            cells.append(tag("td", str(count), class_="num", title=told, style=shade if count else None))
        body.append(tag("tr", tag("th", name, scope="row"), *cells))
    caption = tag("caption", "Confusion matrix: images of each class (rows) by what they are taken for (columns)")
    return tag(
        "div", tag("table", caption, tag("thead", head), tag("tbody", *body), class_="confusion"), class_="scroll"
    )


def _pairs(decisions: Decisions, pairs: Sequence[ConfusedPair]) -> Markup:
    if not pairs:
        return note("No image is taken for another class.")
    names = decisions.classes
    rows = [(f"{names[p.first]} and {names[p.second]}", p.count, p.forth, p.back) for p in pairs]
    listed = table(["classes", "confused", "first for second", "second for first"], rows, limit=PAIRS)
    return Markup("").join([tag("h4", f"Confused pairs of classes ({len(rows)})"), listed])


def _mistakes(run: RunData, pair: PairData, decisions: Decisions) -> Markup:
    rows = decisions.mistakes()
    if not rows:
        return Markup("")
    names, known = Names(decisions), decisions.columns
    pictures = []
    for row in rows[:SHOWN]:
        index, label, output = (known[name][row] for name in ("index", "label", "prediction"))
        sure = known["confidence"][row]
        pictures.append(
            picture(
                run.image(pair.dataset, index),
                f"image {index}: {decisions.classes[label]} taken for {decisions.outputs[output]}",
                f"taken for {decisions.outputs[output]}",
                f"is {decisions.classes[label]}",
                "" if sure is None else f"confidence {number(sure, 3)}",
                f"decided {names.place(known['prediction_depth'][row])}",
                f"image {index}",
            )
        )
    return Markup("").join(
        [
            tag("h4", f"Images taken for something else ({len(rows)})"),
            note(f"The {len(pictures)} surest mistakes first.") if len(pictures) < len(rows) else "",
            strip(pictures),
        ]
    )


def _per_class(decisions: Decisions, pairs: Sequence[ConfusedPair]) -> Markup:
    """Accuracy of every class that has images, the worst first."""
    matrix = confusion_matrix(decisions)
    rows = []
    for label in np.flatnonzero(matrix.sum(axis=1)):
        total, right = int(matrix[label].sum()), int(matrix[label, label])
        others = matrix[label].copy()
        others[label] = 0
        worst = int(others.argmax())
        mostly = f"{decisions.classes[worst]} ({int(others[worst])})" if others[worst] else ""
        rows.append((decisions.classes[label], total, right, right / total, mostly))
    rows.sort(key=lambda row: row[3])
    columns = ["class", "images", "recognised", "accuracy", "mostly taken for"]
    return details(
        f"Accuracy per class ({len(rows)} classes, the worst first)", table(columns, rows, limit=CLASSES, stacked=True)
    )


def _sureness(decisions: Decisions) -> Markup:
    """Confidence and margin of right and wrong decisions: smallest, median, largest."""
    rows = []
    groups = {True: "recognised", False: "taken for something else", None: "all images"}
    for value, name in groups.items():
        chosen = [row for row, right in enumerate(decisions.correct) if right is value]
        for column, unit in (("confidence", "probability"), ("margin", decisions.unit)):
            numbers = [decisions.columns[column][row] for row in chosen]
            if numbers and numbers[0] is not None:
                low, middle, high = np.quantile(numbers, [0.0, 0.5, 1.0])
                rows.append((name, f"{column} ({unit})", len(numbers), float(low), float(middle), float(high)))
    columns = ["images", "how sure", "N", "smallest", "median", "largest"]
    return details("How sure the decisions are", table(columns, rows, stacked=True)) if rows else Markup("")
