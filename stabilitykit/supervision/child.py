"""A forked worker process, as the supervisor that started it holds it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

from stabilitykit.supervision.channel import Channel
from stabilitykit.supervision.inheritance import Inheritance
from stabilitykit.supervision.worker import run_worker

# A worker that is done has this long to let its libraries clean up; one that closed its connection, to die.
GRACE = 2.0


class Child:
    """Forks at once.

    Attributes:
        channel: the supervisor's end of the connection.
    """

    def __init__(self, command: Callable[[], int], inheritance: Inheritance, foreign: Iterable[int]) -> None:
        """Run ``command`` in a process that closes ``foreign``, the supervisor's own descriptors."""
        self.channel, theirs = Channel.pair()
        self._trace = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process lives; close() closes it
        sys.stdout.flush()
        self._process = os.fork()
        if self._process == 0:
            for descriptor in (self.channel.fileno(), *foreign):
                os.close(descriptor)
            run_worker(theirs, inheritance, command, self._trace.fileno())
        theirs.close()

    def signal(self, number: int) -> None:
        """Send a signal to the process and what it started."""
        if self._process:
            for send in (os.killpg, os.kill):  # the group does not exist before the worker made its session
                with contextlib.suppress(OSError):
                    send(self._process, number)

    def bury(self, patience: float, hurry: Callable[[], bool] = lambda: False) -> tuple[int, bool]:
        """Wait for the end of the process, then end it.

        What it started is in its session and dies with it.

        Arguments:
            patience: seconds to wait.
            hurry: asked meanwhile; True ends the waiting.

        Returns:
            (exit code or minus the number of a signal, whether it had not ended by itself).
        """
        until = time.monotonic() + patience
        gone, status = 0, 0
        while not gone and time.monotonic() < until and not hurry():
            gone, status = os.waitpid(self._process, os.WNOHANG)
            if not gone:
                time.sleep(0.005)
        self.signal(signal.SIGKILL)
        if not gone:
            _, status = os.waitpid(self._process, 0)
        self._process = 0
        return os.waitstatus_to_exitcode(status), not gone

    def last_words(self) -> str:
        """What Python's fault handler wrote, or nothing."""
        self._trace.seek(0)
        return self._trace.read(1 << 16).decode(errors="replace")

    def close(self) -> None:
        """Let go of the connection and of what the fault handler wrote."""
        self.channel.close()
        self._trace.close()
