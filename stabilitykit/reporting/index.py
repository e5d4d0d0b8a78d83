"""One page over a folder of runs: what was measured where, its headline numbers, and a link to each report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from stabilitykit import __version__
from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.base.files import remove_leftovers, write_atomic
from stabilitykit.plugins.loading import PluginHost, load_plugins
from stabilitykit.reporting.html import short, table, tag
from stabilitykit.reporting.page import REPORT_FILE, filled, write_run
from stabilitykit.reporting.rundata import PairData, RunData
from stabilitykit.runs.folder import RUN_FILE

INDEX_FILE = "index.html"
DEEPEST = 3
"""Folders below the given one that are looked into."""
FIXED = ("run", "created", "status", "network", "dataset", "N")


@dataclass(frozen=True)
class _Row:
    """One (network, dataset) of one run: the fixed columns, then headline numbers by their names."""

    fixed: tuple[object, ...]
    numbers: dict[str, float | None]


def runs_below(folder: Path) -> list[Path]:
    """Run folders in ``folder``, at most :data:`DEEPEST` levels down, sorted; links are not followed."""

    def walk(at: Path, left: int) -> Iterator[Path]:
        for child in sorted(at.iterdir()):
            if child.is_symlink() or not child.is_dir():
                continue
            if (child / RUN_FILE).is_file():
                yield child
            elif left > 1:
                yield from walk(child, left - 1)

    return list(walk(folder, DEEPEST))


def write_index(folder: Path, output: Path | None = None, *, host: PluginHost | None = None) -> Path:
    """Write the page over all runs below ``folder``, and the report of each run that has none newer than its numbers.

    Arguments:
        folder: holds run folders.
        output: the HTML file; default ``index.html`` in ``folder``.

    Returns:
        the path of the HTML file. A run that cannot be read is named on standard error and left out.

    Raises:
        UsageProblem: no run below ``folder``, or ``output`` is a folder.
    """
    path = folder / INDEX_FILE if output is None else Path(output)
    if path.is_dir():
        raise UsageProblem(f"{path} is a folder; give the name of an HTML file")
    host = load_plugins() if host is None else host
    rows: list[_Row] = []
    for run_folder in runs_below(folder):
        try:
            run = RunData.read(run_folder)
            report = run_folder / REPORT_FILE
            if not report.exists() or report.stat().st_mtime < (run_folder / RUN_FILE).stat().st_mtime:
                write_run(run, host=host)
            rows += _rows(folder, path, run)
        except (StabilityKitError, OSError) as error:
            print(f"warning: {run_folder} is left out: {error}", file=sys.stderr)
    if not rows:
        raise UsageProblem(f"{folder} is no run and holds none; give a folder written by evaluate, or one above such")
    names = list(dict.fromkeys(name for row in rows for name in row.numbers))
    columns = [*FIXED, *names]
    listed = [[*row.fixed, *(row.numbers.get(name) for name in names)] for row in rows]
    count = len({row.fixed[0] for row in rows})
    page = filled(
        "index.html.j2",
        title=f"{count} run{'' if count == 1 else 's'}",
        table=table(columns, listed),
        version=__version__,
    )
    remove_leftovers(path.parent, path.name)
    write_atomic(path, page)
    return path


def _rows(folder: Path, page: Path, run: RunData) -> Iterator[_Row]:
    name = run.path.relative_to(folder).as_posix()
    report = run.path / REPORT_FILE
    link = tag("a", name, href=quote(Path(os.path.relpath(report, page.parent)).as_posix()))
    created = str(run.info.get("provenance", {}).get("created", ""))[:16]
    for pair in run.pairs:
        count = pair.record.get("n")
        yield _Row((link, created, run.info["status"], short(pair.model), short(pair.dataset), count), _headline(pair))
    if not run.pairs:
        yield _Row((link, created, run.info["status"], "", "", None), {})


def _headline(pair: PairData) -> dict[str, float | None]:
    """Accuracy, and the first number of every property: each puts its headline first."""
    found: dict[str, float | None] = {}
    if pair.decisions is not None and pair.decisions.comparable and len(pair.decisions):
        found["accuracy"] = sum(value is True for value in pair.decisions.correct) / len(pair.decisions)
    for cell in pair.cells:
        for m in (cell.result.measurements if cell.result else [])[:1]:
            found.setdefault(m.name, m.value)
    return found
