"""``python -m stabilitykit`` and the ``stabilitykit`` command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Run the command line; every expected error is one line on stderr and an exit code."""
    terminated = False

    def terminate(signum: int, frame: Any) -> None:
        nonlocal terminated
        terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # asked twice: at once
        raise KeyboardInterrupt

    if "RANK" not in os.environ:  # torchrun ends its processes itself, and a collective would not let Python in
        signal.signal(signal.SIGTERM, terminate)
    try:
        from .cli import run

        code = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        with contextlib.suppress(OSError):  # stderr may be what cannot be written
            print(f"error: cannot write the output: {error.strerror or error}", file=sys.stderr)
        _abandon_stdout()
        code = 1
    except AttributeError:
        code = 1 if sys.stdout is not None else code  # started with a closed stdout: nothing to flush
    sys.exit(143 if terminated and code == 130 else code)


def _abandon_stdout() -> None:
    """Let the interpreter's own flush at exit succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
