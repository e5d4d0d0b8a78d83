"""Errors that users see: one clear line, an exit code, and what to run next.

Exit codes: 0 ok, 1 a cell or a verification failed, 2 usage or bad input, 3 plugin failure under
``--strict-plugins``, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM).
"""

from __future__ import annotations


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


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the error's type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def describe(error: BaseException, longest: int = 400) -> str:
    """``Type: message`` on one line, whatever a stranger's exception does when it is asked for its text."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    name = type(error).__name__
    return (f"{name}: {text}" if text else name)[:longest].encode("utf-8", "replace").decode()
