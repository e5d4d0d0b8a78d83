"""Axes of charts: ranges, round tick values, positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stabilitykit.base.text import BEFORE, place_text
from stabilitykit.reporting.html import number

# Characters of a name that fit between two ticks; marked numbers that have a tick beside the round ones.
LONGEST, MARKED = 12, 4


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what is shown, with its unit.
        low, high: the range, low < high; positive when ``log``.
        log: logarithmic.
        names: for categories 0, 1, ..: their names, shown instead of numbers.
        whole: ticks at whole numbers only.
        places: what stands at whole numbers, shown beside them.
        marked: whole numbers that have a tick in any case.
    """

    label: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] | None = None
    whole: bool = False
    places: Mapping[int, str] = field(default_factory=dict)
    marked: frozenset[int] = frozenset()

    @classmethod
    def over(
        cls,
        label: str,
        values: Iterable[float | None],
        *,
        log: bool | None = None,
        zero: bool = False,
        room: float = 0.06,
    ) -> Axis:
        """An axis over the finite values; ``log`` None: logarithmic when they span a factor over 50.

        ``zero``: a linear axis starts at 0. Zeros on a logarithmic axis are drawn at its lower end.
        ``room``: share of the range left free at each end.
        """
        finite = [float(v) for v in values if v is not None and math.isfinite(v)]
        positive = [v for v in finite if v > 0]
        if log is None:
            log = bool(positive) and max(positive) / min(positive) > 50 and min(finite, default=0) >= 0
        if log and positive:
            low, high = min(positive), max(positive)
            if min(finite) <= 0:
                low /= 10  # room below the smallest positive value for exact zeros
            span = max(math.log10(high / low), 0.1)
            factor = 10 ** (room * span)
            return cls(label, max(low / factor, 1e-307), min(high * factor, 1e307), True)
        low, high = min(finite, default=0.0), max(finite, default=1.0)
        if zero and low >= 0:
            return cls(label, 0.0, high * (1 + room) if high > 0 else 1.0)
        margin = room * (high - low)
        if margin < 1e-9 * max(abs(low), abs(high)) or margin == 0:
            margin = 0.1 * max(abs(low), abs(high)) or 1.0
        return cls(label, low - margin, high + margin)

    @classmethod
    def depths(cls, last: float, label: str = "depth t (blocks passed)") -> Axis:
        """Depths 0..last."""
        return cls(label, 0, max(last, 1), whole=True)

    @classmethod
    def along(
        cls, rows: Sequence[Mapping[str, Any]], key: str = "block", label: str = "depth t (blocks passed)"
    ) -> Axis:
        """Depths, or blocks, of a table's rows: their number in column ``key``, their name in ``at`` if there is one.

        Depths whose column ``blind`` is true are marked as such.
        """
        numbers = [int(float(row[key])) for row in rows]
        blind = frozenset(n for n, row in zip(numbers, rows, strict=True) if row.get("blind") is True)
        names = {n: str(row["at"]) for n, row in zip(numbers, rows, strict=True) if row.get("at") not in (None, BEFORE)}
        places = {n: place_text(n, _end_of(names.get(n, ""))) for n in numbers}
        places |= {n: f"{n} blind" for n in blind}
        return cls(label, 0, max(numbers[-1], 1), whole=True, places=places, marked=blind)

    @classmethod
    def categories(cls, label: str, names: Sequence[str]) -> Axis:
        """Positions 0..len(names)-1 under their names."""
        return cls(label, -0.6, len(names) - 0.4, names=tuple(names))

    def at(self, value: float) -> float:
        """Position in [0, 1] of a value; values outside the range land on its ends."""
        if self.log:
            if value <= 0:
                return 0.0
            place = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(max(place, 0.0), 1.0)

    def ticks(self, wanted: int = 6) -> list[tuple[float, str]]:
        """(value, text) of round values inside the range."""
        if self.names is not None:
            every = max(1, math.ceil(len(self.names) / max(wanted, 1)))
            return [(float(i), name) for i, name in enumerate(self.names) if i % every == 0]
        if self.log:
            return self._log_ticks(wanted)
        step = _round_step((self.high - self.low) / max(wanted, 1))
        if self.whole:
            step = max(step, 1.0)
        if not math.isfinite(step):
            return [(self.low, number(self.low, 2)), (self.high, number(self.high, 2))]
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        found = {k * step: number(k * step, 6) for k in range(first, last + 1)}
        found |= dict.fromkeys(sorted(self.marked)[:MARKED], "")
        return [(value, self.places.get(round(value), text)) for value, text in sorted(found.items())]

    def _log_ticks(self, wanted: int) -> list[tuple[float, str]]:
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        if last - first >= 2:
            step = max(1, math.ceil((last - first + 1) / wanted))
            return [(10.0**k, _power(k)) for k in range(first, last + 1, step)]
        found = []
        for k in range(first - 1, last + 2):
            for digit in (1, 2, 5):
                at = digit * 10.0**k
                if self.low <= at <= self.high:
                    found.append((at, number(at, 6)))
        return found or [(self.low, number(self.low, 2)), (self.high, number(self.high, 2))]


def _end_of(name: str) -> str:
    """The end of a name that is long: its number stands there."""
    return name if len(name) <= LONGEST else "…" + name[1 - LONGEST :]


def _power(k: int) -> str:
    if -3 <= k <= 3:
        return f"{10.0**k:g}"
    return "10" + str(k).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _round_step(rough: float) -> float:
    if not math.isfinite(rough):
        return math.inf
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 5, 10):
        if rough <= factor * power:
            return factor * power
    return 10 * power
