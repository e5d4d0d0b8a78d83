"""The first screen: what a run found about one (model, dataset), in plain sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.results import Measurement
from stabilitykit.reporting.confusion import confused_pairs, usual_depth
from stabilitykit.reporting.reference import place_in_words
from stabilitykit.reporting.witness import Names
from stabilitykit.runs.folder import Cell

# Measurements with a meaning to this screen, whoever measured them: the closest pair of images of different classes,
# and how many decisions change in a precision format (``flips.bf16``).
CLOSEST, FLIPS = "expansive_constant.min", "flips."
# Constants whose place among the reference networks is said first.
PLACED = ("expansive_constant.max", "Sh_exact", "T_g.lower")


@dataclass(frozen=True)
class Sentence:
    """One sentence; a warning stands before all others and is marked."""

    text: str
    warning: bool = False


def sentences(cells: Sequence[Cell], decisions: Decisions | None, warnings: Sequence[str] = ()) -> list[Sentence]:
    """What is to be said first about a pair.

    Arguments:
        cells: of the pair. decisions: of the pair, if the run has them.
        warnings: of the pair, as run.json keeps them.
    """
    found = [Sentence(text, True) for text in warnings]
    names = Names(decisions)
    if decisions is not None and len(decisions):
        found += [Sentence(text) for text in (*_right(decisions), *_confused(decisions, names))]
    measured = [m for cell in cells if cell.result for m in cell.result.measurements]
    return found + [Sentence(text) for text in (*_closest(measured, names), *_flips(measured), *_placed(cells))]


def _right(decisions: Decisions) -> Iterator[str]:
    total = len(decisions)
    if not decisions.comparable:
        yield (
            f"The network has {len(decisions.outputs)} outputs and the dataset {len(decisions.classes)} classes: none "
            "of its decisions is right or wrong here."
        )
        return
    right = sum(value is True for value in decisions.correct)
    labels, outputs = (Counter(decisions.columns[name]) for name in ("label", "prediction"))
    chance = sum(labels[c] * outputs[c] for c in labels) / total**2
    yield (
        f"{right} of {total} images are recognised ({right / total:.1%}; the same decisions handed out at random: "
        f"{chance:.1%})."
    )


def _confused(decisions: Decisions, names: Names) -> Iterator[str]:
    pairs = confused_pairs(decisions)
    if not decisions.comparable:
        return
    if not pairs:
        yield "No image is taken for another class."
        return
    first = pairs[0]
    a, b = decisions.classes[first.first], decisions.classes[first.second]
    ways = f"{_images(first.forth)} of class {a} taken for {b}" + (
        f", {first.back} the other way round" if first.back else ""
    )
    depth, count = usual_depth(decisions, first.rows)
    where = f"decided {names.place(depth)}"
    if count < first.count:
        where = f"most of them, {count}, {where}" if 2 * count > first.count else f"{count} of {first.count} {where}"
    equal = sum(pair.count == first.count for pair in pairs) - 1
    more = f"; {equal} other pair{'s' if equal > 1 else ''} as often" if equal else ""
    yield f"Most often confused: {a} and {b} ({ways}; {where}{more})."


def _closest(measured: Sequence[Measurement], names: Names) -> Iterator[str]:
    for m in measured:
        indices, classes = m.witness.get("indices"), m.witness.get("classes") or ["", ""]
        if m.name != CLOSEST or m.value is None or not isinstance(indices, list) or len(indices) != 2:
            continue
        pair = " and ".join(names.image(index, str(name)) for index, name in zip(indices, classes))
        depth = m.witness.get("block")
        where = f", {names.place(depth)}" if isinstance(depth, int) else ""
        yield f"Closest images of different classes: {pair}, {m.value:.4g} apart in {m.unit}{where}."
        return


def _flips(measured: Sequence[Measurement]) -> Iterator[str]:
    for m in measured:
        if m.name.startswith(FLIPS) and m.name.count(".") == 1 and m.value is not None:
            count = round(m.value * m.n) if m.unit == "share" else round(m.value)
            changes = "decision changes" if count == 1 else "decisions change"
            yield f"In {m.name.removeprefix(FLIPS)}, {count} of {m.n} {changes}."


def _placed(cells: Sequence[Cell]) -> Iterator[str]:
    """Where the constants people ask for first stand among the reference networks of equal N, readout and space."""
    for cell in cells:
        for m in cell.result.measurements if cell.result else ():
            place = place_in_words(cell, m) if m.name in PLACED else ""
            if place:
                yield f"{m.name} {m.value:.4g}. {place}"


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
