"""``stabilitykit verify RUN``: measure a run again; exit 1 when a number does not stand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabilitykit.base.errors import UsageProblem

if TYPE_CHECKING:
    from stabilitykit.review.verdicts import Uncovered, Verdict, Verification

# Places of one kind that the table names before it says how many more there are.
NAMED = 12


@click.command("verify")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--device", default="auto", show_default=True, help="auto: the device of the run.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="[MODEL=]FILE",
    help="Where the weights are now (or other weights, to see whether the numbers hold for them).",
)
@click.option("--data", "places", multiple=True, metavar="[DATASET=]PATH", help="Where the data are now.")
@click.option(
    "--relative",
    type=float,
    default=None,
    help="Relative tolerance. Without it: none on the machine of the run, and 1e-3 (or 1e-6 absolute) on another one, "
    "where logits move by up to 1e-5.",
)
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--witnesses-only",
    is_flag=True,
    help="Recompute witnesses alone, without measuring anything again: a few batches are run instead of all.",
)
@click.option("--trust-run", is_flag=True, help="Let RUN name code to run (module:) and downloads.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def command(
    run: Path,
    device: str,
    checkpoints: tuple[str, ...],
    places: tuple[str, ...],
    relative: float | None,
    output_format: str,
    witnesses_only: bool,
    trust_run: bool,
    quiet: bool,
) -> int:
    """Measure RUN again from model and data, and say which of its numbers stand.

    Every property is measured again, searches included, and every value, witness, table row, note and record that RUN
    holds is compared, measurements.csv too: to the last bit on the machine that made the run. Witnesses are recomputed
    a second time by code that shares nothing with the searches. What is not recomputed is listed by name.

    Exit 0 when every recomputed number stands, 1 when one fails, when a cell of the run had failed, or when
    nothing could be recomputed; 2 when RUN names what cannot be built.
    """
    from stabilitykit.base.progress import display
    from stabilitykit.cli.progress import make_progress

    progress = make_progress(quiet)
    with display().waiting("loading torch"):
        from stabilitykit.review.verify import verify

    if relative is not None and not relative >= 0:
        raise UsageProblem(f"--relative is a number >= 0; got {relative}")
    found = verify(
        run,
        device=device,
        relative=relative,
        checkpoint=_named(checkpoints),
        data=_named(places),
        progress=progress,
        trust=trust_run,
        witnesses_only=witnesses_only,
    )
    counts = found.counts()
    if output_format == "json":
        print(
            json.dumps(
                {
                    "verdicts": [{**vars(v), "difference": v.difference} for v in found],
                    "counts": counts,
                    "not_recomputed": [vars(u) for u in found.uncovered],
                    "other_code": found.circumstances.other_code,
                    "other_machine": found.circumstances.other_machine,
                    "tolerance": found.circumstances.tolerance,
                },
                indent=1,
            )
        )
    else:
        _print(found.verdicts)
        for line in _about(found):
            print(line)
        print(", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to verify")
    if counts["stands"] == 0 and counts["fails"] == 0:
        print("no number of this run could be recomputed", file=sys.stderr)
    return 0 if found.ok else 1


def _about(found: Verification) -> Iterator[str]:
    """How numbers were compared, and what was not: lines for people."""
    circumstances = found.circumstances
    relative, absolute = circumstances.tolerance
    how = f"within {relative:g} relative or {absolute:g} absolute" if relative or absolute else "to the last bit"
    yield f"compared {how}"
    for what, texts in (("another machine", circumstances.other_machine), ("other code", circumstances.other_code)):
        if texts:
            more = f"; {len(texts) - 4} more" if len(texts) > 4 else ""
            yield f"made {'on' if what == 'another machine' else 'by'} {what}: {'; '.join(texts[:4])}{more}"
    yield "not recomputed:"
    for reason, places in _by_reason(found.uncovered).items():
        more = f" and {len(places) - NAMED} more (--format json names all)" if len(places) > NAMED else ""
        yield f"  {', '.join(places[:NAMED])}{more}: {reason}"


def _by_reason(uncovered: list[Uncovered]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for u in uncovered:
        found.setdefault(u.reason, []).append(f"{u.file} {u.path}".strip())
    return found


def _named(given: tuple[str, ...]) -> dict[str, str]:
    """``NAME=PATH`` or ``PATH`` (name "": of all); the path is what follows the last ``=``."""
    return {name: path for name, _, path in (text.rpartition("=") for text in given)}


def _print(verdicts: list[Verdict]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from stabilitykit.reporting.console import Console

    table = Table(title="verification", title_justify="left")
    for column in ("property", "measurement", "verdict", "reported", "recomputed", "message"):
        table.add_column(column, overflow="fold")
    colours = {"stands": "green", "fails": "red", "failed cell": "red", "not recomputed": "yellow"}
    for v in verdicts:
        table.add_row(
            escape(v.property),
            escape(v.measurement),
            f"[{colours[v.status]}]{v.status}[/]",
            "" if v.reported is None else f"{v.reported:.6g}",
            "" if v.recomputed is None else f"{v.recomputed:.6g}",
            escape(v.message),
        )
    Console(width=140).print(table)
