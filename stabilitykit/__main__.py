"""``python -m stabilitykit`` and the ``stabilitykit`` command."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading

from stabilitykit.supervision.stops import Interrupts

# Threads and child processes that a plugin left behind are waited for this long at exit.
STRAY_SECONDS = 5.0


def main() -> None:
    """Run the command line; every expected error is one line on stderr and an exit code."""
    interrupts = Interrupts()
    with contextlib.suppress(OSError, RuntimeError, AttributeError, ValueError):
        faulthandler.enable()  # compiled code of a plugin that crashes the process is named with file and line

    # torchrun ends its processes itself, and a collective would not let Python in.
    interrupts.listen(sigterm="RANK" not in os.environ)
    try:
        from stabilitykit.cli import run

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
    code = 143 if interrupts.terminated and code == 130 else code
    _do_not_wait_forever(code)
    # Python would kill itself by SIGINT at the end if the KeyboardInterrupt, long handled, had passed through an exec
    # of a string (dataclasses have them). The next exec of one makes it forget that.
    exec("")
    sys.exit(code)


def _do_not_wait_forever(code: int) -> None:
    """End the process after STRAY_SECONDS where the interpreter would wait for threads or children of a plugin."""
    processes = sys.modules.get("multiprocessing")
    strays = [t.name for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    strays += [c.name for c in processes.active_children()] if processes is not None else []
    if not strays:
        return

    def give_up() -> None:
        os.write(2, f"warning: a plugin left {', '.join(strays)[:200]} running; not waited for\n".encode())
        os._exit(code)

    timer = threading.Timer(STRAY_SECONDS, give_up)
    timer.daemon = True
    timer.start()


def _abandon_stdout() -> None:
    """Let the interpreter's own flush at exit succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
