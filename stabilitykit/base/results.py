"""Measurements: every number says what kind it is, over how many samples, and which witness attains it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

# 3: a network is its whole course unless a run of blocks is named. 2: times stand in times.json. 1: in run.json and the
# cells.
SCHEMA_VERSION = 3
# Name of the table that says what faster extraction did to each measurement.
EXTRACTION_EFFECT = "extraction_effect"
# Name of the table that says how well trained readouts do at every depth.
READOUT_FIT = "readout_fit"


class Kind(StrEnum):
    """What a number claims to be."""

    EXACT = "exact on the sample"
    UPPER = "upper bound"
    LOWER = "lower bound"
    ESTIMATE = "estimate"


@dataclass(frozen=True)
class Measurement:
    """One number with everything needed to believe it.

    Attributes:
        name: field's term, unique within a property result, e.g. ``"expansive_constant.min"``.
        value: float64; None when the quantity is undefined (say why in ``note``). Infinity is allowed.
        kind: what the value claims (:class:`Kind`).
        n: number of images (or other samples) behind it.
        unit: ``"probability (l2)"``, ``"logit (l2)"``, ``"ratio"``...
        witness: plain JSON data that attains the value; standard keys: ``indices`` (dataset indices),
            ``classes`` (names), ``orders`` (position within their class, 0-based), ``block``
            (depth t, 0 = before any block), ``at`` (the block passed last, by name), ``distances`` (one per depth),
            ``eps``, ``delta``, ``orbit``.
        reference: source in the paper or elsewhere, e.g. ``"Definition 1"``.
        interval: (lower, upper) certified or realised bounds, if any; either side may be None.
        recheck: absolute residual of an independent float64 recomputation from the witness (0.0 = bit-equal).
        note: one sentence of caution or explanation.
    """

    name: str
    value: float | None
    kind: Kind
    n: int
    unit: str = ""
    witness: Mapping[str, Any] = field(default_factory=dict)
    reference: str = ""
    interval: tuple[float | None, float | None] | None = None
    recheck: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        for what in ("name", "unit", "reference", "note"):
            if not isinstance(getattr(self, what), str):
                raise TypeError(f"measurement {self.name!r}: {what} is text; got {getattr(self, what)!r}")
        if not isinstance(self.witness, Mapping):
            raise TypeError(f"measurement {self.name!r}: witness is a mapping; got {type(self.witness).__name__}")
        for what in ("value", "recheck"):
            number = getattr(self, what)
            if number is not None:
                object.__setattr__(
                    self, what, _number(number, f"{self.name!r}" if what == "value" else f"{self.name!r}: {what}")
                )
        if self.interval is not None:
            low, high = self.interval
            object.__setattr__(
                self,
                "interval",
                tuple(None if side is None else _number(side, f"{self.name!r}: interval") for side in (low, high)),
            )
        if int(self.n) < 0:
            raise ValueError(f"measurement {self.name!r} has n = {self.n}; expected a count >= 0")
        object.__setattr__(self, "n", int(self.n))

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = to_plain(asdict(self))
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**known)


@dataclass
class Table:
    """A small table for people: ``columns`` and rows of plain values (curves, class pairs, profiles)."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "columns": list(self.columns), "rows": to_plain([list(r) for r in self.rows])}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Table:
        return cls([str(c) for c in data["columns"]], [list(r) for r in data["rows"]], str(data.get("title", "")))


@dataclass
class PropertyResult:
    """What a Property returns.

    Attributes:
        measurements: its numbers.
        tables: small tables for people, by name.
        images: dataset indices worth showing as images.
        notes: sentences about the whole result.
        per_image: columns of ``images.csv`` by name: one number, text, bool or None for each evaluated image, a list
            or array (N,) in the order of ``context.indices``.
    """

    measurements: list[Measurement]
    tables: dict[str, Table] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    per_image: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Measurement:
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(f"no measurement {name!r}; there are {[m.name for m in self.measurements]}")

    def to_json(self) -> dict[str, Any]:
        plain = {
            "measurements": [m.to_json() for m in self.measurements],
            "tables": {name: table.to_json() for name, table in self.tables.items()},
            "images": [int(i) for i in self.images],
            "notes": list(self.notes),
        }
        columns = {str(name): _plain_column(values) for name, values in self.per_image.items()}
        return plain | {"per_image": columns} if columns else plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PropertyResult:
        return cls(
            _distinct([Measurement.from_json(m) for m in data["measurements"]]),
            {name: Table.from_json(t) for name, t in data.get("tables", {}).items()},
            [int(i) for i in data.get("images", [])],
            [str(note) for note in data.get("notes", [])],
            {str(name): _column(values) for name, values in data.get("per_image", {}).items()},
        )


def _number(value: Any, what: str) -> float:
    number = float(value)
    if math.isnan(number):
        raise ValueError(f"measurement {what} is NaN; give None and a note when it is undefined")
    return number


def _plain_column(values: Sequence[Any]) -> list[Any]:
    """A column as plain JSON; what is not a number is undefined."""
    plain: list[Any] = to_plain(list(values.tolist() if hasattr(values, "tolist") else values))
    return [None if value == "nan" else value for value in plain]


def _column(values: Any) -> list[Any]:
    """A stored column: among numbers the texts "inf" and "-inf" are numbers."""
    if not isinstance(values, list):
        raise ValueError(f"a column of per_image is a list; got {type(values).__name__}")
    kinds = set(map(type, values))
    if str not in kinds:
        return values
    numbers = bool(kinds & {int, float})
    return [float(value) if numbers and value in ("inf", "-inf") else value for value in values]


def _distinct(measurements: list[Measurement]) -> list[Measurement]:
    names = [m.name for m in measurements]
    if len(set(names)) < len(names):
        raise ValueError(f"two measurements are called {next(n for n in names if names.count(n) > 1)!r}")
    return measurements


def divide_bounds(numerator: Kind, denominator: Kind) -> Kind:
    """Kind of ``a / b`` (a >= 0, b > 0) from the kinds of a and b.

    A lower bound over an upper bound is a lower bound; anything over or under an estimate is an estimate.

    Examples:
        >>> str(divide_bounds(Kind.LOWER, Kind.UPPER)), str(divide_bounds(Kind.LOWER, Kind.LOWER))
        ('lower bound', 'estimate')
    """
    below = numerator in (Kind.LOWER, Kind.EXACT) and denominator in (Kind.UPPER, Kind.EXACT)
    above = numerator in (Kind.UPPER, Kind.EXACT) and denominator in (Kind.LOWER, Kind.EXACT)
    if below and above:
        return Kind.EXACT
    if below:
        return Kind.LOWER
    if above:
        return Kind.UPPER
    return Kind.ESTIMATE


def to_plain(value: Any) -> Any:
    """Plain JSON data: numpy scalars and arrays become numbers and lists; Inf and NaN become strings.

    Examples:
        >>> to_plain({"n": (1, 2), "value": math.inf, 3: None})
        {'n': [1, 2], 'value': 'inf', '3': None}
    """
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value) if _is_plain(value) else [to_plain(v) for v in value]
    if isinstance(value, StrEnum):
        return str(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return to_plain(value.tolist())
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    # Lone surrogates (odd file names, hostile labels) cannot be written as UTF-8.
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _is_plain(values: Collection[Any]) -> bool:
    """Are these whole and finite numbers, truth values, None or ASCII texts? Columns of a million are seen at once."""
    kinds = set(map(type, values))
    if kinds <= {int, bool, type(None)}:
        return True
    if kinds <= {int, float, bool, type(None)}:
        return all(math.isfinite(value) for value in values if type(value) is float)
    return kinds == {str} and all(map(str.isascii, values))
