"""HTML from plain data. Text is escaped, ``Markup`` is taken as it is: a class called <script> is only a name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup, escape

from stabilitykit.base.results import Kind, Measurement

MINUS = "−"


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """``<name attributes>children</name>``; ``class_`` and ``data_label`` give ``class`` and ``data-label``.

    Attributes that are None are left out.
    """
    shown = "".join(
        [
            f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
            for key, value in attributes.items()
            if value is not None
        ]
    )
    inside = "".join([escape(child) for child in children if child is not None])
    if name in ("img", "br", "hr", "wbr"):
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{inside}</{name}>")


def number(value: Any, digits: int = 4) -> str:
    """A number for people: ``digits`` significant digits, 4.14e-05 as ``4.14e-5``; other things as text."""
    if value is None:
        return "undefined"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", MINUS)


def interval(measurement: Measurement) -> str:
    """``[lower, upper]``, empty without an interval; an absent side is ``?``."""
    if measurement.interval is None:
        return ""
    low, high = measurement.interval
    return f"[{'?' if low is None else number(low)}, {'?' if high is None else number(high)}]"


def kind_badge(kind: Kind) -> Markup:
    """The kind of a number as a badge that is told apart by its words, not by colour alone."""
    return tag("span", str(kind), class_=f"badge {Kind(kind).name.lower()}")


def measurements(found: Iterable[Measurement]) -> Markup:
    """A table of measurements: name, value, kind, N, unit and note of each."""
    rows = [(m.name, m.value, kind_badge(m.kind), m.n, m.unit, m.note) for m in found]
    return table(["measurement", "value", "kind", "N", "unit", "note"], rows, stacked=True)


def note(*children: Any) -> Markup:
    """A muted paragraph of explanation."""
    return tag("p", *children, class_="note")


def short(label: str) -> str:
    """A label with the folders of its paths left out: ``mnist:root=/data/MNIST`` -> ``mnist:root=MNIST``."""
    head, colon, rest = str(label).partition(":")
    parts = []
    for part in rest.split(","):
        key, equals, value = part.rpartition("=")
        path = value.replace("\\", "/").rstrip("/")
        numbers = re.fullmatch(r"[-+\d.\s()\[\]e/]*", value)  # MEAN/STD: the slash parts numbers, not folders
        parts.append(key + equals + (path.rpartition("/")[2] if "/" in path and not numbers else value))
    return head + colon + ",".join(parts)


def pair_heading(model: str, dataset: str, extra: str = "") -> Markup:
    """Heading of one (model, dataset) inside a section; the full labels are its title."""
    return tag(
        "h3",
        short(model),
        tag("span", " on ", class_="muted"),
        short(dataset),
        tag("span", f" · {extra}", class_="muted") if extra else None,
        title=f"{model} on {dataset}",
    )


def dotted(name: str) -> Markup:
    """A dotted name that may be broken after its dots."""
    return Markup(".<wbr>").join(str(name).split("."))


def details(summary: Any, *children: Any, open_: bool = False) -> Markup:
    """A part that is folded until asked for (and printed folded)."""
    return tag("details", tag("summary", summary), *children, open="" if open_ else None)


def table(
    columns: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    caption: Any = None,
    limit: int | None = None,
    total: int | None = None,
    stacked: bool = False,
) -> Markup:
    """A table; floats are rounded, numbers aligned right.

    Arguments:
        limit: show only that many rows and say how many there are.
        total: how many rows there are, where ``rows`` are only the first of them.
        stacked: on narrow screens every row becomes a card with its columns' names.
    """
    rows = list(rows)
    shown = rows if limit is None else rows[:limit]
    total = len(rows) if total is None else total
    numeric = [any(_is_number(row[k]) for row in shown if k < len(row)) for k in range(len(columns))]
    head = tag(
        "tr",
        *(tag("th", column, scope="col", class_="num" if right else None) for column, right in zip(columns, numeric)),
    )
    body = [tag("tr", *(_cell(column, value) for column, value in zip(columns, row))) for row in shown]
    more = (
        note(f"first {len(shown)} of {total} rows; all of them are in the run folder") if len(shown) < total else None
    )
    made = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", head),
        tag("tbody", *body),
        class_="stacked" if stacked else None,
    )
    return tag("div", made, more, class_="scroll")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(column: Any, value: Any) -> Markup:
    numeric = _is_number(value)
    if not isinstance(value, Markup):
        value = "" if value is None else number(value) if numeric else str(value)
    return tag("td", value, class_="num" if numeric else None, data_label=column)


def picture(source: str, title: Any, *lines: Any, small: bool = False) -> Markup:
    """An image with lines of text under it; without a source an empty frame says so."""
    if source:
        image = tag("img", src=source, alt=title, loading="lazy", decoding="async")
    else:
        image = tag("span", "no image stored", class_="missing")
    return tag(
        "figure",
        image,
        tag("figcaption", *(tag("span", line) for line in lines)),
        class_="picture small" if small else "picture",
        title=title,
    )


def strip(pictures: Sequence[Markup]) -> Markup:
    """Pictures in one row that scrolls sideways on narrow screens."""
    return tag("div", *pictures, class_="strip")


def cards(items: Sequence[Markup]) -> Markup:
    """Boxes side by side, as many as fit."""
    return tag("div", *(tag("div", item, class_="card") for item in items), class_="cards")
