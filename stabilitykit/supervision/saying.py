"""What the supervisor says to people, beside results."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """A line on stderr, where there is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)
