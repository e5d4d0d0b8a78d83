"""Whose fault is it? Failures as data: one line for people, and the plugin to blame with distribution and version."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from stabilitykit.base.errors import StabilityKitError, describe
from stabilitykit.base.watch import watch
from stabilitykit.evaluation.selection import Choice

MAX_MESSAGE = 600
_BLAMED = "_stabilitykit_blamed"


@contextlib.contextmanager
def blaming(choice: Choice) -> Iterator[None]:
    """Whatever the body raises is ``choice``'s fault, for :func:`culprit_of` further up; so is a death in it."""
    listener = watch()
    listener.blame(choice.culprit)
    try:
        yield
    except BaseException as error:
        if not hasattr(error, _BLAMED):
            with contextlib.suppress(AttributeError, TypeError):
                setattr(error, _BLAMED, choice)
        raise
    finally:
        listener.blame(None)


def pass_on(error: BaseException) -> None:
    """Raise ``error`` again where it is the user's Ctrl-C; anything else is somebody's failure and is described.

    A worker process is interrupted by its supervisor, from outside: there it is a plugin's own.
    """
    if isinstance(error, KeyboardInterrupt) and not watch().supervised:
        raise error


def culprit_of(error: BaseException, default: Choice, parts: Sequence[tuple[Any, Choice]] = ()) -> Choice:
    """The choice to blame for ``error``.

    Arguments:
        error: what was raised; one that passed :func:`blaming` has its culprit already.
        default: blamed when nothing points elsewhere.
        parts: (model, dataset or property object, its choice): the one whose code stands innermost in the traceback
            is blamed, so that a dataset whose images fail is not blamed on the property that asked for them.
    """
    blamed = getattr(error, _BLAMED, None)
    if isinstance(blamed, Choice):
        return blamed
    present = [(thing, choice) for thing, choice in parts if thing is not None]
    sources: dict[str, list[Choice]] = {}
    for thing, choice in present:
        package = type(thing).__module__.partition(".")[0]
        names = [] if package in ("stabilitykit", "__main__", "builtins") else [package]
        with contextlib.suppress(TypeError, OSError):
            names.append(inspect.getsourcefile(type(thing)) or "")
        for name in names:
            sources.setdefault(name, []).append(choice)
    for frame in reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]):
        own = [choice for thing, choice in present if frame.f_locals.get("self") is thing]
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for found in (own, sources.get(frame.f_code.co_filename, []), sources.get(package, [])):
            if len(found) == 1:  # code that several of them share tells nothing; a frame further out may
                return found[0]
    return default


def describe_failure(choice: Choice, error: BaseException) -> dict[str, str]:
    """``type``, ``message`` (one line), ``culprit``, and for bugs (no StabilityKitError) the end of the traceback."""
    interrupted = isinstance(error, KeyboardInterrupt)  # one that :func:`pass_on` let stay: nobody asked for it
    own = "raised KeyboardInterrupt, and nobody pressed Ctrl-C"
    found = {
        "type": type(error).__name__,
        "message": f"KeyboardInterrupt: {own}" if interrupted else describe(error, MAX_MESSAGE),
        "culprit": choice.culprit,
    }
    if not isinstance(error, StabilityKitError):
        with contextlib.suppress(Exception):
            ending = "".join(traceback.format_exception(error)[-6:])
            found["traceback"] = ending[-8000:].encode("utf-8", "replace").decode()
    return found
