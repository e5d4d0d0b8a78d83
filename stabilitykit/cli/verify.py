"""``stabilitykit verify RUN``: recompute the witnesses of a run in float64; exit 1 when a number does not stand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from stabilitykit.base.errors import UsageProblem


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
    default=1e-9,
    show_default=True,
    help="Relative tolerance; raise it on other hardware, where logits move by about 1e-6.",
)
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--witnesses-only",
    is_flag=True,
    help="Leave out numbers that rest on all images (accuracy, medians, "
    "lower bounds): a few batches are run instead of all.",
)
@click.option("--trust-run", is_flag=True, help="Let RUN name code to run (module:) and downloads.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bars.")
def command(
    run: Path,
    device: str,
    checkpoints: tuple[str, ...],
    places: tuple[str, ...],
    relative: float,
    output_format: str,
    witnesses_only: bool,
    trust_run: bool,
    quiet: bool,
) -> int:
    """Recompute every witness of RUN in float64 from model and data, and say which numbers stand.

    Numbers without a witness (accuracy, normalised values, bounds from below) are recomputed from all images.

    Exit 0 when every recomputed number stands, 1 when one fails, when a cell of the run had failed, or when
    nothing could be recomputed.
    """
    from stabilitykit.cli.progress import make_progress
    from stabilitykit.review.verify import verify

    if not relative >= 0:
        raise UsageProblem(f"--relative is a number >= 0; got {relative}")
    verdicts = verify(
        run,
        device=device,
        relative=relative,
        checkpoint=_named(checkpoints),
        data=_named(places),
        progress=make_progress(quiet),
        trust=trust_run,
        witnesses_only=witnesses_only,
    )
    counts = {
        status: sum(v.status == status for v in verdicts)
        for status in ("stands", "fails", "not recomputed", "failed cell")
    }
    if output_format == "json":
        print(
            json.dumps(
                {"verdicts": [{**vars(v), "difference": v.difference} for v in verdicts], "counts": counts}, indent=1
            )
        )
    else:
        _print(verdicts)
        print(", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to verify")
    if counts["stands"] == 0 and counts["fails"] == 0:
        print("no number of this run could be recomputed", file=sys.stderr)
    return 0 if counts["stands"] and not counts["fails"] and not counts["failed cell"] else 1


def _named(given: tuple[str, ...]) -> dict[str, str]:
    """``NAME=PATH`` or ``PATH`` (name "": of all); the path is what follows the last ``=``."""
    return {name: path for name, _, path in (text.rpartition("=") for text in given)}


def _print(verdicts: list) -> None:
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
