"""Results on a terminal: a table in which every number says its kind, its N and its witness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.results import EXTRACTION_EFFECT, READOUT_FIT, Measurement
from stabilitykit.base.text import place_text
from stabilitykit.reporting.screen import sentences
from stabilitykit.reporting.witness import Names
from stabilitykit.runs.folder import Cell, cells_by_pair

# Cells of one model and dataset whose measurements are printed.
MOST_CELLS = 200


def format_value(value: float | None) -> str:
    """Four significant digits, enough to compare; files hold all of them."""
    return "undefined" if value is None else f"{value:.4g}"


def witness_images(witness: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a witness that names images (``indices``): itself, or the first of its orbits that does."""
    if witness.get("indices"):
        return witness
    return next((part for part in witness.values() if isinstance(part, Mapping) and part.get("indices")), witness)


def witness_text(witness: Mapping[str, Any], words: Names | None = None) -> str:
    """One line about a witness: ``4 #171 (image 1234, recognised) ~ 6 #37 (image 5, taken for 0), at block 3``.

    Arguments:
        words: what images are taken for, and names of blocks; None: unknown.
    """
    words = words or Names()
    named = witness_images(witness)
    indices = named.get("indices")
    parts = []
    if indices:
        classes = named.get("classes") or [""] * len(indices)
        orders = named.get("orders") or [None] * len(indices)
        names = [
            f"{c} #{o} ({', '.join(filter(None, (f'image {i}', words.taken(i))))})"
            if o is not None
            else words.image(i, str(c))
            for i, c, o in zip(indices[:3], classes, orders)
        ]
        parts.append(" ~ ".join(names) + (" ..." if len(indices) > 3 else ""))
    if witness.get("block") is not None and witness.get("block") != -1:
        at = witness.get("at", words.block(witness["block"]))
        parts.append(f"at block {place_text(witness['block'], at)}")
    elif isinstance(witness.get("depth"), int):
        parts.append(f"at depth {place_text(witness['depth'], witness.get('at'))}")
    for key in ("eps", "delta"):
        if isinstance(witness.get(key), (int, float)):
            parts.append(f"{key} {witness[key]:.4g}")
    if isinstance(witness.get("perturbation"), str):
        parts.append(witness["perturbation"])
    return ", ".join(parts or [text for key, value in list(witness.items())[:4] if (text := _plain_text(key, value))])


def _plain_text(key: str, value: Any) -> str:
    """What is not an image: a number, another measurement (``{"name", "value", "kind"}``), a long state."""
    if isinstance(value, Mapping) and isinstance(value.get("value"), (int, float)):
        return f"{value.get('name', key)} {value['value']:.4g} ({value.get('kind', '')})"
    if isinstance(value, list) and value and all(isinstance(v, (int, float)) for v in value):
        return f"{key} of {len(value)} numbers"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ""
    return f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"


def interval_text(measurement: Measurement) -> str:
    """``[lower, upper]`` or nothing."""
    if measurement.interval is None:
        return ""
    low, high = measurement.interval
    return f" [{'-' if low is None else format_value(low)}, {'-' if high is None else format_value(high)}]"


def digits_text(measurement: Measurement) -> str:
    """``(2 digits)`` where a number has fewer trustworthy ones than are shown; else nothing."""
    count = measurement.witness.get("digits")
    if not isinstance(count, int):
        return ""
    return f" ({count} digit{'' if count == 1 else 's'})"


def _effects(cell: Cell) -> dict[str, str]:
    """What faster extraction did to each measurement on the images where both ways were run, relative where it can."""
    table = cell.result.tables.get(EXTRACTION_EFFECT) if cell.result else None
    found = {}
    for name, before, _, difference in table.rows if table else ():
        usable = isinstance(before, float) and isinstance(difference, (int, float))
        found[str(name)] = "" if not usable else f"{difference / abs(before):+.1%}" if before else f"{difference:+.3g}"
    return found


def _entry(value: Any) -> str:
    return format_value(value) if isinstance(value, float) else "" if value is None else str(value)


def print_cells(
    cells: Sequence[Cell],
    *,
    width: int | None = None,
    decisions: Mapping[tuple[str, str], Decisions] | None = None,
    warnings: Mapping[tuple[str, str], Sequence[str]] | None = None,
) -> None:
    """On stdout, for every (model, dataset): what was found, in sentences, and a table; failed cells as red lines.

    Arguments:
        decisions, warnings: of each (model, dataset), as the run folder keeps them.
    """
    from rich.markup import escape
    from rich.table import Table

    from stabilitykit.reporting.console import Console

    console = Console(width=width or 140)
    for (model, dataset), members in cells_by_pair(cells).items():
        known = (decisions or {}).get((model, dataset))
        words = Names(known)
        said = sentences(members, known, (warnings or {}).get((model, dataset), ()))
        if said:
            console.print(f"[bold]{escape(model)} on {escape(dataset)}[/bold]", highlight=False)
        for sentence in said:
            mark = "[bold yellow]WARNING:[/bold yellow] " if sentence.warning else ""
            console.print(f"  {mark}{escape(sentence.text)}", highlight=False)
        table = Table(title=f"{escape(model)} on {escape(dataset)}", title_justify="left", show_lines=False)
        effects = {cell.property: _effects(cell) for cell in members}
        shown = ["effect of extraction"] if any(effects.values()) else []
        for column in ("property", "measurement", "value", "kind", "N", *shown, "witness"):
            table.add_column(
                column,
                justify="right" if column in ("value", "N") else "left",
                overflow="fold" if column == "witness" else "ellipsis",
                no_wrap=column != "witness",
            )
        for cell in members[:MOST_CELLS]:
            for number, m in enumerate(cell.result.measurements if cell.result else ()):
                table.add_row(
                    escape(cell.property) if number == 0 else "",
                    escape(m.name),
                    format_value(m.value) + interval_text(m) + digits_text(m),
                    str(m.kind),
                    str(m.n),
                    *(effects[cell.property].get(m.name, "") for _ in shown),
                    escape(witness_text(m.witness, words) or (m.note if m.value is None else "")),
                )
        if table.row_count:
            console.print(table)
        if len(members) > MOST_CELLS:
            console.print(f"the first {MOST_CELLS} of {len(members)} cells; all of them are in measurements.csv")
        fit = next((c.result.tables[READOUT_FIT] for c in members if c.result and READOUT_FIT in c.result.tables), None)
        if fit is not None:
            shown_fit = Table(*map(escape, fit.columns), title=escape(fit.title), title_justify="left")
            for row in fit.rows:
                shown_fit.add_row(*(escape(_entry(value)) for value in row))
            console.print(shown_fit)
        for cell in members:
            if not cell.ok:
                console.print(
                    f"[red]failed[/red] {escape(cell.property)}: {escape(cell.error['message'])} "
                    f"[dim]({escape(cell.error['culprit'])})[/dim]",
                    highlight=False,
                )
