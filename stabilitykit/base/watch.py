"""Whose code runs now? Told to whoever supervises this process, so that a death has a culprit.

In a worker process of the command line, the supervisor listens. In a plain Python process nobody does.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from stabilitykit.base.progress import display

# What a task is to people who wait for it.
_DOING = {
    "plugin": "loading {}",
    "subject": "building and certifying {}",
    "cell": "measuring {}",
    "images": "drawing images of {}",
}


class Watch:
    """Listens to nothing; the base of those that do.

    Attributes:
        supervised: True in a worker process. There nobody presses Ctrl-C, so a KeyboardInterrupt is a plugin's own.
        broken: entry points that cost an earlier worker its life -> why. They are not loaded.
        lost: cells that cost an earlier worker its life, by slug -> ``type``, ``message``, ``culprit``.
    """

    supervised: bool = False
    broken: Mapping[str, str] = {}
    lost: Mapping[str, Mapping[str, str]] = {}

    def begin(self, kind: str, key: Any, culprit: str, limit: float | None) -> None:
        """Plugin code of ``culprit`` starts.

        Arguments:
            kind: what is lost if the process dies now: ``"plugin"``, ``"subject"`` (a model and a dataset with all
                their cells), ``"cell"`` or ``"images"`` (nothing but pictures).
            key: which one: an entry point, slugs of cells, or the slug of one.
            limit: seconds after which the process may be killed; None: never.
        """

    def end(self) -> None:
        """The task begun last is over."""

    def blame(self, culprit: str | None) -> None:
        """Within the task, code of another plugin (None: of the task's own again) runs from here on."""

    def introduce(self, thing: object, culprit: str) -> None:
        """``thing``, a model or dataset, is ``culprit``'s; see :func:`code_of`."""

    def enter(self, thing: object) -> None:
        """Code of ``thing`` runs from here on."""

    def give_up(self, culprit: str, why: str, plugin: str = "") -> None:
        """The process is not what it was: a worker ends here, and a fresh one takes over, without ``plugin``.

        Outside a worker process this is a warning.
        """
        print(f"warning: {culprit} changed {why}; what runs after it in this process finds it so", file=sys.stderr)


_WATCH: ContextVar[Watch] = ContextVar("stabilitykit_watch", default=Watch())  # noqa: B039 - it holds no state


def watch() -> Watch:
    """The watch of this process."""
    return _WATCH.get()


@contextlib.contextmanager
def watched_by(listener: Watch) -> Iterator[None]:
    """Let ``listener`` be told what happens in the body."""
    token = _WATCH.set(listener)
    try:
        yield
    finally:
        _WATCH.reset(token)


@contextlib.contextmanager
def task(kind: str, key: Any, culprit: str, limit: float | None = None) -> Iterator[None]:
    """The body runs plugin code; see :meth:`Watch.begin`. Tasks do not nest."""
    listener = watch()
    listener.begin(kind, key, culprit, limit)
    try:
        with display().waiting(_DOING.get(kind, "{}").format(culprit)):
            yield
    finally:
        listener.end()


@contextlib.contextmanager
def code_of(thing: object) -> Iterator[None]:
    """The body runs the code of a model or dataset: a death in it is its fault, not that of who asked for it."""
    listener = watch()
    listener.enter(thing)
    try:
        yield
    finally:
        listener.blame(None)
