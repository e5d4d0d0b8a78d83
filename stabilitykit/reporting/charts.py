"""Inline SVG charts: curves, dots per class, heat maps, intervals. Text stays text, colours are CSS variables.

Colours follow light and dark mode (``standalone.CHART_CSS``); what a colour says is said by words as well
(legend, labels, titles on hover, which a report lists below the chart) and by the pattern of a line or the shape of a
dot. Every axis has a label with its unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stabilitykit.reporting.axes import Axis
from stabilitykit.reporting.frame import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    WIDTH,
    Frame,
    draw_legend,
    draw_mark,
    legend_rows,
    line_class,
    shortened,
)
from stabilitykit.reporting.html import number, tag

MARKER_LIMIT = 60


@dataclass(frozen=True)
class Curve:
    """One curve: ``points`` (x, y); points without a finite y break it.

    Attributes:
        step: hold each value until the next x.
        dashed: drawn dashed (a bound, a comparison).
        titles: text shown when pointing at each point.
        colour: number of the colour; default the curve's position.
        markers, line: draw the points, join them.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    step: bool = False
    dashed: bool = False
    titles: Sequence[str] = ()
    colour: int | None = None
    markers: bool = True
    line: bool = True


@dataclass(frozen=True)
class Dot:
    """One dot of a dot chart: category ``x``, value ``y``, colour number, title on hover, optional short label."""

    x: int
    y: float
    colour: int = 0
    title: str = ""
    label: str = ""


def line_chart(curves: Sequence[Curve], *, x: Axis, y: Axis, title: str) -> Markup:
    """Curves over numbers, with a legend above when there are several."""
    rows = legend_rows([c.name for c in curves]) if len(curves) > 1 else []
    frame = Frame(x, y, title, HEIGHT + 20 * len(rows))
    frame.top += 20 * len(rows)
    frame.make_room()
    frame.axes()
    draw_legend(frame, rows, [(c.colour if c.colour is not None else i, c.dashed) for i, c in enumerate(curves)])
    for position, curve in enumerate(curves):
        colour = (position if curve.colour is None else curve.colour) % COLOURS
        drawn = [(px, py, k) for k, (px, py) in enumerate(curve.points) if py is not None and math.isfinite(py)]
        path = _path(frame, curve) if curve.line else ""
        if path:
            frame.add("path", d=path, class_=line_class(colour, curve.dashed))
        if curve.markers:
            # Of a long curve evenly chosen points and the last one.
            every = -(-len(drawn) // MARKER_LIMIT) or 1
            for vx, vy, k in drawn[(len(drawn) - 1) % every :: every]:
                told = curve.titles[k] if k < len(curve.titles) else f"{curve.name}: {number(vx)}, {number(vy)}"
                size = 3.4 if every == 1 else 2.2
                frame.add("circle", tag("title", told), cx=frame.px(vx), cy=frame.py(vy), r=size, class_=f"f{colour}")
    return frame.svg()


def _path(frame: Frame, curve: Curve) -> str:
    parts: list[str] = []
    pen, previous = "M", 0.0
    for vx, vy in curve.points:
        if vy is None or not math.isfinite(vy):
            if curve.step and pen == "L":
                parts.append(f"H{frame.px(vx)}")
            pen = "M"
            continue
        x, y = frame.px(vx), frame.py(vy)
        if curve.step and pen == "L":
            parts.append(f"L{x} {previous}L{x} {y}")
        else:
            parts.append(f"{pen}{x} {y}")
        pen, previous = "L", y
    return "".join(parts)


def dot_chart(dots: Sequence[Dot], *, x: Axis, y: Axis, title: str, legend: Sequence[str] = ()) -> Markup:
    """Dots over categories (Figures 2 and 3); dots of one category are spread sideways by colour."""
    rows = legend_rows(legend) if legend else []
    slanted = x.names is not None and max(map(len, x.names), default=0) * len(x.names) > 90
    bottom = BOTTOM + (3.6 * min(max(map(len, x.names or ("",)), default=0), 14) if slanted else 0)
    frame = Frame(x, y, title, HEIGHT + 30 + 20 * len(rows) + bottom - BOTTOM, bottom=bottom)
    frame.top += 20 * len(rows)
    frame.make_room()
    frame.axes()
    draw_legend(frame, rows, [(i, False) for i in range(len(legend))], dots=True)
    columns = max(len(x.names or ()), 1)
    room = (frame.right - frame.left) / (columns + 0.2)
    spread = max(len(legend), 1)
    for dot in dots:
        shift = ((dot.colour % spread + 0.5) / spread - 0.5) * 0.62 * room if spread > 1 else 0.0
        cx, cy = frame.px(dot.x) + shift, frame.py(dot.y)
        draw_mark(frame, cx, cy, 4.2 if columns <= 20 else 3, dot.colour, tag("title", dot.title))
        if dot.label:
            frame.text(cx, cy + 16, dot.label, small=True)
    return frame.svg()


def heat_map(
    names: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    title: str,
    label: str,
    titles: Sequence[Sequence[str]] = (),
) -> Markup:
    """A square matrix; the smaller (closer) the stronger the colour, on a logarithmic scale; None: no cell."""
    count = len(names)
    longest = max((min(len(n), 12) for n in names), default=1)
    left, top = 34.0 + 7.2 * longest, 26.0 + (4.6 * longest if longest > 3 else 8)
    cell = max(18.0, min(46.0, (WIDTH - left - 20) / max(count, 1)))
    after = 20 if longest <= 3 else 8 + 4.6 * longest
    width, height = max(left + count * cell + after, 420.0), top + count * cell + 66
    frame = Frame(Axis("", 0, 1), Axis("", 0, 1), title, height, width=width)
    finite = [v for row in values for v in row if v is not None and v > 0 and math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 1.0)
    for r, name in enumerate(names):
        frame.text(left - 8, top + (r + 0.5) * cell + 4, shortened(name), anchor="end", small=cell < 26)
        x = left + (r + 0.5) * cell
        if longest > 3:
            frame.text(
                x + 3,
                top - 8,
                shortened(name),
                anchor="start",
                small=cell < 26,
                transform=f"rotate(-40 {x + 3:.2f} {top - 8:.2f})",
            )
        else:
            frame.text(x, top - 8, shortened(name))
    for r in range(count):
        for c in range(count):
            value = values[r][c]
            box = {
                "x": round(left + c * cell + 1, 2),
                "y": round(top + r * cell + 1, 2),
                "width": round(cell - 2, 2),
                "height": round(cell - 2, 2),
                "rx": 3,
            }
            if value is None:
                if r == c:
                    frame.add("rect", class_="empty", **box)
                continue
            strength = 1.0 if value <= 0 or high == low else math.log(high / min(value, high)) / math.log(high / low)
            told = titles[r][c] if titles else f"{names[r]} and {names[c]}: {number(value)}"
            frame.add("rect", tag("title", told), class_="heat", fill_opacity=round(0.05 + 0.7 * strength, 3), **box)
            if cell >= 34:
                frame.text(left + (c + 0.5) * cell, top + (r + 0.5) * cell + 4, _tiny(value), small=True)
    _scale(frame, left, height - 44, low, high, label)
    return frame.svg()


def _scale(frame: Frame, left: float, y: float, low: float, high: float, label: str) -> None:
    steps, size = 8, 20.0
    for k in range(steps):
        frame.add(
            "rect",
            x=left + k * size,
            y=y,
            width=size,
            height=11,
            class_="heat",
            fill_opacity=round(0.05 + 0.7 * k / (steps - 1), 3),
        )
    frame.text(left, y + 26, number(high, 2), soft=True, small=True)
    frame.text(left + steps * size, y + 26, number(low, 2), soft=True, small=True)
    frame.text(left + steps * size + 26, y + 10, label, anchor="start", soft=True)


def interval_chart(
    rows: Sequence[tuple[str, float | None, float | None, float | None]], *, x: Axis, title: str
) -> Markup:
    """Intervals one under the other: (name, lower, value, upper); an absent end is open (an arrow)."""
    longest = max((min(len(r[0]), 30) for r in rows), default=4)
    height = 62.0 + 34 * len(rows)
    frame = Frame(x, Axis("", 0, 1), title, height, left=24 + 6.7 * longest)
    for value, text in x.ticks(6):
        at = frame.px(value)
        frame.add("path", d=f"M{at} {frame.top}V{frame.bottom}", class_="grid")
        frame.text(at, frame.bottom + 17, text, soft=True)
    frame.text((frame.left + frame.right) / 2, height - 6, x.label)
    for k, (name, low, best, high) in enumerate(rows):
        y = frame.top + 18 + 34 * k
        colour = k % COLOURS
        frame.text(frame.left - 10, y + 4, shortened(name, 30), anchor="end")
        start = frame.left if low is None else frame.px(low)
        end = frame.right if high is None or math.isinf(high) else frame.px(high)
        told = f"{name}: {'?' if low is None else number(low, 6)} to {'?' if high is None else number(high, 6)}"
        frame.add("path", tag("title", told), d=f"M{start} {y}H{end}", class_=f"curve s{colour}")
        for at, known in ((start, low is not None), (end, high is not None and not math.isinf(high))):
            if known:
                frame.add("path", d=f"M{at} {y - 7}v14", class_=f"curve s{colour}")
        if best is not None and math.isfinite(best):
            frame.add(
                "circle", tag("title", f"{name}: {number(best, 6)}"), cx=frame.px(best), cy=y, r=5, class_=f"f{colour}"
            )
    return frame.svg()


def _tiny(value: float) -> str:
    """At most six characters: 4e-5, 0.013, 1.2."""
    if value == 0:
        return "0"
    if 0.001 <= abs(value) < 1000:
        return f"{value:.2g}"
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")
