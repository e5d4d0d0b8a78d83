"""The process that runs plugin code: what it tells the supervisor, and what it was told by it.

Everything here runs in the child of the supervisor's fork.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import io
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.base.watch import Watch, watched_by
from stabilitykit.supervision.channel import OUTPUT, Channel, Closed
from stabilitykit.supervision.inheritance import Inheritance

if TYPE_CHECKING:
    from stabilitykit.runs.recorder import Recorder

# The interpreter's own, kept before any plugin can put another in its place.
_end_process = os._exit


class Worker(Watch):
    """Tells the supervisor whose code runs, and hands finished cells over."""

    supervised = True

    def __init__(self, channel: Channel, inheritance: Inheritance) -> None:
        self._channel = channel
        self.inheritance = inheritance
        self.broken, self.lost = inheritance.broken, inheritance.lost
        self.busy = False  # plugin code runs: what is printed is noise
        self.output: io.TextIOBase = sys.stdout  # type: ignore[assignment]
        self._process = os.getpid()
        self._owners: dict[int, str] = {}

    def begin(self, kind: str, key: Any, culprit: str, limit: float | None) -> None:
        self._separate(True)
        self.tell({"t": "begin", "kind": kind, "key": key, "culprit": culprit, "limit": limit})

    def end(self) -> None:
        self._separate(False)
        self.tell({"t": "end"})

    def blame(self, culprit: str | None) -> None:
        beside = threading.current_thread() is not threading.main_thread()
        self.tell({"t": "beside" if beside else "blame", "culprit": culprit})

    def introduce(self, thing: object, culprit: str) -> None:
        self._owners[id(thing)] = culprit

    def enter(self, thing: object) -> None:
        if id(thing) in self._owners:
            self.blame(self._owners[id(thing)])

    def give_up(self, culprit: str, why: str, plugin: str = "") -> None:
        if "RANK" in os.environ:  # one of several processes: the others could not go on without it
            return super().give_up(culprit, why, plugin)
        self.tell({"t": "give up", "culprit": culprit, "why": why, "plugin": plugin})
        _end_process(0)

    def ask(self, message: Any) -> Any:
        """Say ``message`` and wait for the answer; Closed when nobody listens any more."""
        self.tell(message)
        return self._channel.receive()

    def recorder(
        self, output: Path | None, resume: bool, printing: Mapping[str, Any], listeners: Mapping[str, str] | None = None
    ) -> Recorder:
        """Let the supervisor open the run folder; cells finished from now on go to it.

        Arguments:
            output: the run folder; None: a new one below ``runs``.
            printing: how the run is shown when it is over: ``format`` and ``report``.
            listeners: plugins that are to be told of finished cells and of the run: key of the entry point -> culprit.

        Raises:
            UsageProblem: the folder cannot be used.
        """
        from stabilitykit.supervision.handover import HandingOver

        place = None if output is None else str(output)
        told = dict(listeners or {})
        answer = self.ask({"t": "open", "output": place, "resume": resume, "printing": printing, "listeners": told})
        if "error" in answer:
            raise UsageProblem(answer["error"])
        return HandingOver(self.tell, self.inheritance, answer)

    def write(self, data: bytes) -> None:
        """Output of the command itself, for the supervisor's stdout."""
        try:
            self._channel.send_frame(OUTPUT, data)
        except Closed:
            _end_process(1)

    def _separate(self, busy: bool) -> None:
        """What is buffered so far goes where it belongs; from here on plugin code prints (or no longer)."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self.output.flush()
        self.busy = busy

    def tell(self, message: Any) -> None:
        """Say ``message``, plain data, to the supervisor; a process to which nobody listens ends here."""
        if os.getpid() != self._process:  # plugin code forked, and its child went on as if it were this worker
            _end_process(0)
        try:
            self._channel.send(message)
        except Closed:  # the supervisor is gone: nobody waits for this run
            _end_process(1)


class _Output(io.RawIOBase):
    """The command's stdout: to the supervisor; while plugin code runs, to stderr, where noise belongs."""

    def __init__(self, worker: Worker, terminal: bool) -> None:
        self._worker, self._terminal = worker, terminal

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        return 1

    def write(self, data: Any) -> int:
        raw = bytes(data)
        if self._worker.busy:
            os.write(2, raw)
        else:
            self._worker.write(raw)
        return len(raw)


def run_worker(channel: Channel, inheritance: Inheritance, command: Callable[[], int], trace: int) -> NoReturn:
    """Run ``command`` in this freshly forked process and end it with what it returns.

    Arguments:
        trace: descriptor that takes what Python's fault handler has to say.
    """
    code = 1
    worker = Worker(channel, inheritance)
    try:
        _settle(trace)
        terminal, encoding = os.isatty(1), getattr(sys.stdout, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError):
            os.dup2(2, 1)  # whatever writes to the descriptor itself, children included
        sys.stdout = worker.output = io.TextIOWrapper(
            io.BufferedWriter(_Output(worker, terminal)), encoding, "backslashreplace", write_through=True
        )
        try:
            with watched_by(worker):
                code = command()
        except StabilityKitError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        channel.send({"t": "done", "code": code})
        atexit._run_exitfuncs()
    except Closed:
        pass
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        _end_process(code)


def _settle(trace: int) -> None:
    """A session of its own, so that Ctrl-C reaches the supervisor alone; death with the supervisor."""
    supervisor = os.getppid()
    os.setsid()
    # What the process that called us wants done at its own end (temporary folders removed, say) is not ours to do.
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGTSTP", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != supervisor:
            _end_process(1)
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        faulthandler.enable(trace, all_threads=False)
