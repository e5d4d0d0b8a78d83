"""``python -m stabilitykit`` and the ``stabilitykit`` command."""

from __future__ import annotations

import _signal  # the signal module proper imports enum and more, and Ctrl-C may come meanwhile
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Exit codes of a command that a signal ended.
_INTERRUPTED = {2: 130, 15: 143, 1: 129}


def main() -> None:
    """Run the command line under supervision; every expected error is one line on stderr and an exit code.

    With STABILITYKIT_DEBUG=1, and where processes cannot fork, everything runs in this one process.
    """
    if not hasattr(os, "fork") or os.environ.get("STABILITYKIT_DEBUG"):
        sys.exit(_command())
    for number in _INTERRUPTED:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, _leave)
    from stabilitykit.base.text import printable_streams
    from stabilitykit.supervision.supervisor import supervise

    with printable_streams():
        sys.exit(supervise(_command, _show))


def _leave(number: int, frame: Any) -> None:
    """Nothing has begun yet: there is nothing to put in order."""
    os.write(2, b"interrupted\n")
    os._exit(_INTERRUPTED[number])


def _command() -> int:
    from stabilitykit.cli import run

    return run()


def _show(recorder: Any, printing: dict[str, Any]) -> Any:
    from stabilitykit.cli.printing import show_run

    return show_run(recorder, printing)


if __name__ == "__main__":
    main()
