"""Locks that die with their process, even by kill -9."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from stabilitykit.base.errors import UsageProblem

# A command killed by -9 takes its worker with it, a moment later: its lock may outlive it by that.
PATIENCE = 2.0


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file until its descriptor is closed: True: held; False: somebody else holds it; None: no locks here.

    Some file systems have none (Lustre without ``-o flock``, some NFS); the errors they give are many.
    """
    import filelock

    try:
        return filelock.lock_descriptor(descriptor, blocking=False)
    except OSError:
        return None


@contextlib.contextmanager
def lock(path: Path, *, wait: bool, what: str) -> Iterator[bool]:
    """Hold a lock on the file ``path`` (made if absent, kept afterwards) while in the body.

    Arguments:
        wait: wait for another holder, and say so on stderr; otherwise refuse.
        what: what is locked, for messages.

    Returns:
        Whether a lock is really held (see :func:`try_lock`): without one, others may be at work in the body too.

    Raises:
        UsageProblem: ``what`` is in use; ``path`` cannot be written, is a link, or is no file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(path, flags, 0o666)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageProblem(f"cannot write in {path.parent}: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UsageProblem(f"{path} is a pipe or device; expected a file")
        held = try_lock(handle)
        if held is False:
            until = time.monotonic() + PATIENCE
            while held is False and not wait and time.monotonic() < until:
                time.sleep(0.02)
                held = try_lock(handle)
            if held is False and not wait:
                raise UsageProblem(f"{what} is in use by another process; wait for it or choose another one")
            if held is False:
                print(f"waiting for another process: {what} is in use", file=sys.stderr, flush=True)
                held = _wait(handle)
        yield bool(held)
    finally:
        os.close(handle)  # closing lets go of the lock


def _wait(handle: int) -> bool:
    import filelock

    try:
        return filelock.lock_descriptor(handle)
    except OSError:
        return False
