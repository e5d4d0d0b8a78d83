"""``stabilitykit compare RUN RUN...``: constants side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stabilitykit.base.text import csv_text

if TYPE_CHECKING:
    from stabilitykit.review.comparison import Comparison, Entry, Row

CSV_COLUMNS = (
    "property",
    "measurement",
    "column",
    "run",
    "model",
    "dataset",
    "value",
    "kind",
    "n",
    "unit",
    "ratio_to_first",
    "interval_of",
    "low",
    "high",
    "method",
    "resamples",
    "paired",
    "covers",
    "change",
    "change_low",
    "change_high",
    "rule",
    "note",
)


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--paired",
    is_flag=True,
    help="Give intervals over the same images of both runs, and say which changes are real; needs the models "
    "and data of the runs (trajectories are taken from the cache where they still are).",
)
@click.option(
    "--subsamples",
    type=click.IntRange(2),
    default=40,
    show_default=True,
    help="Random halves of the images behind the spread of minima (not a confidence interval).",
)
@click.option(
    "--resamples",
    type=click.IntRange(10),
    default=2000,
    show_default=True,
    help="Bootstrap resamples behind the intervals of means.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for trajectories.")
@click.option(
    "--format", "output_format", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True
)
@click.option("--trust-run", is_flag=True, help="With --paired: let RUNS name code to run (module:) and downloads.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def command(
    runs: tuple[Path, ...],
    paired: bool,
    subsamples: int,
    resamples: int,
    seed: int,
    cache: Path | None,
    output_format: str,
    trust_run: bool,
    quiet: bool,
) -> int:
    """Put the constants of several RUNs (or of one RUN with several models) side by side.

    The first column is what the others are compared with. A constant is a minimum over N images, so numbers of
    different N, images, readout or any other recorded setting are not comparable: a warning says so, and rows "at N =
    ..." read the subsample curves at the same N. Normalised values (divided by the median cross-class distance) compare
    different data.

    With --paired a change is called real where a 95 % confidence interval leaves out "no change": of the difference
    (means over images, bootstrap), or of the mean ratio over 16 disjoint blocks of the images (constants; at the size
    of a block, not at N). Where the images are of another dataset or a setting differs it is undecided. The spread
    over halves is no confidence interval, and decides nothing. Of 20 equal numbers about one is called real by chance.

    \b
    Examples:
      stabilitykit compare runs/r18 runs/r50
      stabilitykit compare runs/r18 runs/r50 --paired --format csv
    """
    from stabilitykit.base.progress import display
    from stabilitykit.cli.progress import make_progress

    progress = make_progress(quiet)
    with display().waiting("loading torch"):
        from stabilitykit.review.compare import compare

    found = compare(
        runs,
        paired=paired,
        subsamples=subsamples,
        resamples=resamples,
        seed=seed,
        cache=cache,
        progress=progress,
        trust=trust_run,
    )
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if output_format == "json":
        from stabilitykit.base.results import to_plain

        print(json.dumps(to_plain(found.to_json()), indent=1, ensure_ascii=False))
    elif output_format == "csv":
        sys.stdout.write(_csv(found))
    else:
        _print(found)
    return 0


def _csv(found: Comparison) -> str:
    lines: list[dict[str, Any]] = []
    for row in found.rows:
        for number, (column, entry) in enumerate(zip(found.columns, row.entries)):
            if entry is None:
                continue
            line: dict[str, Any] = {
                "property": row.property,
                "measurement": row.measurement,
                "column": number + 1,
                "run": str(column.run),
                "model": column.model,
                "dataset": column.dataset,
                "value": entry.value,
                "kind": entry.kind,
                "n": entry.n,
                "unit": entry.unit,
                "ratio_to_first": row.ratio(number) if number else None,
                "note": entry.note,
            }
            if entry.interval is not None:
                i = entry.interval
                line |= {
                    "interval_of": i.of,
                    "low": i.low,
                    "high": i.high,
                    "method": i.method,
                    "resamples": i.resamples,
                    "paired": i.paired,
                    "covers": i.covers,
                }
            if entry.change is not None:
                c = entry.change
                line |= {"change": c.words, "rule": c.rule}
                if c.interval is not None:
                    line |= {"change_low": c.interval.low, "change_high": c.interval.high}
            lines.append(line)
    return csv_text(CSV_COLUMNS, lines)


def _print(found: Comparison) -> None:
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from stabilitykit.reporting.console import Console

    console = Console(width=max(140, 60 + 34 * len(found.columns)))
    for number, column in enumerate(found.columns, 1):
        console.print(f"[bold]({number})[/bold] {escape(column.label)}", highlight=False)
    table = Table(title="comparison", title_justify="left")
    for name in ("property", "measurement"):
        table.add_column(name, overflow="fold")
    for number in range(1, len(found.columns) + 1):
        table.add_column(f"({number})", overflow="fold")
    before = ""
    for row in found.rows:
        table.add_row(
            escape(row.property) if row.property != before else "",
            escape(row.measurement),
            *(Text.from_markup(_text(row, number, entry)) for number, entry in enumerate(row.entries)),
        )
        before = row.property
    console.print(table)
    said = [e.interval.covers for r in found.rows for e in r.entries if e is not None and e.interval is not None]
    said += [e.change.rule for r in found.rows for e in r.entries if e is not None and e.change is not None]
    for text in dict.fromkeys(filter(None, said)):
        console.print(f"- {escape(text)}", highlight=False)


def _text(row: Row, number: int, entry: Entry | None) -> str:
    from stabilitykit.reporting.terminal import format_value

    if entry is None:
        return "-"
    text = f"{format_value(entry.value)} [dim]{entry.kind}, N {entry.n}[/dim]"
    ratio = row.ratio(number) if number else None
    if ratio is not None:
        text += f"\nx {ratio:.3g}"
    if entry.interval is not None:
        i = entry.interval
        pairing = "" if i.paired else ", unpaired"
        text += f"\n{i.of} \\[{i.low:.3g}, {i.high:.3g}] [dim]{i.method}{pairing}[/dim]"
    if entry.change is not None:
        c, tested = entry.change, ""
        if c.interval is not None and c.interval != entry.interval:
            tested = f", {c.interval.of} \\[{c.interval.low:.3g}, {c.interval.high:.3g}] [dim]{c.interval.method}[/dim]"
        text += f"\nchange {c.words}{tested}"
    return text
