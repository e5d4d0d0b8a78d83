"""``stabilitykit report RUN``: one offline HTML file about a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="HTML file to write (default: RUN/report.html).")
@click.option("--strict-plugins", is_flag=True, help="Exit 3 when any plugin fails to load.")
def command(run: Path, output: Path | None, strict_plugins: bool) -> int:
    """Write one self-contained HTML file about RUN, and its charts as SVG files into RUN/figures.

    The file loads nothing from the network and runs no script; it is readable on a phone, in the dark and on paper.
    A plugin's section that fails is shown as failed with the distribution that ships it; the rest stands.

    \b
    Example:
      stabilitykit evaluate -p table2 --output runs/digits
      stabilitykit report runs/digits -o digits.html
    """
    from stabilitykit.base.text import one_line
    from stabilitykit.plugins.loading import load_plugins
    from stabilitykit.reporting.page import write_report

    host = load_plugins()
    if strict_plugins:
        host.require_healthy()
    print(one_line(write_report(run, output, host=host)))
    return 0
