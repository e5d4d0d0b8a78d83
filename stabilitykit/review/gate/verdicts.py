"""What a gate says: one verdict per condition and (model, dataset), with the numbers it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import GATE_CLOSED
from stabilitykit.base.results import Measurement, to_plain


class Outcome(StrEnum):
    """Of a condition: it does not hold, it holds, or nobody can tell. Only the first leaves the gate open."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Number:
    """A constant that a verdict rests on: its name, of which run (``"run"`` or ``"baseline"``), and all it claims."""

    name: str
    of: str
    measurement: Measurement

    def to_json(self) -> dict[str, Any]:
        """Plain data: name, whose, value, kind, N, unit and witness."""
        m = self.measurement
        plain: dict[str, Any] = to_plain(
            {"name": self.name, "of": self.of, "value": m.value, "kind": m.kind, "n": m.n, "unit": m.unit}
        )
        return plain | {"witness": to_plain(m.witness)}


@dataclass(frozen=True)
class Verdict:
    """One condition on one (model, dataset).

    Attributes:
        rule: the condition as it was typed, or what the rule without conditions asks.
        model, dataset: labels as in the run; empty for what concerns the whole run.
        outcome: :class:`Outcome`.
        reason: one sentence; empty where it passed and nothing has to be said.
        numbers: what it was decided on.
        notes: what has to be known of the comparison.
    """

    rule: str
    model: str
    dataset: str
    outcome: Outcome
    reason: str = ""
    numbers: Sequence[Number] = ()
    notes: Sequence[str] = ()

    @property
    def where(self) -> str:
        """``MODEL on DATASET``, or ``the run``."""
        return f"{self.model} on {self.dataset}" if self.model or self.dataset else "the run"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rule": self.rule,
            "model": self.model,
            "dataset": self.dataset,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "numbers": [number.to_json() for number in self.numbers],
            "notes": list(self.notes),
        }


@dataclass
class Judgement:
    """All verdicts on a run. The gate is open when there is one at least, and all passed."""

    run: Path
    baseline: Path | None
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """How many verdicts came out so."""
        return sum(verdict.outcome is outcome for verdict in self.verdicts)

    @property
    def is_open(self) -> bool:
        return bool(self.verdicts) and self.count(Outcome.PASSED) == len(self.verdicts)

    @property
    def exit_code(self) -> int:
        """0, or GATE_CLOSED (4)."""
        return 0 if self.is_open else GATE_CLOSED

    @property
    def summary(self) -> str:
        """``gate closed: 1 failed, 2 undecided, 5 passed``."""
        counts = ", ".join(f"{n} {o}" for o in (Outcome.FAILED, Outcome.UNDECIDED) if (n := self.count(o)))
        passed = f"{self.count(Outcome.PASSED)} passed"
        return f"gate {'open' if self.is_open else 'closed'}: {', '.join(filter(None, (counts, passed)))}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "run": str(self.run),
            "baseline": None if self.baseline is None else str(self.baseline),
            "open": self.is_open,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "notes": list(self.notes),
        }
