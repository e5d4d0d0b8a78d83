"""What is shown while work goes on: nothing by default; those that draw belong to the command line and to notebooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

Progress = Callable[..., Iterator[Any]]


def no_progress(items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
    """Progress reporter that reports nothing."""
    return iter(items)


class Display:
    """Shows nothing; the base of those that do."""

    def bar(self, items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
        """``items``, shown as they pass."""
        return iter(items)

    def waiting(self, text: str) -> AbstractContextManager[None]:
        """The body takes as long as it takes; where that is long, ``text`` says what is going on."""
        return contextlib.nullcontext()


_DISPLAY: ContextVar[Display] = ContextVar("stabilitykit_display", default=Display())  # noqa: B039 - it holds no state


def display() -> Display:
    """What shows progress in this process."""
    return _DISPLAY.get()


@contextlib.contextmanager
def displayed_by(one: Display) -> Iterator[None]:
    """Let ``one`` show what goes on in the body."""
    token = _DISPLAY.set(one)
    try:
        yield
    finally:
        _DISPLAY.reset(token)


def shown(items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
    """``items`` by the display of this process, for code that is handed no reporter (a dataset that is read)."""
    return display().bar(items, description, total)


@contextlib.contextmanager
def without_bar_threads() -> Iterator[None]:
    """Inside, bars of tqdm, shown or not, start no thread to watch over them.

    Such a thread outlives the bar, and a process that a plugin left a thread in is not used again.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield
        return
    before = tqdm.monitor_interval
    tqdm.monitor_interval = 0
    try:
        yield
    finally:
        tqdm.monitor_interval = before
