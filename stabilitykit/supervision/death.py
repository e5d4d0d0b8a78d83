"""How a process ended, in words."""

from __future__ import annotations

import re
import signal

_MEANING = {
    "SIGSEGV": "a segmentation fault",
    "SIGABRT": "an abort in compiled code",
    "SIGBUS": "a bus error, as a full disk under a memory map gives",
    "SIGFPE": "an arithmetic error in compiled code",
    "SIGILL": "an instruction this processor lacks",
    "SIGKILL": "by itself, or by the system when memory runs out",
}


def how_it_ended(status: int, alive: bool, trace: str) -> str:
    """One phrase for a worker that stopped talking.

    Arguments:
        status: exit code, or minus the number of the signal (as :func:`os.waitstatus_to_exitcode` gives).
        alive: True when it had to be killed: it had closed its connection and went on.
        trace: what Python's fault handler wrote, or nothing.
    """
    if alive:
        return "replaced its process (exec) or closed its connection to the run"
    if status >= 0:
        return f"ended the process, as os._exit({status}) does"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"crashed the process ({name}: {_MEANING.get(name, 'a signal')}){_place(trace)}"


def _place(trace: str) -> str:
    """Where the fault handler saw the innermost Python frame."""
    found = re.search(r'File "([^"]+)", line (\d+) in (\S+)', trace)
    return f" in {found[3]}, {found[1].rpartition('/')[2]}:{found[2]}" if found else ""
