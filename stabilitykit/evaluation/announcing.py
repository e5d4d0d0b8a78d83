"""Plugins told of finished cells and runs in this process: what ``stabilitykit.evaluate()`` in Python does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from stabilitykit.base.errors import catching, describe
from stabilitykit.plugins.listening import Event, Listener


class Announcing:
    """Calls the hooks of ``listeners``: one that raises is a warning, and what it prints goes to stderr."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._complaints: set[str] = set()

    @property
    def culprits(self) -> str:
        """The plugins that are told, for messages."""
        return " or ".join(listener.culprit for listener in self._listeners)

    def tell(self, event: Event) -> None:
        """Tell every plugin. Only Ctrl-C passes."""
        for listener in self._listeners:
            with catching() as caught, contextlib.redirect_stdout(sys.stderr):
                listener.tell(event)
            if caught.error is None:
                continue
            text = f"{listener.culprit}: {event.hook} failed: {describe(caught.error)}; the results stand"
            if text not in self._complaints:  # of what happens at every cell, once
                self._complaints.add(text)
                print(f"warning: {text}", file=sys.stderr)
