"""numba compilation with a cache on disk where one can be written."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core import event

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


class _CompilerNote(event.Listener):
    """Notes, once in a process, that machine code is being made: it takes seconds and looks like a hang."""

    def __init__(self) -> None:
        self.noted = False

    def on_start(self, event: Any) -> None:
        """A function is not in the cache and is compiled."""
        if self.noted:
            return
        self.noted = True
        logging.getLogger("stabilitykit.search").info(
            "compiling the searches (numba; once per machine and version, then read from its cache)"
        )

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


NOTE = _CompilerNote()
event.register("numba:compile", NOTE)  # type: ignore[no-untyped-call]


def jit(function: Kernel) -> Kernel:
    """Compile without the interpreter lock and without fast-math; keep the machine code on disk if possible.

    numba looks for a writable folder in this order: NUMBA_CACHE_DIR, the package's own `__pycache__`, the
    user's cache folder. With none of them (a read-only installation without a home), it raises at
    decoration; then the function is compiled anew in every process instead. Fast-math stays off because
    it would reorder sums: the canonical order is what makes answers reproducible.
    """
    return _compiled(function, fastmath=False)


def jit_in_any_order(function: Kernel) -> Kernel:
    """`jit` for sums whose order does not matter because their rounding is bounded: several terms at once."""
    return _compiled(function, fastmath={"reassoc", "contract", "nsz"})


def _compiled(function: Kernel, fastmath: bool | set[str]) -> Kernel:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    compiled: Any
    try:
        compiled = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        compiled = numba.njit(**options)(function)
    else:
        compiled._cache = _Optional(compiled._cache)
    kernel: Kernel = compiled
    return kernel


class _Optional:
    """numba's cache of a function, on a disk that may be full: then the machine code is not kept, and works."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def save_overload(self, *arguments: Any) -> None:
        with contextlib.suppress(OSError):
            self._cache.save_overload(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)
