"""``stabilitykit report RUN``: one offline HTML file about a run, or an index over a folder of runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="HTML file to write (default: RUN/report.html, or index.html in a folder of runs).",
)
@click.option(
    "--cells",
    type=click.IntRange(min=1),
    help="Cells that a report shows at most, and failed ones beside them (500); each takes about 60 kB.",
)
@click.option("--strict-plugins", is_flag=True, help="Exit 3 when any plugin fails to load.")
def command(run: Path, output: Path | None, cells: int | None, strict_plugins: bool) -> int:
    """Write one self-contained HTML file about RUN, and its charts as SVG files into RUN/figures.

    The file loads nothing from the network, and can be read without its one script, which sorts and filters; it is
    readable on a phone, in the dark and on paper. A plugin's section that fails is shown as failed with the
    distribution that ships it; the rest stands.

    Given a folder that holds runs, writes index.html there: a table of them with a link to each one's report, which
    is written where it is missing or older than the run.

    \b
    Examples:
      stabilitykit evaluate -p table2 --output runs/digits
      stabilitykit report runs/digits -o digits.html
      stabilitykit report runs
    """
    from stabilitykit.base.text import one_line
    from stabilitykit.plugins.loading import load_plugins
    from stabilitykit.reporting.index import runs_below, write_index
    from stabilitykit.reporting.page import write_report
    from stabilitykit.reporting.rundata import MOST_CELLS
    from stabilitykit.runs.folder import RUN_FILE

    host = load_plugins()
    if strict_plugins:
        host.require_healthy()
    many = run.is_dir() and not (run / RUN_FILE).exists() and bool(runs_below(run))
    path = (
        write_index(run, output, host=host) if many else write_report(run, output, host=host, most=cells or MOST_CELLS)
    )
    print(one_line(path))
    return 0
