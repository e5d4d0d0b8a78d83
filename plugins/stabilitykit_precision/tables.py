"""Measurements and tables of the property ``precision``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stabilitykit import Kind, Measurement, Table
from stabilitykit.evaluation.context import Context
from stabilitykit_precision.decisions import NO_DECISION, Decisions
from stabilitykit_precision.measured import Measured, PartsAlone

REFERENCE = "decisions under low precision"
FLIPS = [
    "format",
    "index",
    "class",
    "was",
    "became",
    "margin_before",
    "margin_after",
    "correct_before",
    "correct_after",
]
SUMMARY = [
    "format",
    "flips",
    "share",
    "accuracy_before",
    "accuracy_after",
    "mean_change",
    "smallest_margin_flipped",
    "largest_margin_flipped",
    "scheme",
]
PARTS = ["format", "part", "name", "flips", "share", "mean_change", "of_changed", "changed"]


def measurements(context: Context, measured: Measured) -> Iterator[Measurement]:
    """``flips``, ``accuracy``, ``worst_part`` and ``main_part`` of one format."""
    format, n = measured.format, len(context.indices)
    yield Measurement(
        f"flips.{format}",
        len(measured.flipped) / n,
        Kind.EXACT,
        n,
        "share",
        _witness(context, measured),
        REFERENCE,
        note=f"{len(measured.flipped)} of {n} decisions of the whole network change; {measured.scheme}",
    )
    if _comparable(context, measured.before):
        yield Measurement(
            f"accuracy.{format}",
            measured.after.accuracy(context.labels),
            Kind.EXACT,
            n,
            "share",
            reference=REFERENCE,
            note=f"{measured.before.accuracy(context.labels):.6g} before",
        )
    if measured.parts is not None:
        yield _worst(format, measured.parts)
        yield _main(format, measured.parts, len(measured.flipped))


def _worst(format: str, parts: PartsAlone) -> Measurement:
    name, flips = parts.names[parts.worst], parts.sampled.flips[parts.worst]
    return Measurement(
        f"worst_part.{format}",
        float(flips.mean()),
        Kind.EXACT,
        len(flips),
        "share",
        {"part": parts.worst, "at": name},
        REFERENCE,
        note=f"decisions of a seeded sample that change when {name} alone runs in the format, the most of "
        f"{len(parts.names)} parts (stem, blocks, head)",
    )


def _main(format: str, parts: PartsAlone, flipped: int) -> Measurement:
    name, flips = parts.names[parts.main], parts.changed.flips[parts.main]
    if not len(flips):
        sampled = parts.sampled.flips.shape[1]
        note = "undefined: the whole network in the format changes no decision"
        return Measurement(f"main_part.{format}", None, Kind.EXACT, sampled, "share", {}, REFERENCE, note=note)
    chosen = "" if len(flips) == flipped else f", a seeded choice of {flipped}"
    return Measurement(
        f"main_part.{format}",
        float(flips.mean()),
        Kind.EXACT,
        len(flips),
        "share",
        {"part": parts.main, "at": name},
        REFERENCE,
        note=f"of {len(flips)} decisions that the whole network in the format changes{chosen}, those that {name} alone "
        f"changes, too: the most of {len(parts.names)} parts",
    )


def class_name(context: Context, number: int) -> str:
    """The class of an output, by name where the network's outputs are the dataset's classes."""
    if number == NO_DECISION:
        return "nothing (not finite)"
    if context.model.num_classes == len(context.dataset.class_names):
        return str(context.dataset.class_names[number])
    return f"output {number}"


def _comparable(context: Context, decisions: Decisions) -> bool:
    return decisions.logits.shape[1] == len(context.dataset.class_names)


def _witness(context: Context, measured: Measured) -> dict[str, Any]:
    """The flipped image that was decided most clearly."""
    if not len(measured.flipped):
        return {}
    margins = np.nan_to_num(measured.before.margins(measured.flipped), nan=-1.0)
    row = int(measured.flipped[int(np.argmax(margins))])
    return {
        **context.describe_images([int(context.indices[row])]),
        "was": class_name(context, int(measured.before.classes[row])),
        "became": class_name(context, int(measured.after.classes[row])),
        "margin_before": float(margins.max()),
    }


def summary(context: Context, found: Sequence[Measured]) -> Table:
    """One row per format."""
    rows: list[list[Any]] = []
    for m in found:
        comparable = _comparable(context, m.before)
        margins = m.before.margins(m.flipped)
        margins = margins[np.isfinite(margins)]
        rows.append(
            [
                m.format,
                len(m.flipped),
                len(m.flipped) / len(context.indices),
                m.before.accuracy(context.labels) if comparable else None,
                m.after.accuracy(context.labels) if comparable else None,
                float(m.change.mean()) if len(m.change) else None,
                float(margins.min()) if len(margins) else None,
                float(margins.max()) if len(margins) else None,
                m.scheme,
            ]
        )
    return Table(SUMMARY, rows, f"The whole network in each format, {len(context.indices)} images")


def flips(context: Context, found: Sequence[Measured]) -> Table:
    """One row per format and image whose decision changes."""
    names, rows = context.dataset.class_names, []
    for m in found:
        comparable = _comparable(context, m.before)
        margins = zip(m.before.margins(m.flipped), m.after.margins(m.flipped))
        for row, (margin, other) in zip(m.flipped, margins):
            was, became, label = int(m.before.classes[row]), int(m.after.classes[row]), int(context.labels[row])
            rows.append(
                [
                    m.format,
                    int(context.indices[row]),
                    str(names[label]),
                    class_name(context, was),
                    class_name(context, became),
                    float(margin) if np.isfinite(margin) else None,
                    float(other) if np.isfinite(other) else None,
                    was == label if comparable else None,
                    became == label if comparable else None,
                ]
            )
    return Table(FLIPS, rows, f"Every image whose decision changes; margins in {context.space}")


def parts(found: Sequence[Measured]) -> Table:
    """One row per format and part: decisions and logits of the sample, and how many of the changed it alone changes."""
    rows: list[list[Any]] = []
    sampled = 0
    for m in found:
        if m.parts is None:
            continue
        sampled = m.parts.sampled.flips.shape[1]
        for number, name in enumerate(m.parts.names):
            own, changed = m.parts.sampled.flips[number], m.parts.changed.flips[number]
            moved = m.parts.moved(number)
            mean = moved if np.isfinite(moved) else None
            rows.append(
                [m.format, number, name, int(own.sum()), float(own.mean()), mean, int(changed.sum()), len(changed)]
            )
    return Table(
        PARTS,
        rows,
        f"Each part alone in the format, the rest as it is: decisions of {sampled} sampled images, and how many of the "
        "decisions that the whole network changes",
    )


def left_in_float(found: Sequence[Measured]) -> Table:
    """Every module of which a weight or an input stays in float under int8."""
    rows = [[m.format, part.name, part.kind, part.what, part.why] for m in found for part in m.left]
    return Table(["format", "module", "class", "what", "why"], rows, "Left in float by int8")
