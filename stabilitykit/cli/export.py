"""``stabilitykit export RUN``: measurements for other programs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stabilitykit.base.errors import UsageProblem
from stabilitykit.runs.export import FORMATS


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "output_format", type=click.Choice([*FORMATS, "figures"]), default="csv", show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write (default: stdout); for figures a folder (default: RUN/figures).",
)
@click.option("--images", is_flag=True, help="One row per image in place of one per measurement (csv, json, parquet).")
def command(run: Path, output_format: str, output: Path | None, images: bool) -> int:
    """Write RUN's measurements as CSV, JSON, Parquet (needs the extra `parquet`) or a LaTeX table; its charts as SVG.

    With --images, what the network decided about every image, and what each property says of it.

    \b
    Examples:
      stabilitykit export runs/r18 --format latex
      stabilitykit export runs/r18 --format parquet -o r18.parquet
      stabilitykit export runs/r18 --images --format parquet -o images.parquet
      stabilitykit export runs/r18 --format figures -o figures
    """
    from stabilitykit.base.files import write_atomic
    from stabilitykit.base.text import one_line
    from stabilitykit.runs.export import export, export_images

    if output_format == "figures":
        if images:
            raise UsageProblem("--images exports rows: give --format csv, json or parquet")
        from stabilitykit.reporting.page import write_figures

        for path in write_figures(run, output):
            print(one_line(path))
        return 0
    data = export_images(run, output_format) if images else export(run, output_format)
    if output is not None:
        if output.is_dir():
            raise UsageProblem(f"{output} is a folder; give the name of a file")
        write_atomic(output, data)
        return 0
    if output_format == "parquet":
        if sys.stdout.isatty():
            raise UsageProblem("Parquet is binary; give a file with -o FILE")
        sys.stdout.buffer.write(data)
    else:
        sys.stdout.write(data.decode())
    sys.stdout.flush()
    return 0
