"""The rich console of every table and bar: styles are rich's own, names cannot add any."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from stabilitykit.base.text import one_line, printable, raw_stream


class Console(rich.console.Console):
    """A console that shows control characters as ``\\u001b``, and a name that holds a line end on one line.

    It writes past :func:`~stabilitykit.base.text.printable_streams`, whose work it does itself: rich's own escape
    sequences (colours, the moves of a progress bar) must reach a terminal.

    Arguments:
        stderr: write on stderr instead of stdout.
        width: columns where the stream is no terminal.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        file = raw_stream(sys.stderr if stderr else sys.stdout)
        super().__init__(file=file)
        if width is not None and not self.is_terminal:
            self.width = width

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a table or a line; lines are broken by rich and by :class:`rich.text.Text`, never by a name."""
        return super().render_str(one_line(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of ``renderable``; those that are text are printable."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(printable(piece.text), piece.style)
