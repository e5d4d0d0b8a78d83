"""Errors that users see: one clear line, an exit code, and what to run next.

Exit codes: 0 ok, 1 a cell or a verification failed, 2 usage or bad input, 3 plugin failure under
``--strict-plugins``, 4 a gate is closed, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

# Exit code of `stabilitykit gate` where a condition holds, or cannot be decided.
GATE_CLOSED = 4


class StabilityKitError(Exception):
    """Base of every error with a message meant for users; ``exit_code`` is the process's exit status."""

    exit_code = 1


class UsageProblem(StabilityKitError):
    """Bad input: an unknown name, an invalid option, an unreadable file, a device that is not there (exit 2)."""

    exit_code = 2


class DataProblem(UsageProblem):
    """A dataset or checkpoint file that is missing, truncated, of the wrong form or holds NaN/Inf (exit 2)."""


class CellProblem(StabilityKitError):
    """One evaluation cell (model x dataset x property) cannot give a number; the others go on (exit 1)."""

    exit_code = 1


class Refusal(CellProblem):
    """A number is refused on purpose, with the reason: giving it would be unsound (exit 1)."""


class PluginProblem(StabilityKitError):
    """A plugin failed to load, clashes, or broke its contract (exit 3 under --strict-plugins)."""

    exit_code = 3


def describe(error: BaseException, longest: int = 400) -> str:
    """``error`` on one line of at most ``longest`` characters, whatever it does when it is asked for its text.

    Returns:
        the message alone of an error that was written for users, ``Type: message`` of any other.
    """
    try:
        text = " ".join(str(error).split())
    except Exception:  # an exception whose __str__ fails is still somebody's failure
        text = ""
    name = type(error).__name__
    whole = text if text and isinstance(error, StabilityKitError) else f"{name}: {text}" if text else name
    return whole[:longest].encode("utf-8", "replace").decode()


@dataclass
class Caught:
    """``error``: what the body of :func:`catching` raised; None where it did not."""

    error: BaseException | None = None


@contextlib.contextmanager
def catching() -> Iterator[Caught]:
    """Run somebody else's code: whatever it raises ends the body and is kept; only Ctrl-C passes.

    SystemExit and exceptions of a plugin's own below BaseException are no reason to stop what does not need it.
    """
    caught = Caught()
    try:
        yield caught
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        caught.error = error
