"""The process a user starts: owns terminal, run folder and exit code, and runs no plugin code itself.

It forks a worker for the command. A worker that dies, overruns its time or spoiled its process costs the task it was
at (a plugin that was loading, a model and dataset that were being built, a cell), with the culprit's name; a fresh
worker goes on with the rest. Only signals stop the command, and they stop it at any moment.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabilitykit.base.errors import StabilityKitError
from stabilitykit.plugins.listening import Event
from stabilitykit.supervision.audience import Audience
from stabilitykit.supervision.channel import JSON, Channel, Closed
from stabilitykit.supervision.child import GRACE, Child
from stabilitykit.supervision.death import how_it_ended
from stabilitykit.supervision.inheritance import Inheritance
from stabilitykit.supervision.listening import Listening
from stabilitykit.supervision.saying import say

if TYPE_CHECKING:
    from stabilitykit.runs.recorder import Recorder

    Show = Callable[[Recorder, dict[str, Any]], Callable[[], int] | None]

INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def supervise(command: Callable[[], int], show: Show) -> int:
    """Run ``command`` in a worker process -> exit code.

    Arguments:
        command: runs the command line in the worker; it finds its :class:`Worker` with :func:`watch`.
        show: prints a finished run, given its recorder and how it is to be shown; called in this process. It returns
            what is still to be run in a worker (the report, which is made by plugins), or None.
    """
    return Supervisor(command, show).run()


class Supervisor:
    """One command, from its start to its exit code."""

    def __init__(self, command: Callable[[], int], show: Show, inheritance: Inheritance | None = None) -> None:
        self._command, self._show = command, show
        self._inheritance = inheritance or Inheritance()
        self._recorder: Recorder | None = None
        self._printing: dict[str, Any] = {}
        self._signal = 0
        self._wake, self._woken = os.pipe()
        self._spoke = False  # something of the command's own output is printed: it cannot be run again
        self._status = "interrupted"
        self._child: Child | None = None
        self._audience = Audience(self._own_descriptors)
        self._earlier: dict[str, dict[str, Any]] = {}  # cells of the run to resume, as JSON, by slug

    def run(self) -> int:
        self._listen()
        try:
            return self._run()
        except StabilityKitError as error:  # the run folder cannot be written: its disk is full, or it is gone
            self._release()
            say(f"error: {error}")
            return error.exit_code
        finally:
            self._audience.settle(lambda: bool(self._signal), self._wake)

    def _run(self) -> int:
        code: int | None = None
        try:
            while code is None:
                code = self._run_worker()
            return self._finished(code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # let the interpreter's own flush at exit succeed
            return 1
        finally:
            self._close_run()

    def _listen(self) -> None:
        """Signals only leave a note; one that the parent chose to ignore (nohup, a background job) stays ignored."""

        def note(number: int, frame: Any) -> None:
            self._signal = number

        def pause(number: int, frame: Any) -> None:
            self._signal_workers(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            self._signal_workers(signal.SIGCONT)

        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in INTERRUPTED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, note)
        signal.signal(signal.SIGTSTP, pause)

    # One worker.

    def _run_worker(self) -> int | None:
        """Start a worker and listen to it to its end -> exit code, or None: another one goes on."""
        child = self._child = Child(self._command, self._inheritance, self._own_descriptors())
        listening = Listening()
        try:
            with contextlib.suppress(Closed):
                self._listen_to(child.channel, listening)
            status, alive = self._bury(child, listening)
            if self._signal:
                self._take_handed_over(child.channel)
            text = child.last_words()
        finally:
            self._child = None
            child.close()
        if self._signal:
            return self._interrupted()
        if listening.code is not None:
            return listening.code
        return self._lost(listening, how_it_ended(status, alive, text))

    def _own_descriptors(self) -> list[int]:
        """What no worker is to hold: its end would stay open when ours is closed."""
        child = [] if self._child is None else [self._child.channel.fileno()]
        return [self._wake, self._woken, *child, *self._audience.descriptors()]

    def _listen_to(self, channel: Channel, listening: Listening) -> None:
        while not self._signal:
            descriptors = [channel.fileno(), self._wake, *self._audience.descriptors()]
            patience = min(listening.patience(), self._audience.patience())
            ready = select.select(descriptors, [], [], None if patience == math.inf else patience)[0]
            self._audience.attend(ready)
            if self._wake in ready:
                with contextlib.suppress(OSError):
                    os.read(self._wake, 512)
            if channel.fileno() in ready:
                channel.fill()
                for kind, data in channel.frames():
                    if kind == JSON:
                        self._hear(channel, listening, data)
                    else:
                        self._print(data)
            listening.too_long = listening.overdue
            if listening.code is not None or listening.given_up or listening.too_long:
                return

    def _take_handed_over(self, channel: Channel) -> None:
        """Cells that an interrupted worker had sent are finished, though nobody had read them yet."""
        import json

        until = time.monotonic() + GRACE  # something that escaped the worker's session may hold the connection open
        with contextlib.suppress(Closed):
            while time.monotonic() < until and select.select([channel.fileno()], [], [], 0)[0]:
                channel.fill()
        with contextlib.suppress(Closed):
            for kind, data in channel.frames():
                message: dict[str, Any] = json.loads(data) if kind == JSON else {}
                if message.get("t") == "cell":
                    self._keep(message["cell"], message["info"])
                elif message.get("t") == "decisions":
                    self._decide(message["decisions"])

    def _bury(self, child: Child, listening: Listening) -> tuple[int, bool]:
        """Wait for the worker, or kill it -> (its status, whether it lived on though it had closed its connection)."""
        kill = bool(self._signal) or listening.too_long
        status, alive = child.bury(0 if kill else GRACE, lambda: bool(self._signal))
        return status, alive and not kill

    def _signal_workers(self, number: int) -> None:
        if self._child is not None:
            self._child.signal(number)
        self._audience.signal(number)

    # What it says.

    def _hear(self, channel: Channel, listening: Listening, data: bytes) -> None:
        import json

        message = json.loads(data)
        what = message["t"]
        if what == "begin":
            listening.begin(message)
        elif what == "end":
            listening.task = None
        elif what == "blame":
            listening.blame(message["culprit"])
        elif what == "beside":
            listening.beside = message["culprit"] or ""
        elif what == "open":
            channel.send(self._open_run(message))
        elif what == "cell":
            self._keep(message["cell"], message["info"])
        elif what == "decisions":
            self._decide(message["decisions"])
        elif what == "image" and self._recorder is not None:
            self._recorder.image(message["dataset"], message["index"], base64.b64decode(message["png"]))
        elif what == "close":
            self._inheritance.info = message["info"]
            self._status = message["status"]
        elif what == "give up":
            listening.given_up = message
        elif what == "done":
            listening.code = message["code"]

    def _print(self, data: bytes) -> None:
        self._spoke = True
        sys.stdout.buffer.write(data)
        sys.stdout.flush()

    def _open_run(self, message: dict[str, Any]) -> dict[str, Any]:
        import json

        from stabilitykit.runs.recorder import FolderRecorder

        self._printing = message["printing"]
        try:
            if self._recorder is None:
                output = None if message["output"] is None else Path(message["output"])
                recorder = FolderRecorder(output, message["resume"])
                self._recorder = recorder.__enter__()
                self._before = recorder.earlier()
                self._earlier = {cell.slug: json.loads(json.dumps(cell.to_json())) for cell in self._before[1]}
                self._audience.invite(message["listeners"])
        except StabilityKitError as error:
            self._release()
            return {"error": str(error)}
        request, _ = self._before
        return {"path": str(self._recorder.path), "request": request, "cells": list(self._earlier.values())}

    def _keep(self, cell: dict[str, Any], news: dict[str, Any] | None) -> None:
        """Take a finished cell; ``news``: run.json's content where it is not what it was."""
        from stabilitykit.runs.folder import Cell

        self._inheritance.cells.append(cell)
        info = self._inheritance.info = self._inheritance.info if news is None else news
        if self._recorder is not None:
            kept = Cell.from_json(cell)
            self._recorder.finish(kept, info)
            if self._audience and self._earlier.get(kept.slug) != cell:  # one that --resume kept is no news
                self._audience.tell(Event.of_cell(cell, info, self._recorder.path))

    def _decide(self, decisions: dict[str, Any]) -> None:
        from stabilitykit.base.decisions import Decisions

        if self._recorder is not None:
            self._recorder.decide(Decisions.from_json(decisions))

    # What becomes of the command.

    def _lost(self, listening: Listening, ended: str) -> int | None:
        """A worker is gone before the command was done: what it was at is lost -> None: a fresh one goes on."""
        task, given_up = listening.task, listening.given_up
        if given_up is not None:
            if given_up["plugin"]:
                self._inheritance.broken[given_up["plugin"]] = given_up["why"]
            else:
                say(f"note: {given_up['culprit']} changed {given_up['why']}; a fresh process goes on")
            return None if self._may_go_on() else 1
        if task is None or task["kind"] == "command" or "RANK" in os.environ:
            who = f"{listening.culprit} " if listening.culprit else "the process of the run "
            say(f"error: {who}{ended}{'; finished cells are on disk' if self._inheritance.cells else ''}")
            return 1
        if listening.too_long:
            limit, option = task["limit"], "--cell-timeout"
            ended = f"took longer than {limit:g} s ({option})"
        if task["kind"] == "plugin":
            if listening.too_long:
                ended = (
                    f"still loading after {task['limit']:g} s; raise STABILITYKIT_PLUGIN_TIMEOUT if that is expected"
                )
            self._inheritance.broken[task["key"]] = ended
        elif task["kind"] in ("cell", "subject"):
            error = {"type": "TooLong" if listening.too_long else "Died", "message": ended}
            for slug in task["key"] if task["kind"] == "subject" else [task["key"]]:
                self._inheritance.lost[slug] = error | {"culprit": listening.culprit}
        else:
            self._inheritance.draws = False
            say(f"warning: {listening.culprit} {ended} when pictures of its images were drawn; the report has none")
        return None if self._may_go_on() else 1

    def _may_go_on(self) -> bool:
        if self._spoke:
            say("error: the command had begun to print; run it again")
        return not self._spoke

    def _interrupted(self) -> int:
        say(
            "interrupted; finished cells are on disk, --resume goes on from there"
            if self._recorder is not None
            else "interrupted"
        )
        if sys.stderr is not None and sys.stderr.isatty():
            os.write(2, b"\x1b[?25h")  # a progress bar had hidden the cursor
        return INTERRUPTED[signal.Signals(self._signal)]

    def _finished(self, code: int) -> int:
        """The worker's exit code, or that of its run, which is shown first."""
        if self._recorder is None or self._signal or self._status != "complete":
            return code
        recorder = self._recorder
        self._close_run()
        try:
            follow = self._show(recorder, self._printing)
            if follow is not None:
                code = max(code, Supervisor(follow, self._show, Inheritance(broken=self._inheritance.broken)).run())
                self._listen()
        finally:
            if self._audience:
                cells = [cell.to_json() for cell in recorder.cells]
                self._audience.tell(Event.of_run(cells, recorder.content(), recorder.path))
        return code

    def _close_run(self) -> None:
        if self._recorder is not None:
            self._recorder.close(self._status, self._inheritance.info)
        self._release()

    def _release(self) -> None:
        if self._recorder is not None:
            self._recorder.__exit__()
        self._recorder = None
