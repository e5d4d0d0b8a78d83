"""Options of timm's own model builders, given by name and checked by the class they are for."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from stabilitykit import UsageProblem
from stabilitykit.base.names import did_you_mean

RESERVED = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "pretrained_filter_fn",
    "pretrained_custom_load",
    "pretrained_model_args",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
    "features_only",
    "feature_cfg",
    "feature_cls",
    "out_indices",
    "kwargs_filter",
    "model_cfg",
    "weights_backbone",
}
"""Keywords that load weights or make something else than a classifier; checkpoint and download do the former."""


def parsed(given: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Texts as Python values: ``4``, ``0.1``, ``true``, ``none``, ``2-2-6-2``, ``(2, 2)``; other text stays text.

    Raises:
        UsageProblem: a keyword that is timm's own business.
    """
    for key in given:
        if key in RESERVED:
            raise UsageProblem(f"{owner}: {key} is no option of a network; see checkpoint= and download=")
    return {key: _value(value) for key, value in given.items()}


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    plain = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in plain:
        return plain[text.lower()]
    if re.fullmatch(r"\d+(-\d+)+", text):
        return tuple(map(int, text.split("-")))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def unknown(error: TypeError, module: nn.Module | None, owner: str) -> UsageProblem | None:
    """What to say when ``error`` is about a keyword that the network's class does not take; None for other errors."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if not found:
        return None
    known: list[str] = []
    for kind in type(module).__mro__ if module is not None else ():
        if kind is not nn.Module and "__init__" in vars(kind):
            known += [
                name for name in inspect.signature(vars(kind)["__init__"]).parameters if name not in ("self", "kwargs")
            ]
    known = list(dict.fromkeys(name for name in known if name not in RESERVED))
    hint = did_you_mean(found[1], known)
    return UsageProblem(
        f"{owner}: the network takes no option {found[1]!r}{hint}; it takes {', '.join(known) or 'none'}"
    )
