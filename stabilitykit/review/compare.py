"""Runs side by side: the same constants of several models or datasets, with what makes them comparable or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.base.results import Measurement, Table
from stabilitykit.review.comparison import Column, Comparison, Entry, Row, Unequal
from stabilitykit.review.conditions import unequal
from stabilitykit.review.resampling import add_intervals
from stabilitykit.runs.folder import cells_by_pair, load_run


def compare(
    runs: Sequence[Path | str],
    *,
    paired: bool = False,
    subsamples: int = 40,
    resamples: int = 2000,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[..., Iterator[Any]] = no_progress,
    trust: bool = False,
) -> Comparison:
    """Put the measurements of ``runs`` side by side; the first (model, dataset) is what others are compared with.

    Arguments:
        paired: rebuild models and data (trajectories come from the cache where they still are) and give intervals
            over the same images of both: a bootstrap for means over images; for minima the spread of the ratio over
            halves, and a confidence interval over disjoint blocks that decides whether a change is called real.
        subsamples: how many random subsets give the interval of a minimum.
        resamples: how many bootstrap samples give that of a mean.
        cache: folder of cached trajectories; None: the user's.
        trust: with ``paired``, build also models that run code named in a run, or download.

    Raises:
        UsageProblem: fewer than two (model, dataset) pairs, a folder that is no run, or one that cannot be rebuilt.
    """
    columns = [column for run in runs for column in _columns(Path(run))]
    if len(columns) < 2:
        raise UsageProblem("compare needs at least two models or datasets: give two runs, or one with several")
    rows = _rows(columns) + _common_n(columns)
    unlike = {k: list(unequal(columns[0], column)) for k, column in enumerate(columns) if k}
    found = Comparison(columns, rows, _warnings(columns, unlike), unlike)
    if paired:
        found.warnings += add_intervals(
            found, subsamples=subsamples, resamples=resamples, seed=seed, cache=cache, progress=progress, trust=trust
        )
    return found


def _columns(path: Path) -> list[Column]:
    info, cells = load_run(path)
    groups = cells_by_pair(cells)
    if not groups:
        raise UsageProblem(f"{path} holds no finished cell; finish it with --resume")
    return [Column(path, *key, members, info) for key, members in groups.items()]


def _measurements(column: Column) -> dict[tuple[str, str], Measurement]:
    return {(c.property, m.name): m for c in column.cells if c.result for m in c.result.measurements}


def _rows(columns: Sequence[Column]) -> list[Row]:
    found = [_measurements(column) for column in columns]
    names = dict.fromkeys(name for one in found for name in one)
    rows = []
    for name in names:
        entries = [None if (m := one.get(name)) is None else Entry(m.value, str(m.kind), m.n, m.unit) for one in found]
        rows.append(Row(*name, entries))
    return rows


def _common_n(columns: Sequence[Column]) -> list[Row]:
    """Constants read off the subsample curves at the largest N that all columns reach, where their N differ."""
    curves = [_curves(column) for column in columns]
    shared = [key for key in curves[0] if all(key in one for one in curves)]
    rows = []
    for prop, reduction in shared:
        lines = [one[(prop, reduction)] for one in curves]
        ends = [max(line) for line in lines]
        common = min(ends)
        if max(ends) == common:
            continue
        entries: list[Entry | None] = []
        for line in lines:
            value, exact = _read(line, common)
            note = "" if exact else "interpolated on the subsample curve"
            entries.append(Entry(value, "estimate", common, note=note))
        rows.append(Row(prop, f"{reduction} at N = {common}", entries))
    return rows


def _curves(column: Column) -> dict[tuple[str, str], dict[int, float]]:
    """(property, reduction) -> {N: value} of tables named ``curve`` with columns N, reduction, value."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for cell in column.cells:
        table: Table | None = cell.result.tables.get("curve") if cell.result else None
        if table is None or not {"N", "reduction", "value"} <= set(table.columns):
            continue
        for row in table.rows:
            entry = dict(zip(table.columns, row))
            if entry["value"] is not None and float(entry["value"]) >= 0:
                found.setdefault((cell.property, str(entry["reduction"])), {})[int(entry["N"])] = float(entry["value"])
    return found


def _read(line: Mapping[int, float], at: int) -> tuple[float | None, bool]:
    """(value at N, whether N is a point of the curve): straight lines between points of the logarithms."""
    if at in line:
        return line[at], True
    below, above = (max((n for n in line if n < at), default=None), min((n for n in line if n > at), default=None))
    if below is None or above is None:
        return None, False
    if line[below] <= 0 or line[above] <= 0:
        return line[above], False
    share = math.log(at / below) / math.log(above / below)
    return math.exp((1 - share) * math.log(line[below]) + share * math.log(line[above])), False


def _warnings(columns: Sequence[Column], unlike: Mapping[int, Sequence[Unequal]]) -> list[str]:
    """What makes the columns incomparable, one line each."""
    found = [one.text for column in unlike.values() for one in column]
    for column in columns:
        bad = [c.property for c in column.cells if not c.ok]
        if bad:
            found.append(f"failed in {column.label}: {', '.join(bad)}")
        if column.info.get("status") not in (None, "complete"):
            found.append(f"{column.label} is not complete ({column.info.get('status')})")
    return found
