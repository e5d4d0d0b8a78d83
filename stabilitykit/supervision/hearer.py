"""One plugin that hears of finished cells and runs: its process, and what runs in it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from stabilitykit.base.errors import describe
from stabilitykit.base.watch import task, watch
from stabilitykit.plugins.listening import LOADING_VARIABLE, TIMEOUT_VARIABLE, Event, hook_timeout
from stabilitykit.supervision.channel import JSON, Closed
from stabilitykit.supervision.child import GRACE, Child
from stabilitykit.supervision.death import how_it_ended
from stabilitykit.supervision.inheritance import Inheritance
from stabilitykit.supervision.listening import Listening
from stabilitykit.supervision.saying import say
from stabilitykit.supervision.worker import Worker

# A process that asked for an event and then does not read it is given up after this many seconds.
READING = 5.0


class Hearer:
    """One plugin's process and the events it has not heard yet."""

    def __init__(self, key: str, culprit: str) -> None:
        """``key``: of the entry point, as :func:`stabilitykit.plugins.loading.key_of` gives it."""
        self.culprit = culprit
        self._key = key
        self._child: Child | None = None
        self._follows = Listening()
        self._untold: deque[Event] = deque()
        self._asks = False  # it waits for an event
        self._gone = False
        self._complaints: set[str] = set()

    @property
    def descriptor(self) -> int:
        """Its connection; -1: there is none."""
        return -1 if self._child is None else self._child.channel.fileno()

    @property
    def done(self) -> bool:
        """Whether nothing is left that it should or could hear."""
        return self._child is None or (self._asks and not self._untold)

    @property
    def patience(self) -> float:
        """Seconds until it is overdue; inf: never."""
        return math.inf if self._child is None else self._follows.patience()

    def tell(self, event: Event, foreign: Callable[[], list[int]]) -> None:
        """Let it hear ``event`` after those before; its process starts with the first one."""
        if self._gone:
            return
        self._untold.append(event)
        if self._child is None:
            self._child = Child(partial(attend, self._key), Inheritance(), foreign())
            self._child.channel.patience(READING)
        self._go_on()

    def listen(self) -> None:
        """Take what it says."""
        assert self._child is not None
        try:
            self._child.channel.fill()
            for kind, data in self._child.channel.frames():
                if kind == JSON:
                    self._hear(json.loads(data))
                else:  # noise of its threads
                    os.write(2, data)
        except Closed:
            self._lose("")
        self._go_on()

    def end_if_overdue(self) -> None:
        """Kill a process that takes too long."""
        if self._child is not None and self._follows.overdue:
            doing = self._follows.task
            assert doing is not None
            variable = TIMEOUT_VARIABLE if doing["kind"] == "hook" else LOADING_VARIABLE
            self._lose(f"took longer than {doing['limit']:g} s ({variable})")

    def signal(self, number: int) -> None:
        """Send a signal to its process."""
        if self._child is not None:
            self._child.signal(number)

    def dismiss(self, wait: bool) -> None:
        """Nothing is left to hear: let the process end, or end it."""
        if self._child is None:
            return
        if not self.done:
            self._complain("was ended before it had heard everything; the results stand")
        with contextlib.suppress(Closed):
            if self._asks:
                self._child.channel.send(None)
        self._child.bury(GRACE if wait and self._asks else 0)
        self._drop()

    def _go_on(self) -> None:
        if self._child is None or not self._asks or not self._untold:
            return
        event, self._asks = self._untold.popleft(), False
        try:
            self._child.channel.send({"hook": event.hook, "arguments": event.arguments})
        except Closed:
            self._lose("")

    def _hear(self, message: dict[str, Any]) -> None:
        what = message["t"]
        if what == "ask":
            self._asks = True
        elif what == "begin":
            self._follows.begin(message)
        elif what == "end":
            self._follows.task = None
        elif what == "failed":
            self._complain(f"{message['hook']} failed: {message['why']}; the results stand")
        elif what == "deaf":
            self._lose(f"cannot be loaded to hear of results: {message['why']}")
        elif what == "give up":
            self._lose(f"changed {message['why']}")

    def _lose(self, why: str) -> None:
        """It is gone for the rest of the run; an empty ``why``: it ended, or closed its connection."""
        if self._child is None:
            return
        doing = self._follows.task
        status, alive = self._child.bury(0 if why else GRACE)
        hook = f"{doing['key']} " if doing is not None and doing["kind"] == "hook" else ""
        reason = why or how_it_ended(status, alive, self._child.last_words())
        self._complain(f"{hook}{reason}; it hears nothing more of this run, whose results stand")
        self._drop()

    def _drop(self) -> None:
        assert self._child is not None
        self._child.close()
        self._child, self._gone = None, True
        self._untold.clear()

    def _complain(self, text: str) -> None:
        """Warn; of what happens at every cell, once."""
        if text not in self._complaints:
            self._complaints.add(text)
            say(f"warning: {self.culprit}: {text}")


def attend(key: str) -> int:
    """Load the plugin ``key`` and call its hooks for one event after the other, in its own process -> exit code."""
    from stabilitykit.plugins.loading import find, key_of, load_plugins

    worker = watch()
    assert isinstance(worker, Worker)
    host = load_plugins([point for point in find() if key_of(point) == key])
    if not host.listeners:
        why = host.failures[0].error if host.failures else "it is not installed any more"
        worker.tell({"t": "deaf", "why": why})
        return 1
    limit = hook_timeout()
    while (told := worker.ask({"t": "ask"})) is not None:
        event = Event(told["hook"], told["arguments"])
        for listener in host.listeners:
            try:
                with task("hook", event.hook, listener.culprit, limit):
                    listener.tell(event)
            except BaseException as error:  # SystemExit, KeyboardInterrupt: nobody pressed Ctrl-C in this process
                worker.tell({"t": "failed", "hook": event.hook, "why": describe(error)})
    return 0
