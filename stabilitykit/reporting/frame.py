"""What charts are drawn in: the plot area with its axes, its legend, and how wide text is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from stabilitykit.reporting.axes import Axis
from stabilitykit.reporting.html import tag
from stabilitykit.reporting.standalone import LIGHT

WIDTH, HEIGHT = 680.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 74.0, 16.0, 14.0, 54.0
COLOURS = len(LIGHT)
LINES = 5  # patterns of lines, .l0 to .l4: curves are told apart without colours too


class Frame:
    """The plot area with its axes; collects SVG elements."""

    def __init__(
        self,
        x: Axis,
        y: Axis,
        title: str,
        height: float = HEIGHT,
        left: float = LEFT,
        bottom: float = BOTTOM,
        width: float = WIDTH,
    ) -> None:
        self.x, self.y, self.title, self.width, self.height = x, y, title, width, height
        self.left, self.right, self.top, self.bottom = left, width - RIGHT, TOP, height - bottom
        self.items: list[Markup] = []

    def px(self, value: float) -> float:
        return round(self.left + self.x.at(value) * (self.right - self.left), 2)

    def py(self, value: float) -> float:
        return round(self.bottom - self.y.at(value) * (self.bottom - self.top), 2)

    def add(self, name: str, *children: Any, **attributes: Any) -> None:
        self.items.append(tag(name, *children, **attributes))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "middle",
        soft: bool = False,
        small: bool = False,
        **more: Any,
    ) -> None:
        """SVG text at a position."""
        classes = " ".join(["soft"] * soft + ["small"] * small) or None
        self.add("text", text, x=round(x, 2), y=round(y, 2), text_anchor=anchor, class_=classes, **more)

    def make_room(self) -> None:
        """Widen the left margin where tick texts would reach into the axis's label."""
        self.left = max(self.left, 32.0 + text_width(max((t for _, t in self.y.ticks(6)), key=len, default="")))

    def axes(self, *, x_ticks: int = 8, y_ticks: int = 6) -> None:
        """Grid, ticks and labels."""
        for value, text in self.y.ticks(y_ticks):
            y = self.py(value)
            self.add("path", d=f"M{self.left} {y}H{self.right}", class_="grid")
            self.text(self.left - 7, y + 4, text, anchor="end", soft=True)
        names = self.x.names is not None
        ticks = self.x.ticks(40 if names else x_ticks)
        slanted = names and max((len(t) for _, t in ticks), default=0) * len(ticks) > 90
        for value, text in ticks:
            x = self.px(value)
            if not names:
                self.add("path", d=f"M{x} {self.bottom}v5", class_="axis")
            if slanted:
                self.text(
                    x + 4,
                    self.bottom + 15,
                    shortened(text),
                    anchor="end",
                    soft=True,
                    transform=f"rotate(-35 {x + 4} {self.bottom + 15})",
                )
            else:
                self.text(x, self.bottom + 19, shortened(text), soft=True)
        self.add("path", d=f"M{self.left} {self.top}V{self.bottom}H{self.right}", class_="axis")
        self.text((self.left + self.right) / 2, self.height - 8, self.x.label)
        middle = (self.top + self.bottom) / 2
        self.text(15, middle, self.y.label, transform=f"rotate(-90 15 {middle})")

    def svg(self) -> Markup:
        """The finished chart with its title for screen readers."""
        return tag(
            "svg",
            tag("title", self.title),
            *self.items,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            role="img",
            class_="chart",
            aria_label=self.title,
            style=f"max-width:{1.15 * self.width:.0f}px",
        )


def legend_rows(names: Sequence[str]) -> list[list[tuple[int, str, float]]]:
    """Legend entries with their x, broken into rows."""
    rows: list[list[tuple[int, str, float]]] = [[]]
    x = LEFT
    for position, name in enumerate(names):
        text = shortened(name, 40)
        width = 58 + text_width(text)
        if rows[-1] and x + width > WIDTH - RIGHT:
            rows.append([])
            x = LEFT
        rows[-1].append((position, text, x))
        x += width
    return rows


def draw_legend(
    frame: Frame,
    rows: Sequence[Sequence[tuple[int, str, float]]],
    looks: Sequence[tuple[int, bool]],
    dots: bool = False,
) -> None:
    """``rows`` as :func:`legend_rows` made them; ``looks``: (colour, dashed) by position."""
    for line, row in enumerate(rows):
        for position, text, x in row:
            colour, dashed = looks[position]
            y = 12 + 20 * line
            if dots:
                draw_mark(frame, x + 13, y, 4.6, colour)
            else:
                frame.add("path", d=f"M{x:.1f} {y}h30", class_=line_class(colour, dashed))
            frame.text(x + (23 if dots else 36), y + 4, text, anchor="start")


def line_class(colour: int, dashed: bool) -> str:
    """CSS classes of a curve: its colour and its pattern."""
    return f"curve s{colour % COLOURS} " + ("dashed" if dashed else f"l{colour % LINES}")


def draw_mark(frame: Frame, x: float, y: float, size: float, colour: int, *children: Any) -> None:
    """A dot; beyond as many as there are colours a square, then a triangle, then a diamond."""
    shape, look = colour // COLOURS % 4, f"f{colour % COLOURS}"
    x, y = round(x, 2), round(y, 2)
    if shape == 0:
        frame.add("circle", *children, cx=x, cy=y, r=size, class_=look)
        return
    corners = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        3: ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    }[shape]
    points = " ".join(f"{x + size * dx:.2f},{y + size * dy:.2f}" for dx, dy in corners)
    frame.add("polygon", *children, points=points, class_=look)


def text_width(text: str) -> float:
    """About the width of chart text in SVG units, on the wide side."""
    return sum(3.9 if c in "iljtfr.,:;|' ()[]!1I" else 10.5 if c in "mwMW@%" else 7.6 for c in text)


def shortened(text: str, limit: int = 12) -> str:
    """Long names lose their middle: class names often differ at their end only."""
    return text if len(text) <= limit else text[: (limit - 1) // 2] + "…" + text[-(limit // 2) :]
