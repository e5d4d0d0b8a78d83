"""Names as people and plugins write them: near misses, and "module:attribute"."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """What to append to "unknown ``word``": the names like it, else ``otherwise``, else nothing.

    Examples:
        >>> did_you_mean("resnet81", ["resnet18", "vgg11"])
        ' (did you mean resnet18?)'
        >>> did_you_mean("zzz", ["resnet18", "vgg11"], otherwise="see `stabilitykit models list`")
        ' (see `stabilitykit models list`)'
    """
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else otherwise
    return f" ({hint})" if hint else ""


def imported(target: str) -> Any:
    """What ``"package.module:attribute"`` names.

    Raises:
        Exception: whatever importing the module raises; AttributeError where it has no such attribute.
    """
    module, _, attributes = target.partition(":")
    thing: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        thing = getattr(thing, attribute)
    return thing
