"""Progress bars on stderr: live on a terminal, one line now and then elsewhere, silent when asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

# On a pipe or in a log, say something this often, so that long work is visibly alive.
LOG_SECONDS = 15.0


def make_progress(quiet: bool = False) -> Callable[..., Iterator[Any]]:
    """``progress(iterable, description, total)`` for :class:`~stabilitykit.evaluation.context.Context` and friends."""
    if quiet:
        from stabilitykit.base.progress import no_progress

        return no_progress
    return _bar if sys.stderr.isatty() else _lines


def _bar(items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from stabilitykit.base.text import one_line, printable_streams
    from stabilitykit.reporting.console import Console

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    try:
        bar.start()
    except Exception:  # a display is already live (nested loops): count silently
        yield from items
        return
    try:
        with printable_streams():  # what is printed meanwhile goes through the bar, which would obey escape sequences
            yield from bar.track(items, total=_length(items, total), description=one_line(description))
    finally:
        bar.stop()


def _lines(items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
    last = time.monotonic()
    length = _length(items, total)
    for count, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= LOG_SECONDS:
            of = f"/{length}" if length else ""
            print(f"{description}: {count}{of}", file=sys.stderr, flush=True)
            last = time.monotonic()


def _length(items: Iterable[Any], total: int | None) -> int | None:
    return total if total is not None else len(items) if isinstance(items, Sized) else None
