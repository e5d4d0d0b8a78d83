"""Sections every report has, whatever plugins are installed: they read the run folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from stabilitykit.base.results import Measurement
from stabilitykit.reporting.confusion_section import taken_for
from stabilitykit.reporting.evidence import NOTHING, numbers_of, seen_to_predict
from stabilitykit.reporting.glosses import gloss
from stabilitykit.reporting.html import (
    details,
    dotted,
    interval,
    kind_badge,
    note,
    number,
    pair_heading,
    picture,
    short,
    table,
    tag,
)
from stabilitykit.reporting.reference import place_in_words
from stabilitykit.reporting.rundata import PairData, RunData
from stabilitykit.reporting.screen import sentences
from stabilitykit.reporting.terminal import witness_images, witness_text
from stabilitykit.runs.folder import Cell

TABLE_ROWS = 60
COLUMNS = ("measurement", "value", "kind", "N", "witness", "recheck")


@dataclass(frozen=True)
class CoreSection:
    """Like a plugin's ReportSection, with the function itself."""

    name: str
    title: str
    order: int
    render: Callable[[RunData], Markup | None]


def failures(run: RunData) -> Markup | None:
    """Failed cells with what failed, who ships it, and its version."""
    rows = [
        (cell.model, cell.dataset, cell.property, cell.error.get("message", ""), cell.error.get("culprit", ""))
        for cell in run.cells
        if not cell.ok
    ]
    if not rows:
        return None
    folded = [
        details(f"traceback of {cell.property}", tag("pre", cell.error["traceback"]))
        for cell in run.cells
        if not cell.ok and cell.error.get("traceback")
    ]
    return Markup("").join(
        [
            note("The other cells stand: every cell is measured on its own."),
            table(["model", "dataset", "property", "what happened", "culprit"], rows, stacked=True),
            *folded,
        ]
    )


def words(run: RunData) -> Markup | None:
    """What was found, in plain sentences; what has to be known before any number stands first."""
    parts = []
    pairs = run.pairs
    for pair in pairs:
        said = sentences(pair.cells, pair.decisions, pair.warnings)
        if said and len(pairs) > 1:
            parts.append(run.pair_heading(pair))
        parts += [
            tag("p", tag("strong", "Warning: "), sentence.text, class_="banner")
            for sentence in said
            if sentence.warning
        ]
        plain = [tag("li", sentence.text) for sentence in said if not sentence.warning]
        if plain:
            parts.append(tag("ul", *plain, class_="said"))
        parts += _predictions(pair)
    return Markup("").join(parts) if parts else None


def _predictions(pair: PairData) -> list[Markup]:
    """What each number of the pair was seen to predict, and of which nothing is shown yet."""
    told = {name: seen_to_predict(name, readout) for name, readout in numbers_of(pair.cells)}
    shown = [(name, text) for name, text in told.items() if text != NOTHING]
    silent = [name for name, text in told.items() if text == NOTHING]
    parts = [table(("number", "seen to predict"), shown, stacked=True)] if shown else []
    if silent:
        names = Markup(", ").join(tag("code", dotted(name)) for name in silent)
        parts.append(tag("p", tag("strong", "What they predict: "), f"{NOTHING} of ", names, ".", class_="muted"))
    return parts


def summary(run: RunData) -> Markup:
    """Every measurement with its value, kind, N and witness."""
    parts = [
        note(
            "Every number says what it is: exact on the sample, a bound, or an estimate. It holds for the N "
            "images measured, with the witness beside it; a value without its N is not comparable. “Recheck” "
            "is the difference from an independent float64 recomputation."
        )
    ]
    if not run.cells:
        parts.append(note("This run holds no finished cell yet."))
    for pair in run.pairs:
        parts.append(_pair_summary(run, pair))
    return Markup("").join(parts)


def _pair_summary(run: RunData, pair: PairData) -> Markup:
    record = pair.record
    facts = [
        f"{text}{record[key]}" if key in record else ""
        for key, text in (("n", "N = "), ("readout", "readout "), ("space", ""))
    ]
    body = [row for cell in pair.cells if cell.result for row in _cell_rows(run, cell, cell.result.measurements)]
    head = tag("tr", *(tag("th", name, scope="col") for name in COLUMNS))
    shown = (
        tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_="stacked"), class_="scroll")
        if body
        else note("No finished cell.")
    )
    return Markup("").join([pair_heading(pair.model, pair.dataset, " · ".join(f for f in facts if f)), shown])


def _cell_rows(run: RunData, cell: Cell, measurements: Sequence[Measurement]) -> list[Markup]:
    """Table rows of one cell: its property, its measurements and their places among known networks, its notes."""
    rows = [tag("tr", tag("th", cell.property, colspan=len(COLUMNS), scope="colgroup"), class_="group")]
    for m in measurements:
        value = tag(
            "div",
            tag("strong", number(m.value)),
            tag("span", " ".join(p for p in (interval(m), m.unit) if p), class_="unit"),
        )
        remark = " — ".join(part for part in (m.reference, m.note, place_in_words(cell, m)) if part)
        meaning = gloss(m.name)
        name = tag(
            "div",
            tag("span", dotted(m.name), class_="name"),
            tag("span", f"{meaning[0].upper()}{meaning[1:]}.", class_="gloss") if meaning else None,
            tag("span", remark, class_="remark") if remark else None,
        )
        entries = (
            name,
            value,
            kind_badge(m.kind),
            str(m.n),
            _witness(run, cell, m),
            "" if m.recheck is None else number(m.recheck, 2),
        )
        rows.append(tag("tr", *(tag("td", entry, data_label=column) for column, entry in zip(COLUMNS, entries))))
    if cell.result is not None and cell.result.notes:
        listed = tag("ul", *(tag("li", text) for text in cell.result.notes), class_="notes")
        rows.append(tag("tr", tag("td", listed, colspan=len(COLUMNS))))
    return rows


def _witness(run: RunData, cell: Cell, m: Measurement) -> Markup | str:
    names = run.words(cell)
    text = witness_text(m.witness, names)
    indices = witness_images(m.witness).get("indices")
    if not isinstance(indices, list):
        return text
    sources = [(index, run.image(cell.dataset, index)) for index in indices[:2]]
    thumbnails = [picture(source, names.image(index), small=True) for index, source in sources if source]
    return tag("div", *thumbnails, tag("span", text), class_="witness")


def tables(run: RunData) -> Markup | None:
    """Every table of every cell, folded: readable even where the plugin that made it is gone."""
    parts = []
    alone = len(run.pairs) == 1
    for cell in run.cells:
        for name, found in (cell.result.tables if cell.result else {}).items():
            where = "" if alone else f"{short(cell.model)} on {short(cell.dataset)}, "
            heading = f"{cell.property} · {found.title or name} ({where}{len(found.rows)} rows)"
            rows = [[_plain(value) for value in row] for row in found.rows[:TABLE_ROWS]]
            parts.append(details(heading, table(found.columns, rows, total=len(found.rows))))
    return Markup("").join(parts) if parts else None


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def certificate(run: RunData) -> Markup | None:
    """Evidence that the chain of blocks is the model."""
    rows = []
    for pair in run.pairs:
        found = pair.info.get("certificate")
        if not isinstance(found, Mapping):
            continue
        for key, value in found.items():
            shown = ("yes" if value else "no") if isinstance(value, bool) else str(_plain(value))
            rows.append((short(pair.model), short(pair.dataset), str(key).replace("_", " "), shown))
    if not rows:
        return None
    return Markup("").join(
        [
            note(
                "One batch is run block by block and as a whole: is the readout after the last block the model's own "
                "output, bit for bit?"
            ),
            table(["model", "dataset", "check", "outcome"], rows),
        ]
    )


def provenance(run: RunData) -> Markup:
    """Where the numbers come from."""
    recorded = run.info.get("provenance") or {}
    request = run.info.get("request") or {}
    parts = [
        _facts(
            "Run",
            {
                "status": run.info.get("status"),
                "created": recorded.get("created"),
                "command": " ".join(map(str, recorded.get("command") or [])),
                "seed": recorded.get("seed"),
                "git": recorded.get("git"),
                "python": recorded.get("python"),
                "system": recorded.get("system"),
                **(recorded.get("device") or {}),
            },
        ),
        _facts("Request", request),
    ]
    for pair in run.pairs:
        record = pair.record
        for part in ("model", "dataset"):
            if isinstance(record.get(part), Mapping):
                parts.append(details(f"{part} {getattr(pair, part)}", _facts("", record[part])))
    packages = recorded.get("packages") or {}
    if packages:
        parts.append(details("package versions", table(["package", "version"], sorted(packages.items()))))
    plugins = [
        (p.get("name"), p.get("distribution"), p.get("version"), p.get("status"), p.get("error"))
        for p in recorded.get("plugins") or []
        if isinstance(p, Mapping)
    ]
    if plugins:
        parts.append(details("plugins", table(["plugin", "distribution", "version", "status", "error"], plugins)))
    timing = [
        (c.property, c.model, c.dataset, c.plugin.get("distribution"), c.plugin.get("version"), f"{c.seconds:.2f} s")
        for c in run.cells
    ]
    parts.append(
        details("time per cell", table(["property", "model", "dataset", "distribution", "version", "time"], timing))
    )
    return Markup("").join(parts)


def _facts(title: str, facts: Mapping[str, Any]) -> Markup:
    rows = []
    for key, value in facts.items():
        if value is None or value == "" or value == [] or value == {}:
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else _plain(value)
        rows.append(tag("div", tag("dt", key.replace("_", " ")), tag("dd", str(shown))))
    return Markup("").join([tag("h3", title) if title else "", tag("dl", *rows, class_="facts")])


SECTIONS = (
    CoreSection("words", "In plain words", 3, words),
    CoreSection("summary", "Summary", 10, summary),
    CoreSection("failures", "Failed cells", 12, failures),
    CoreSection("taken-for", "What is taken for what", 15, taken_for),
    CoreSection("tables", "All tables", 800, tables),
    CoreSection("certificate", "Certificate", 850, certificate),
    CoreSection("provenance", "Provenance", 900, provenance),
)
