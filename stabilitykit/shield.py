"""What plugin code may do to the process is undone after it: output, threads, generators, folder, torch's modes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from .device import make_deterministic


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what the body writes to stdout to stderr, also from C code and child processes (file descriptor 1).

    Machine-readable output stays clean whatever a plugin prints.
    """
    saved = None
    try:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(2, 1)
    except (OSError, AttributeError, ValueError):
        pass  # closed or captured: redirecting sys.stdout below is what can be done
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if saved is not None:
            os.dup2(saved, 1)
            os.close(saved)


@contextlib.contextmanager
def shielded(seed: int) -> Iterator[None]:
    """Run one property: every generator seeded before it, the process put back as it was after it.

    A property's result then depends neither on the properties before it nor on which of them ``--resume`` skipped.
    """
    import torch

    threads, dtype, folder = torch.get_num_threads(), torch.get_default_dtype(), None
    with contextlib.suppress(OSError):
        folder = os.getcwd()
    make_deterministic(seed)
    try:
        with stdout_to_stderr():
            yield
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        make_deterministic(seed)
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)
