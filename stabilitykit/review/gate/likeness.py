"""May two numbers be compared? What differs in kind, N, images or settings, from the records of their cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stabilitykit.base.results import Measurement
from stabilitykit.review.leaves import ABSENT, differences
from stabilitykit.review.settings import DESCRIPTIONS, chosen, part, settings
from stabilitykit.runs.folder import Cell

What = Literal["kind", "n", "images", "settings"]
WHATS: tuple[What, ...] = ("kind", "n", "images", "settings")
# What repeats the fingerprint of the images, beside where they lie.
REPEATED = DESCRIPTIONS | {"fingerprint", "size"}


@dataclass(frozen=True)
class Unlike:
    """Something that makes two numbers incomparable: what it is, and a sentence about it."""

    what: What
    text: str


def unlike(mine: tuple[Cell, Measurement], other: tuple[Cell, Measurement]) -> Iterator[Unlike]:
    """Everything in which a number differs from the baseline's (``other``) beside its network and its value."""
    (cell, m), (base, b) = mine, other
    if m.kind is not b.kind:
        yield Unlike("kind", f"kind differs: {m.kind}, in the baseline {b.kind}")
    if m.unit != b.unit:
        yield Unlike("kind", f"unit differs: {m.unit or 'none'}, in the baseline {b.unit or 'none'}")
    if m.n != b.n:
        yield Unlike("n", f"N differs: {m.n}, in the baseline {b.n}")
    yield from _images(cell.record, base.record)
    for found in differences(_settings(base.record), _settings(cell.record)):
        was, now = ("not recorded" if leaf is ABSENT else leaf for leaf in (found.reported, found.recomputed))
        yield Unlike("settings", f"{found.path} differs: {now}, in the baseline {was}")


def said(cell: Cell, base: Cell) -> Iterator[str]:
    """What differs and moves numbers by rounding only: machine and version."""
    for key in ("device", "threads"):
        if cell.record.get(key) != base.record.get(key):
            yield f"{key} differs: {cell.record.get(key)}, in the baseline {base.record.get(key)}"
    if cell.plugin.get("version") != base.plugin.get("version"):
        yield f"measured by version {cell.plugin.get('version')}, the baseline by {base.plugin.get('version')}"


def _images(mine: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Unlike]:
    a, b = (part(record, "dataset") for record in (mine, other))
    if a.get("fingerprint") is None or a.get("fingerprint") != b.get("fingerprint"):
        known = a.get("fingerprint") and b.get("fingerprint")
        yield Unlike(
            "images", "the images are not the baseline's" if known else "nobody recorded which images these are"
        )
    elif _subset(mine) != _subset(other):
        yield Unlike("images", f"the images are {_subset(mine)}, in the baseline {_subset(other)}")


def _subset(record: Mapping[str, Any]) -> str:
    some = chosen(record)
    return "all" if some is None else f"{some[0]} chosen by seed {some[1]}"


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    images = {key: value for key, value in part(record, "dataset").items() if key not in REPEATED}
    return settings(record) | {"images": images, "options": part(record, "property").get("options")}
