"""Which module of the exported network a node stood in, as the exporters of PyTorch write it down.

The TorchScript exporter names nodes by path (``/layer1/layer1.0/conv1/Conv``), the newer one keeps name and class of
every enclosing module in the node's metadata; onnxruntime's quantiser keeps names. Of other files nothing is known, and
every node is a module of its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

Scope = tuple[str, ...]

_NAMES, _CLASSES = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"
_STRANGE = re.compile(r"\W+")


def scope_of(name: str, metadata: Mapping[str, str]) -> tuple[Scope, tuple[str, ...]]:
    """(names of the enclosing modules from the outermost down, their classes where known)."""
    names = _texts(metadata.get(_NAMES, ""))
    if names:
        modules = [text for text in names[:-1] if text and not text.startswith("_empty")]
        classes = _texts(metadata.get(_CLASSES, ""))
        inner = tuple(classes[1:-1]) if len(classes) == len(names) and not names[0] else ()
        scope = _relative(modules)
        return scope, inner if len(inner) == len(scope) else ()
    pieces = [piece for piece in name.split("/") if piece]
    return _relative(pieces[:-1]), ()


def _relative(modules: list[str]) -> Scope:
    """Names below the enclosing module: of ``layer1``, ``layer1.0`` the pieces ``layer1``, ``0``.

    A list of modules is none that was called; it stands there all the same, so that names stay what they were
    (``layer.3`` is ``layer``, ``3``).
    """
    found: list[str] = []
    above = ""
    for module in modules:
        own = module.removeprefix(above + ".") if above else module
        above = module
        found += [plain(piece) for piece in own.split(".")]
    return tuple(found)


def plain(text: str) -> str:
    """``text`` as a name that a module can have: ``3``, ``bn1``."""
    return _STRANGE.sub("_", text).strip("_") or "_"


def common(one: Scope, two: Scope) -> Scope:
    """The modules that both stand in."""
    count = 0
    for a, b in zip(one, two):
        if a != b:
            break
        count += 1
    return one[:count]


def _texts(listed: str) -> list[str]:
    """``"['', 'layer1']"`` as a list; anything else as none."""
    try:
        found = ast.literal_eval(listed)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else []
