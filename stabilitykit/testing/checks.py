"""A check is data: what was asked, whether it holds, and what to do if not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stabilitykit.base.results import to_plain


@dataclass(frozen=True)
class Check:
    """One contract check.

    Attributes:
        name: what is asked, a few words.
        ok: whether it holds.
        message: empty, or what came instead and what to do.
    """

    name: str
    ok: bool
    message: str = ""


class Broken(Exception):
    """Raised inside a check's body: the contract is broken in this way."""


@dataclass
class Checklist:
    """Runs checks one by one; one that raises is a failed check, never the end of the list."""

    checks: list[Check] = field(default_factory=list)

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        """The body is one check: it fails by :func:`require` or by any exception."""
        try:
            yield
        except Broken as problem:
            self.checks.append(Check(name, False, str(problem)))
        except (Exception, SystemExit) as error:
            text = str(error).strip().split("\n")[0]
            self.checks.append(Check(name, False, f"raised {type(error).__name__}: {text}"))
        else:
            self.checks.append(Check(name, True))

    @property
    def failed(self) -> bool:
        return not all(check.ok for check in self.checks)


def require(condition: bool, message: str) -> None:
    """Broken(message) unless ``condition``."""
    if not condition:
        raise Broken(message)


def require_plain(value: Mapping[str, Any], what: str) -> None:
    """Broken unless ``value`` is a mapping that survives JSON unchanged."""
    require(isinstance(value, Mapping), f"{what} is {type(value).__name__}; return a mapping of plain data")
    plain = to_plain(value)
    text = json.loads(json.dumps(plain, allow_nan=False))
    require(text == plain, f"{what} changes when written to JSON; use strings, numbers, lists and mappings")


def failures(checks: list[Check]) -> str:
    """The failed checks as text, one per line; empty when all hold. For ``assert not failures(checks)``."""
    return "\n".join(f"{check.name}: {check.message}" for check in checks if not check.ok)
