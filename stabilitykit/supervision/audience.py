"""Plugins that hear of finished cells and runs: each in a process of its own, beside the run, which waits for none.

What such a plugin does costs itself: it holds copies, in a process that holds no result.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
from collections.abc import Callable, Iterable, Mapping

from stabilitykit.plugins.listening import Event
from stabilitykit.supervision.child import GRACE
from stabilitykit.supervision.hearer import Hearer
from stabilitykit.supervision.saying import say

# After so many seconds of waiting at the end of a run, the screen says for whom.
SILENCE = 2.0


class Audience:
    """The plugins of one run that implement a hook for finished cells or runs.

    Arguments:
        foreign: gives the supervisor's own descriptors, which no process it starts is to hold.
    """

    def __init__(self, foreign: Callable[[], list[int]]) -> None:
        self._foreign = foreign
        self._hearers: list[Hearer] = []

    def invite(self, listeners: Mapping[str, str]) -> None:
        """Tell these plugins of events from now on: key of the entry point -> culprit."""
        self._hearers = [Hearer(key, culprit) for key, culprit in listeners.items()]

    def __bool__(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self._hearers)

    def tell(self, event: Event) -> None:
        """Something finished; returns at once."""
        for hearer in self._hearers:
            hearer.tell(event, self._foreign)

    def descriptors(self) -> list[int]:
        """Descriptors that become readable when a plugin's process says something."""
        return [hearer.descriptor for hearer in self._hearers if hearer.descriptor >= 0]

    def patience(self) -> float:
        """Seconds until the first of them is overdue; inf: none is at anything."""
        return min((hearer.patience for hearer in self._hearers), default=math.inf)

    def attend(self, ready: Iterable[int]) -> None:
        """Listen to those whose descriptor is ready, and end those that are overdue."""
        readable = set(ready)
        for hearer in self._hearers:
            if hearer.descriptor in readable:
                hearer.listen()
            hearer.end_if_overdue()

    def signal(self, number: int) -> None:
        """Send a signal to all their processes."""
        for hearer in self._hearers:
            hearer.signal(number)

    def settle(self, interrupted: Callable[[], bool], wake: int) -> None:
        """Wait until each has heard everything, or has failed, and end their processes.

        Arguments:
            interrupted: whether somebody asked for the end of the command; then they are waited for
                :data:`~stabilitykit.supervision.child.GRACE` seconds.
            wake: a descriptor that is written to when ``interrupted`` may have become true.
        """
        began, said, until = time.monotonic(), False, math.inf
        while late := [hearer for hearer in self._hearers if not hearer.done]:
            if interrupted():
                until = min(until, time.monotonic() + GRACE)
            left = until - time.monotonic()
            if left <= 0:
                break
            if not said and time.monotonic() - began > SILENCE:
                said = True
                say(f"waiting for {', '.join(hearer.culprit for hearer in late)} to take the results")
            pause = min(self.patience(), left, 0.5)
            ready = select.select([*self.descriptors(), wake], [], [], pause)[0]
            with contextlib.suppress(OSError):
                if wake in ready:
                    os.read(wake, 512)
            self.attend(ready)
        for hearer in self._hearers:
            hearer.dismiss(wait=not interrupted())
