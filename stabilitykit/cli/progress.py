"""Progress on stderr: bars on a terminal, a line now and then elsewhere, silence when asked for."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from stabilitykit.base.progress import Display, display

# Nothing takes longer than this without a first word, on a terminal or in a log.
FIRST_SECONDS = 2.0
# From then on, say something this often, so that long work is visibly alive and a log stays readable.
LOG_SECONDS = 15.0


class Announcer(Display):
    """Says what takes long: one thread looks now and then at what goes on, and prints where nothing else has.

    Attributes:
        quiet: say nothing.
    """

    def __init__(self) -> None:
        self.quiet = False
        self._doing: list[tuple[str, float]] = []  # what, since when; the innermost last
        self._said = time.monotonic()
        self._live = 0  # bars that draw themselves
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """The body takes as long as it takes; after two seconds ``text`` is printed, and then now and then."""
        since = time.monotonic()
        if not self._doing:
            self._said = since
        self._doing.append((text, since))
        try:
            yield
        finally:
            self._doing.pop()

    def bar(self, items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
        """A bar on a terminal, lines elsewhere."""
        if self.quiet:
            yield from items
            return
        if not sys.stderr.isatty():
            yield from self._lines(items, description, total)
            return
        self._live += 1
        try:
            yield from _bar(items, description, total)
        finally:
            self._live -= 1

    def say(self, text: str) -> None:
        """A line of its own, unless everything is to be quiet."""
        if not self.quiet:
            self._said = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Announcer]:
        """Announce what goes on in the body."""
        self._thread = threading.Thread(target=self._watch, name="announcer", daemon=True)
        self._thread.start()
        notes = _Notes(self)
        logger = logging.getLogger("stabilitykit")
        level = logger.level
        logger.addHandler(notes)
        logger.setLevel(logging.INFO)
        try:
            yield self
        finally:
            logger.removeHandler(notes)
            logger.setLevel(level)
            self._over.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            doing = self._doing[-1:]
            if not doing or self._live:
                continue
            text, since = doing[0]
            now = time.monotonic()
            begun, silent = now - since, now - self._said
            if silent >= LOG_SECONDS or (begun >= FIRST_SECONDS and self._said <= since):
                self.say(f"{text} ({begun:.0f} s so far)")

    def _lines(self, items: Iterable[Any], description: str, total: int | None) -> Iterator[Any]:
        begun, length = time.monotonic(), _length(items, total)
        for count, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            first = self._said < begun and now - begun >= FIRST_SECONDS
            if first or now - self._said >= LOG_SECONDS:
                self.say(f"{description}: {count}{f'/{length}' if length else ''}")


class _Notes(logging.Handler):
    """What the rooms below note for people who wait (numba compiling), as lines."""

    def __init__(self, announcer: Announcer) -> None:
        super().__init__(logging.INFO)
        self._announcer = announcer

    def emit(self, record: logging.LogRecord) -> None:
        self._announcer.say(record.getMessage())


def make_progress(quiet: bool = False) -> Callable[..., Iterator[Any]]:
    """``progress(iterable, description, total)`` for :class:`~stabilitykit.evaluation.context.Context` and friends."""
    from stabilitykit.base.progress import no_progress

    announcer = display()
    if not isinstance(announcer, Announcer):
        announcer = Announcer()
    announcer.quiet = quiet
    return no_progress if quiet else announcer.bar


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


def _length(items: Iterable[Any], total: int | None) -> int | None:
    return total if total is not None else len(items) if isinstance(items, Sized) else None
