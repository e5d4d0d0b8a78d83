"""The modules of an example, which stand beside its command and are found by their names alone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest


@contextmanager
def modules_of(example: Path) -> Iterator[SimpleNamespace]:
    """All modules of the folder by name; afterwards those of equal names are what they were."""
    names = [path.stem for path in example.glob("*.py")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(example)
        for name in names:
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
        for name in names:
            sys.modules.pop(name, None)
