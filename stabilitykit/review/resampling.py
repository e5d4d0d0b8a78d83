"""Intervals for comparisons: the same resampled images for both sides.

A mean over images is bootstrapped. A minimum over pairs is not smooth, so a bootstrap says nothing about it. Its ratio
between two models is computed over random halves of the images, which share images and show a spread only, and over
disjoint blocks, which are independent samples: the mean of their log ratios has a confidence interval, at the blocks'
size. What was simulated of that is in benchmarks/results/coverage_intervals.md.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.review.comparison import Change, Column, Comparison, Interval

if TYPE_CHECKING:
    from stabilitykit.evaluation.context import Context
    from stabilitykit.evaluation.property import Property
    from stabilitykit.evaluation.subject import Subject

LEVEL = 0.95
# Disjoint blocks behind a test, and images that each of them holds at least.
BLOCKS = 16
SMALLEST_BLOCK = 20
MEAN = "a 95 % confidence interval of the difference of the means over all such images"
SPREAD = "the spread at N/2 = {size} over halves of these images: not a confidence interval"
BLOCK = "a 95 % confidence interval of the mean (geometric) ratio over {size} images, not over N"
RULE = "real where {neutral} lies outside {covers}, N, images and settings being equal"


@dataclass
class _Side:
    """One column with its subject built again."""

    column: Column
    subject: Subject
    properties: dict[str, tuple[Property, Context]]


def add_intervals(
    comparison: Comparison,
    *,
    subsamples: int,
    resamples: int,
    seed: int,
    cache: Path | None,
    progress: Callable[..., Iterator[Any]],
    trust: bool = False,
) -> list[str]:
    """Fill in the intervals of every column against the first; returns warnings."""
    from stabilitykit.evaluation.cache import default_cache_root
    from stabilitykit.plugins.registry import Registry

    registry = Registry.load()
    root = cache or default_cache_root()
    warnings = []
    first = _rebuild(registry, comparison.columns[0], root, progress, trust)
    try:
        for number in range(1, len(comparison.columns)):
            other = _rebuild(registry, comparison.columns[number], root, progress, trust)
            try:
                same = _same_images(first.subject, other.subject)
                if not same:
                    warnings.append(
                        f"{first.column.label} and {other.column.label} were measured over different "
                        "images: their intervals are not paired"
                    )
                _fill(comparison, number, first, other, same, subsamples, resamples, seed, progress)
            finally:
                other.subject.close()
    finally:
        first.subject.close()
    return warnings


def _rebuild(registry: Any, column: Column, cache: Path, progress: Callable[..., Iterator[Any]], trust: bool) -> _Side:
    from stabilitykit.evaluation.selection import choose
    from stabilitykit.review.rebuilding import RecordedRequest

    request = RecordedRequest.read(column.run, column.info)
    subject = request.build(registry, column.model, column.dataset, cache=cache, progress=progress, trust=trust)
    with contextlib.redirect_stdout(sys.stderr):
        recorded = (column.record.get("model") or {}).get("fingerprint")
        if recorded is not None and not subject.answers_to(recorded):
            subject.close()
            raise UsageProblem(
                f"the weights of {column.model} are no longer those of {column.run}; "
                "compare without --paired, or evaluate again"
            )
        properties = {}
        for cell in column.cells:
            if cell.ok:
                with contextlib.suppress(StabilityKitError):  # a property that is not installed any more
                    choice = choose(registry, "property", cell.property)
                    properties[cell.property] = (choice.make(), subject.context(choice, {}))
    return _Side(column, subject, properties)


def _same_images(a: Subject, b: Subject) -> bool:
    return a.dataset.fingerprint() == b.dataset.fingerprint() and np.array_equal(a.indices, b.indices)


def _fill(
    comparison: Comparison,
    number: int,
    first: _Side,
    other: _Side,
    same: bool,
    subsamples: int,
    resamples: int,
    seed: int,
    progress: Callable[..., Iterator[Any]],
) -> None:
    for label in first.properties:
        if label not in other.properties:
            continue
        (prop_a, context_a), (prop_b, context_b) = first.properties[label], other.properties[label]
        found: dict[str, Interval] = {}
        a, b = prop_a.per_image(context_a), prop_b.per_image(context_b)
        for name in a:
            if name in b:
                low, high = bootstrap_difference(a[name], b[name], paired=same, resamples=resamples, seed=seed)
                found[name] = Interval("difference", low, high, "bootstrap", resamples, same, MEAN)
        tests = dict(found)
        both = (prop_a, context_a), (prop_b, context_b)
        found |= _subsampled(*both[0], *both[1], same, subsamples, seed, progress)
        tests |= _over_blocks(*both[0], *both[1], same, seed, progress)
        obstacle = comparison.obstacle(number)
        for row in comparison.rows:
            entry = row.entries[number]
            if row.property == label and row.measurement in found and entry is not None:
                entry.interval = found[row.measurement]
                entry.change = judge(tests.get(row.measurement), obstacle)


def judge(interval: Interval | None, obstacle: str = "") -> Change:
    """Is a change real?

    Arguments:
        interval: a confidence interval of the difference or the ratio; None: there is none.
        obstacle: why the two columns cannot be compared; empty where they can.
    """
    if interval is None:
        return Change(None, f"too few images for {BLOCKS} disjoint blocks of {SMALLEST_BLOCK}, or a constant is 0")
    if obstacle:
        return Change(None, obstacle, interval)
    neutral = 1.0 if interval.of == "ratio" else 0.0
    real = not interval.low <= neutral <= interval.high
    return Change(real, RULE.format(neutral=f"{neutral:.0f}", covers=interval.covers), interval)


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, *, paired: bool, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of mean(b) - mean(a).

    Arguments:
        a, b: float64 (N,), one value per image, of equal length if ``paired``.
    """
    rng = np.random.default_rng(seed)
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    differences = np.empty(resamples)
    for k in range(resamples):
        rows = rng.integers(0, len(a), len(a))
        differences[k] = b[rows if paired else rng.integers(0, len(b), len(b))].mean() - a[rows].mean()
    return percentiles(differences)


def _subsampled(
    prop_a: Property,
    context_a: Context,
    prop_b: Property,
    context_b: Context,
    same: bool,
    count: int,
    seed: int,
    progress: Callable[..., Iterator[Any]],
) -> dict[str, Any]:
    """Ratios b / a over random halves of the images, for what the properties can recompute on a subset."""
    size = min(len(context_a.indices), len(context_b.indices)) // 2
    if size < 2 or count < 2:
        return {}
    rng = np.random.default_rng([seed, 2])
    ratios: dict[str, list[float]] = {}
    for _ in progress(range(count), f"subsamples of {size} images", count):
        rows_a = np.sort(rng.choice(len(context_a.indices), size, replace=False))
        rows_b = rows_a if same else np.sort(rng.choice(len(context_b.indices), size, replace=False))
        a, b = prop_a.on_subset(context_a, rows_a), prop_b.on_subset(context_b, rows_b)
        if not a:
            return {}
        for name in a:
            if a[name] and b.get(name) is not None:
                ratios.setdefault(name, []).append(b[name] / a[name])
    return {
        name: Interval(
            "ratio",
            *percentiles(np.array(values)),
            f"subsamples of {size} images",
            len(values),
            same,
            SPREAD.format(size=size),
        )
        for name, values in ratios.items()
        if len(values) >= 2
    }


def _over_blocks(
    prop_a: Property,
    context_a: Context,
    prop_b: Property,
    context_b: Context,
    same: bool,
    seed: int,
    progress: Callable[..., Iterator[Any]],
) -> dict[str, Interval]:
    """Ratios b / a over disjoint blocks of the images; none of a value that is 0 or undefined in a block."""
    counts = len(context_a.indices), len(context_b.indices)
    size = min(counts) // BLOCKS
    if size < SMALLEST_BLOCK:
        return {}
    orders = [np.random.default_rng([seed, 4]).permutation(count) for count in counts]
    ratios: dict[str, list[float]] = {}
    for k in progress(range(BLOCKS), f"disjoint blocks of {size} images", BLOCKS):
        rows_a, rows_b = (np.sort(order[k * size : (k + 1) * size]) for order in orders)
        a, b = prop_a.on_subset(context_a, rows_a), prop_b.on_subset(context_b, rows_b)
        for name in a:
            if a[name] and b.get(name):
                ratios.setdefault(name, []).append(float(np.log(b[name] / a[name])))
    method, covers = f"{BLOCKS} disjoint blocks of {size} images", BLOCK.format(size=size)
    return {
        name: Interval("ratio", *block_interval(np.array(values)), method, BLOCKS, same, covers)
        for name, values in ratios.items()
        if len(values) == BLOCKS
    }


def block_interval(log_ratios: np.ndarray) -> tuple[float, float]:
    """Student's interval of the mean of float64 (blocks,) log ratios, as ratios."""
    from scipy import stats

    mean, error = float(log_ratios.mean()), float(stats.sem(log_ratios))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(log_ratios) - 1)) * error
    return float(np.exp(mean - reach)), float(np.exp(mean + reach))


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of float64 (n,)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
