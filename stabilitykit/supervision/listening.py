"""What a supervisor knows of a worker while it lives."""

from __future__ import annotations

import math
import time
from typing import Any


class Listening:
    """Follows the messages of one worker.

    Attributes:
        task: the message that began what it is at, or None.
        culprit: whose code it runs; where a thread beside it runs another's, both are named.
        code: its exit code, once it is done.
        given_up: its last message, where it gave its process up.
        too_long: it is killed because its task is overdue.
    """

    def __init__(self) -> None:
        self.task: dict[str, Any] | None = None
        self._culprit = ""
        self.beside = ""
        self.code: int | None = None
        self.given_up: dict[str, Any] | None = None
        self.too_long = False
        self._until: float | None = None

    def begin(self, message: dict[str, Any]) -> None:
        self.task, self._culprit = message, message["culprit"]
        self._until = None if message["limit"] is None else time.monotonic() + message["limit"]

    def blame(self, culprit: str | None) -> None:
        self._culprit = culprit or (self.task["culprit"] if self.task is not None else "")

    @property
    def culprit(self) -> str:
        return " or ".join(dict.fromkeys(who for who in (self._culprit, self.beside) if who))

    @property
    def overdue(self) -> bool:
        return self.task is not None and self._until is not None and time.monotonic() >= self._until

    def patience(self) -> float:
        """Seconds until the task is overdue; inf: for ever."""
        if self.task is None or self._until is None:
            return math.inf
        return max(0.0, self._until - time.monotonic())
