"""Who stops this process? A signal is obeyed; a plugin that raises KeyboardInterrupt or calls os._exit has failed."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

# The interpreter's own, kept before any plugin's is put in its place.
end_process = os._exit
# A plugin that swallows Ctrl-C is asked this often, then the process ends.
PATIENCE = 3
SIGNALS = ("SIGINT", "SIGTERM", "SIGALRM")


class StoppedItself(Exception):
    """A plugin raised KeyboardInterrupt although nobody had pressed Ctrl-C."""


class TooLong(BaseException):
    """Raised by the alarm in plugin code over its time; not an Exception, so a plugin's own handlers let it pass."""


class Interrupts:
    """SIGINT and SIGTERM of a command line as KeyboardInterrupt, delivered again where the interpreter drops one.

    Python runs signal handlers between any two bytecodes; inside a ``__del__`` or a weakref callback (the import
    system has them) it prints the KeyboardInterrupt as "ignored" and goes on as if nobody had asked.
    """

    def __init__(self) -> None:
        self.terminated = False
        self._asked: list[int] = []
        self._lost = 0
        self._report = sys.unraisablehook

    def listen(self, sigterm: bool = True) -> None:
        """Install the handlers; a SIGINT that the parent chose to ignore (a job in the background) stays ignored."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._interrupt)
        if sigterm:
            signal.signal(signal.SIGTERM, self._interrupt)
        sys.unraisablehook = self._unraisable

    def _interrupt(self, signum: int, frame: Any) -> None:
        if signum == signal.SIGTERM and self._asked.count(signum) > self._lost:  # asked twice: at once
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self._asked.append(signum)
        self.terminated |= signum == signal.SIGTERM
        raise KeyboardInterrupt

    def _unraisable(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt) or self._lost >= len(self._asked):
            self._report(unraisable)
            return
        self._lost += 1
        # From another thread and a little later: raised here it would be dropped once more.
        again = threading.Timer(0.02, _thread.interrupt_main, [self._asked[-1]])
        again.daemon = True
        again.start()


@contextlib.contextmanager
def own_stops_only() -> Iterator[None]:
    """In the body, only signals interrupt, and ``os._exit`` raises SystemExit (except in forked children).

    Raises:
        KeyboardInterrupt: a signal came. A body that swallows it PATIENCE times ends the process (exit 130).
        StoppedItself: the body raised KeyboardInterrupt of its own.
    """
    heard = 0

    def listening(previous: Callable[..., Any]) -> Callable[..., Any]:
        def handler(signum: int, frame: Any) -> None:
            nonlocal heard
            heard += 1
            if signum == signal.SIGINT and heard > PATIENCE:
                os.write(2, b"error: a plugin ignores Ctrl-C; ended. Finished cells are on disk\n")
                end_process(130)
            previous(signum, frame)

        return handler

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            before[number] = signal.getsignal(number)
            if callable(before[number]):
                signal.signal(number, listening(before[number]))
    process, usual_exit = os.getpid(), os._exit

    def refuse(status: int) -> Any:
        if os.getpid() != process:
            end_process(status)
        raise SystemExit(f"os._exit({status}) was called")

    os._exit = refuse  # type: ignore[assignment]
    try:
        yield
    except KeyboardInterrupt as error:
        if heard:
            raise
        raise StoppedItself("raised KeyboardInterrupt, and nobody pressed Ctrl-C").with_traceback(
            error.__traceback__
        ) from None
    finally:
        os._exit = usual_exit
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextlib.contextmanager
def time_limit(
    seconds: float | None, exception: Callable[[], BaseException], who: str, max_rings: int = 8, code: int = 1
) -> Iterator[None]:
    """Raise ``exception()`` in the body after ``seconds`` (None: never); nothing off the main thread or without alarms.

    A body that catches even that is asked again, then the process ends (exit ``code``) with a line that names
    ``who``: there is no other way out of its loop.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not usable:
        yield
        return
    rings = 0

    def ring(signum: int, frame: Any) -> None:
        nonlocal rings
        rings += 1
        if rings > max_rings:
            os.write(2, f"error: {who} cannot be stopped\n".encode(errors="replace"))
            end_process(code)
        raise exception()

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, max(seconds / 4, 0.05))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
