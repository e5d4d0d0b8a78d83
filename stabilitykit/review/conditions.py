"""What two columns of a comparison differ in beside their networks: images, settings, code and machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stabilitykit.review.circumstances import CODE, MACHINE
from stabilitykit.review.comparison import CONDITIONS, Column, Unequal
from stabilitykit.review.leaves import ABSENT, Difference, differences
from stabilitykit.review.settings import DESCRIPTIONS, chosen, settings


def unequal(first: Column, other: Column) -> Iterator[Unequal]:
    """Everything in which ``other`` differs from ``first`` and that may move a number, apart from the network."""
    yield from _images(first, other)
    theirs = _settings(other)
    if subset(first) != subset(other):  # already said: the seed chose the images
        theirs["seed"] = first.record.get("seed")
    for found in differences(_settings(first), theirs):
        yield _setting(first, other, found, _words(found.path))
    for label, mine, options in _options(first, other):
        for found in differences(mine, options):
            yield _setting(first, other, found, f"option {found.path} of {label}", label)
    moved = list(_circumstances(first, other))
    if moved:
        yield Unequal(
            "code or machine",
            f"code or machine differs between {first.label} and {other.label}: {'; '.join(moved)}; that moves logits "
            "by about 1e-6 of their size, and small distances by more",
            decides=False,
        )


def subset(column: Column) -> str:
    """Which images of its dataset a column was measured on."""
    some = chosen(column.record)
    return "all images" if some is None else f"{some[0]} images chosen by seed {some[1]}"


def _images(first: Column, other: Column) -> Iterator[Unequal]:
    """N and images; other images of one dataset are another sample, which intervals allow for."""
    a, b = (c.condition("n") for c in (first, other))
    if a != b:
        yield Unequal(
            "N",
            f"N differs: {a} in {first.label}, {b} in {other.label}; a minimum falls with N: compare the rows at "
            "equal N",
            decides=False,
        )
    between = f"the images differ between {first.label} and {other.label}"
    mine, theirs = ((c.record.get("dataset") or {}) for c in (first, other))
    if mine.get("fingerprint") != theirs.get("fingerprint"):
        yield Unequal("images", f"{between}: constants of different data, look at the normalised values")
        return
    if subset(first) != subset(other):
        yield Unequal(
            "images",
            f"{between}: {subset(first)} against {subset(other)} of one dataset; a constant moves with the images it "
            "is taken over",
            decides=False,
        )
    a, b = ({k: v for k, v in one.items() if k not in DESCRIPTIONS} for one in (mine, theirs))
    for found in differences(a, b):
        yield _setting(first, other, found, f"{_words(found.path)} of the images")


def _settings(column: Column) -> dict[str, Any]:
    """All settings of a column, a tree of plain data; where a record does not mention one, its default."""
    defaults = {key: default for key, (_, default) in CONDITIONS.items()}
    return settings(defaults | dict(column.record))


def _options(first: Column, other: Column) -> Iterator[tuple[str, Any, Any]]:
    """(label, options, options) of each property that both columns have, or have in one way each."""
    mine, theirs = ({c.property: c.record.get("property") or {} for c in column.cells} for column in (first, other))
    for label, one in mine.items():
        if label in theirs:
            yield label, one.get("options"), theirs[label].get("options")
            continue
        ways = [[w for w in column.values() if w.get("name") == one.get("name")] for column in (mine, theirs)]
        if [len(w) for w in ways] == [1, 1]:
            yield str(one.get("name")), one.get("options"), ways[1][0].get("options")


def _setting(first: Column, other: Column, found: Difference, words: str, prop: str = "") -> Unequal:
    """One setting that differs; where one of the runs does not know it, nobody can say so."""
    a, b = ("not recorded" if leaf is ABSENT else leaf for leaf in (found.reported, found.recomputed))
    known = ABSENT not in (found.reported, found.recomputed)
    text = f"{words} differs: {a} in {first.label}, {b} in {other.label}"
    return Unequal(words, f"{text}; not comparable" if known else f"{text} (an older version?)", known, prop)


def _words(path: str) -> str:
    top, _, rest = path.partition(".")
    words = CONDITIONS[top][0] if top in CONDITIONS else top.replace("_", " ")
    return f"{words} ({rest})" if rest else words


def _circumstances(first: Column, other: Column) -> Iterator[str]:
    """In words, what of code and machine differs."""
    devices = [{"device": c.record.get("device")} for c in (first, other)]
    provenance = [c.info.get("provenance") or {} for c in (first, other)]
    for mine, theirs in (devices, provenance):
        for found in differences(mine, theirs):
            if found.path.startswith((*CODE, *MACHINE)):
                yield f"{found.path} {found.reported} against {found.recomputed}"
