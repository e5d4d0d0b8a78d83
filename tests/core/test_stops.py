"""A Ctrl-C is never lost: the interpreter drops exceptions of ``__del__``, and a signal may arrive inside one."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")

PREAMBLE = """
import os, signal, sys, time
from stabilitykit.supervision.stops import Interrupts
interrupts = Interrupts()
interrupts.listen()
class Dropping:
    def __del__(self):
        {inside}
        for _ in range(10): pass
try:
    Dropping()
    {then}
    print("went on")
except KeyboardInterrupt:
    sys.exit(143 if interrupts.terminated else 130)
"""


def child(inside: str, then: str = "time.sleep(5)") -> subprocess.CompletedProcess[str]:
    """Run a process whose destructor does ``inside``; its exit code says what came through."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE.format(inside=inside, then=then)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_inside_a_destructor_is_delivered_again(number: str, code: int) -> None:
    process = child(f"signal.raise_signal(signal.{number})")
    assert (process.returncode, process.stdout, process.stderr) == (code, "", "")


def test_a_destructor_that_raises_keyboardinterrupt_itself_stops_nothing() -> None:
    process = child("raise KeyboardInterrupt", then="time.sleep(0.3)")
    assert process.returncode == 0 and process.stdout == "went on\n"
    assert "KeyboardInterrupt" in process.stderr  # Python's own report of it


def test_the_second_sigterm_ends_at_once() -> None:
    process = child(
        "pass",
        then="""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGTERM)""",
    )
    assert process.returncode == -15


def test_an_ignored_sigint_stays_ignored_and_sigterm_still_ends() -> None:
    source = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)" + PREAMBLE
    for number, code in (("SIGINT", 0), ("SIGTERM", 143)):
        body = source.format(inside=f"signal.raise_signal(signal.{number})", then="time.sleep(0.3)")
        assert subprocess.run([sys.executable, "-c", body], timeout=60, capture_output=True).returncode == code


def test_an_interrupt_inside_exec_still_exits_130() -> None:
    """Python marks the process for death by SIGINT there, however well the interrupt is handled afterwards."""
    source = """
import stabilitykit.__main__ as command, stabilitykit.cli as cli
def run():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        print("handled")
        return 130
cli.run = run
command.main()
"""
    process = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout, process.stderr) == (130, "handled\n", "")
