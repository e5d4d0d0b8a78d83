"""Lip(g): certified Lipschitz constants of fully connected heads (mathematics, section 5)."""

from __future__ import annotations

from typing import Any

_PUBLIC = {
    "lipschitz": "api", "LipschitzInterval": "interval", "Ball": "regions", "Box": "regions", "Data": "regions",
    "Network": "network", "dense": "network",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    # numpy and scipy load only when something is used, so that listing plugins stays cheap
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
