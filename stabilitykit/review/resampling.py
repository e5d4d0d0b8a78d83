"""Intervals for comparisons: the same resampled images for both sides.

A mean over images is bootstrapped. A minimum over pairs is not smooth, so a bootstrap says nothing about it. Its ratio
between two models is computed over random halves of the images, which share images and show a spread only, and over
disjoint blocks, which are independent samples: the mean of their log ratios has a confidence interval, at the blocks'
size. What was simulated of that is in benchmarks/results/coverage_intervals.md.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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
# Fewer images that differ, all in one direction, are what chance gives once in twenty (the sign test: 2 / 2^6 < 0.05).
FEWEST = 6
MEAN = "a 95 % confidence interval of the difference of the means over all such images"
FEW = f"a range: fewer than {FEWEST} images make the difference, too few for a confidence interval"
SPREAD = "the spread at N/2 = {size} over halves of these images: not a confidence interval"
BLOCK = "a 95 % confidence interval of the mean (geometric) ratio over {size} such images, not over N"
RULE = "real where {neutral} lies outside {covers}; settings and source of the images are equal"


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
    """Intervals and verdicts of column ``number``; of a constant the spread is shown, and the blocks decide."""
    for label in (label for label in first.properties if label in other.properties):
        both = Both(first.properties[label], other.properties[label], same, seed, progress)
        shown = tests = both.means(resamples)
        shown, tests = shown | both.spread(subsamples), tests | both.over_blocks()
        obstacle = comparison.obstacle(number, label)
        for row in comparison.rows:
            entry = row.entries[number]
            if row.property == label and row.measurement in shown and entry is not None:
                entry.interval = shown[row.measurement]
                entry.change = judge(tests.get(row.measurement), obstacle)


@dataclass
class Both:
    """One property of two columns, over the same images (``same``) or over other ones."""

    first: tuple[Property, Context]
    other: tuple[Property, Context]
    same: bool
    seed: int
    progress: Callable[..., Iterator[Any]]

    def means(self, resamples: int) -> dict[str, Interval]:
        """Differences of means over images."""
        a, b = (prop.per_image(context) for prop, context in (self.first, self.other))
        return {
            name: of_means(a[name], b[name], paired=self.same, resamples=resamples, seed=self.seed)
            for name in a
            if name in b
        }

    def spread(self, count: int) -> dict[str, Interval]:
        """Ratios over random halves of the images."""
        size = min(self._counts()) // 2
        if size < 2:
            return {}
        rng = np.random.default_rng([self.seed, 2])

        def draw() -> list[np.ndarray]:
            return [rng.choice(n, size, replace=False) for n in self._counts()[: 1 if self.same else 2]]

        method, covers = f"subsamples of {size} images", SPREAD.format(size=size)
        found = self._ratios((draw() for _ in range(count)), method, count)
        return {
            name: Interval("ratio", *percentiles(np.array(values)), method, len(values), self.same, covers)
            for name, values in found.items()
            if len(values) >= 2
        }

    def over_blocks(self) -> dict[str, Interval]:
        """Mean ratios over disjoint blocks of the images; none of a value that is 0 or undefined in a block."""
        size = min(self._counts()) // BLOCKS
        if size < SMALLEST_BLOCK:
            return {}
        orders = [np.random.default_rng([self.seed, 4]).permutation(n) for n in self._counts()]
        method, covers = f"{BLOCKS} disjoint blocks of {size} images", BLOCK.format(size=size)
        blocks = ([order[k * size : (k + 1) * size] for order in orders] for k in range(BLOCKS))
        return {
            name: Interval("ratio", *block_interval(np.array(values)), method, BLOCKS, self.same, covers, True)
            for name, values in self._ratios(blocks, method, BLOCKS).items()
            if len(values) == BLOCKS and min(values) > 0
        }

    def _counts(self) -> tuple[int, int]:
        return len(self.first[1].indices), len(self.other[1].indices)

    def _ratios(self, draws: Iterable[Sequence[np.ndarray]], what: str, count: int) -> dict[str, list[float]]:
        """Other / first by measurement over each draw: rows of the first, and of the other if not the same."""
        found: dict[str, list[float]] = {}
        for rows in self.progress(draws, what, count):
            pairs = zip((self.first, self.other), (rows[0], rows[-1]))
            a, b = (prop.on_subset(context, np.sort(part)) for (prop, context), part in pairs)
            if not a:
                return {}
            for name in a:
                if a[name] and b.get(name) is not None:
                    found.setdefault(name, []).append(b[name] / a[name])
        return found


def judge(interval: Interval | None, obstacle: str = "") -> Change:
    """Is a change real?

    Arguments:
        interval: of the difference or the ratio; None: there is none.
        obstacle: why the two columns cannot be compared; empty where they can.
    """
    if interval is None:
        return Change(None, f"too few images for {BLOCKS} disjoint blocks of {SMALLEST_BLOCK}, or a constant is 0")
    if obstacle:
        return Change(None, obstacle, interval)
    if not interval.confidence:
        return Change(False, interval.covers, interval)
    neutral = 1.0 if interval.of == "ratio" else 0.0
    real = not interval.low <= neutral <= interval.high
    return Change(real, RULE.format(neutral=f"{neutral:.0f}", covers=interval.covers), interval)


def of_means(a: np.ndarray, b: np.ndarray, *, paired: bool, resamples: int, seed: int) -> Interval:
    """Interval of mean(b) - mean(a), by the bootstrap.

    Arguments:
        a, b: float64 (N,), one value per image, of equal length if ``paired``.
    """
    low, high = bootstrap_difference(a, b, paired=paired, resamples=resamples, seed=seed)
    # Unpaired, a value that nearly all images share says as little as images that do not differ.
    few = (
        np.count_nonzero(a != b) if paired else max(len(x) - np.unique(x, return_counts=True)[1].max() for x in (a, b))
    )
    enough = bool(few >= FEWEST)
    return Interval("difference", low, high, "bootstrap", resamples, paired, MEAN if enough else FEW, enough)


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


def block_interval(ratios: np.ndarray) -> tuple[float, float]:
    """Student's interval of the geometric mean of float64 (blocks,) positive ratios."""
    from scipy import stats

    logs = np.log(ratios)
    mean, error = float(logs.mean()), float(stats.sem(logs))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1)) * error
    return float(np.exp(mean - reach)), float(np.exp(mean + reach))


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of float64 (n,)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
