"""What one worker process leaves to the next of the same command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Inheritance:
    """What earlier workers of the same command left behind; a fork hands it down.

    Attributes:
        broken: plugins that are not to be loaded, by entry point, with the reason.
        cells: finished cells as JSON, in order.
        lost: cells that cost a worker its life, by slug, with their error.
        info: run.json's content so far.
        draws: False after a worker died while it drew pictures of images.
    """

    broken: dict[str, str] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    lost: dict[str, dict[str, str]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    draws: bool = True
