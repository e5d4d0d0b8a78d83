"""What two columns of a comparison differ in beside their models: images, readouts, settings, machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stabilitykit.review.comparison import CONDITIONS, Column
from stabilitykit.review.leaves import differences

# Settings of a whole run that stand in its request, not in the records of cells.
REQUESTED = {"any_classes": "any classes", "uncertified": "uncertified", "probe_dataset": "probe dataset"}


@dataclass(frozen=True)
class Unequal:
    """Something in which two columns differ.

    Attributes:
        what: in a word or two.
        text: the warning.
        decides: whether a change between the columns can then not be told from what differs.
    """

    what: str
    text: str
    decides: bool = True


def unequal(first: Column, other: Column) -> Iterator[Unequal]:
    """Everything in which ``other`` differs from ``first`` and that may move a number."""
    between = f"between {first.label} and {other.label}"
    for key, (words, _) in CONDITIONS.items():
        a, b = first.condition(key), other.condition(key)
        if a != b:
            consequence = "a minimum falls with N: compare the rows at equal N" if key == "n" else "not comparable"
            yield Unequal(words, f"{words} differs: {a} in {first.label}, {b} in {other.label}; {consequence}")
    a, b = ((c.record.get("dataset") or {}).get("fingerprint") for c in (first, other))
    if a != b:
        yield Unequal(
            "images", f"the images differ {between}: constants of different data, look at the normalised values"
        )
    elif subset(first) != subset(other):
        yield Unequal(
            "images",
            f"the images differ {between}: {subset(first)} against {subset(other)} of one dataset; a constant moves "
            "with the images it is taken over",
        )
    for what, mine, theirs in _settings(first, other):
        for found in differences(mine, theirs):
            path = f"{what} ({found.path})" if found.path else what
            yield Unequal(path, f"{path} differs {between}: {found.reported} against {found.recomputed}")
    for what, mine, theirs in _machines(first, other):
        for found in differences(mine, theirs):
            path = f"{what} {found.path}".strip()
            yield Unequal(
                path,
                f"{path} differs {between}: {found.reported} against {found.recomputed}; that moves logits by about "
                "1e-6 of their size, and small distances by more",
                decides=False,
            )


def subset(column: Column) -> str:
    """Which images of its dataset a column was measured on."""
    record = column.record
    size = (record.get("dataset") or {}).get("size")
    if record.get("limit") is None or record.get("n") == size:
        return "all images"
    return f"{record.get('n')} images chosen by seed {record.get('seed')}"


def _settings(first: Column, other: Column) -> Iterator[tuple[str, Any, Any]]:
    """(name, value in ``first``, value in ``other``) of what was set, where both columns mention it."""
    for what, part, key in (("preprocessing", "model", "preprocessing"), ("transforms", "dataset", "transforms")):
        mine, theirs = ((c.record.get(part) or {}).get(key) for c in (first, other))
        yield what, mine, theirs
    if subset(first) == subset(other):  # else the warning about images names the seeds
        yield "seed", first.record.get("seed"), other.record.get("seed")
    requests = [c.info.get("request") or {} for c in (first, other)]
    for key, words in REQUESTED.items():
        if all(key in request for request in requests):
            yield words, requests[0][key], requests[1][key]
    options = [_options(column) for column in (first, other)]
    for name in options[0]:
        if name in options[1]:
            yield f"options of {name}", options[0][name], options[1][name]


def _options(column: Column) -> dict[str, Mapping[str, Any]]:
    """Options by property; by label where a property was measured in several ways."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for cell in column.cells:
        record = cell.record.get("property")
        if isinstance(record, Mapping) and "options" in record:
            found.setdefault(str(record.get("name")), []).append((cell.property, record["options"]))
    named = {name: ways[0][1] for name, ways in found.items() if len(ways) == 1}
    return named | {label: options for ways in found.values() if len(ways) > 1 for label, options in ways}


def _machines(first: Column, other: Column) -> Iterator[tuple[str, Any, Any]]:
    yield "device", first.record.get("device"), other.record.get("device")
    provenance = [c.info.get("provenance") or {} for c in (first, other)]
    if provenance[0] is not provenance[1] and all("packages" in p for p in provenance):
        mine, theirs = ({name: p["packages"].get(name) for name in ("stabilitykit", "torch")} for p in provenance)
        yield "version of", mine, theirs
