"""A constant over N images extrapolated to a larger N, from the constants of disjoint blocks of the sample.

The smallest of P independent distances whose distribution starts as a power, P(d <= x) ~ c x^k, is a Weibull variable:
it exceeds x with probability exp(-c P x^k). With P growing as N^2 the constant falls as N^(-2/k), and its logarithm
scatters about that line by 1.28/k: spread and slope are one parameter. Blocks of the sample (halves of halves) show
both. A block's closest pair either joins its two halves, or is the closest pair of one of them and only says that no
pair between the halves is closer; so every block tells of pairs that no other one of its cut has looked at.
(scipy.stats.weibull_min fits censored data too, but one scale for all of it; here each block has its own P.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stabilitykit.search import ClosestPair, closest_pair

# Quarters still fall as the whole sample does; eighths bend the law (see benchmarks/results/coverage_intervals.md).
LEVELS = 2
CUTS = 4
# Images below which a quarter of the sample is too small to say how the whole one falls.
SMALLEST = 1000
# A constant falls faster where readouts saturate: the law does not hold there, and intervals hold too seldom.
STEEPEST = 0.5
# The fall slows down on the way to a larger N; the upper end of the interval allows for so much of it.
SLOWER = 0.15
LEVEL = 0.95
# Simulated samples behind the interval's quantiles, and the closest pairs drawn for each of them.
SIMULATED = 2_000
ARRIVALS = 160


@dataclass(frozen=True)
class Block:
    """What one block of the sample says.

    Attributes:
        value: its constant.
        pairs: pairs of different class in it that lie in no half of it (a smallest block: all its pairs).
        own: whether one of those is the closest; else ``value`` is a bound that they exceed.
    """

    value: float
    pairs: int
    own: bool


@dataclass(frozen=True)
class Law:
    """Of P pairs none is closer than x with probability exp(-exp(log_rate) P x^shape)."""

    shape: float
    log_rate: float

    @property
    def exponent(self) -> float:
        """a, where the constant falls as N^-a."""
        return 2.0 / self.shape

    def log_scale(self, pairs: float) -> float:
        """Logarithm of the distance below which one of ``pairs`` pairs is expected."""
        return -(float(np.log(pairs)) + self.log_rate) / self.shape


@dataclass(frozen=True)
class Simulated:
    """Samples of one pair under the law of shape 1 and log rate 0: what was fitted to each, and a new constant.

    Shape and scale transform with the distances. So shape times (log of a new sample's constant - foretold log scale)
    is distributed alike whatever the true law is, and its quantiles here are those of any sample.

    Attributes:
        shapes, log_rates, fresh: float64 (S,).
    """

    shapes: np.ndarray
    log_rates: np.ndarray
    fresh: np.ndarray

    def quantiles(self, factor: float) -> np.ndarray:
        """Low, middle and high error, in units of 1/shape, where the new sample has ``factor`` times the pairs."""
        errors = np.log(self.fresh / factor) * self.shapes + np.log(factor) + self.log_rates
        return np.quantile(errors, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])


def halves(count: int, seed: int, cut: int) -> list[list[np.ndarray]]:
    """A random cut of ``range(count)`` into halves and these into halves.

    Returns:
        Per level 0, 1, 2 the rows, int64 ascending, of its 1, 2, 4 blocks, which are disjoint and make up the sample;
        block b of a level consists of blocks 2b and 2b + 1 of the next.
    """
    order = np.random.default_rng([seed, 3, cut]).permutation(count)
    return [
        [np.sort(order[count * b // 2**level : count * (b + 1) // 2**level]) for b in range(2**level)]
        for level in range(LEVELS + 1)
    ]


def cross_pairs(groups: np.ndarray) -> int:
    """Number of pairs of different class among classes int64 (n,)."""
    _, sizes = np.unique(groups, return_counts=True)
    return (len(groups) ** 2 - int((sizes.astype(np.int64) ** 2).sum())) // 2


def measure(
    values: np.ndarray,
    groups: np.ndarray,
    whole: ClosestPair,
    reduction: str,
    seed: int,
    progress: Callable[..., Iterator[int]] | None = None,
) -> list[Block] | str:
    """The constants of all blocks of all cuts, or why there are none that do.

    Arguments:
        values: float (T+1, N, K).
        groups: int64 (N,).
        whole: the closest pair of all N images under ``reduction``, not searched for again.
        progress: ``progress(iterable, description, total)``.
    """
    count = len(groups)
    if count < SMALLEST:
        return f"{count} images are too few to say how the constant falls with N: it takes at least {SMALLEST}"
    found: list[Block] = []
    cuts: Iterable[int] = range(CUTS)
    for cut in progress(cuts, f"disjoint blocks ({reduction})", CUTS) if progress is not None else cuts:
        levels = halves(count, seed, cut)
        for level, blocks in enumerate(levels):
            for number, rows in enumerate(blocks):
                if len(np.unique(groups[rows])) < 2:
                    return f"a block of {len(rows)} images holds one class only: it takes more images"
                searches = CUTS * 2**level
                pair = whole
                if level:
                    chosen = np.take(values, rows, axis=1)  # in the order that searches want
                    pair = closest_pair(chosen, groups[rows], reduction, searches=searches)
                if pair.value <= 0:
                    return "images of different class coincide: the constant is 0, and stays so at any larger N"
                pairs, own = cross_pairs(groups[rows]), True
                if level < LEVELS:
                    parts = levels[level + 1][2 * number : 2 * number + 2]
                    pairs -= sum(cross_pairs(groups[part]) for part in parts)
                    first, second = np.isin(rows[[pair.first, pair.second]], parts[0])
                    own = bool(first != second)
                found.append(Block(pair.value, pairs, own))
    return found


def fit(blocks: Sequence[Block]) -> Law:
    """The law under which the constants of the blocks are likeliest (censored where not :attr:`Block.own`)."""
    shape, rate = _likeliest(
        np.log([[b.value for b in blocks]]),
        np.array([[float(b.pairs) for b in blocks]]),
        np.array([[float(b.own) for b in blocks]]),
    )
    return Law(float(shape[0]), float(rate[0]))


def extrapolate(law: Law, simulated: Simulated, pairs: int, count: int, size: int) -> tuple[float, float, float]:
    """The constant of another sample of ``size`` images: (median, low, high), 95 % of such samples between the latter.

    Arguments:
        law: fitted to blocks of ``count`` images, among which ``pairs`` pairs are of different class.
    """
    factor = (size / count) ** 2
    scale, slower = law.log_scale(pairs * factor), SLOWER * law.exponent * np.log(size / count)
    low, middle, high = np.exp(scale + simulated.quantiles(factor) / law.shape).tolist()
    return middle, low, high * float(np.exp(slower))


def simulate() -> Simulated:
    """Simulated samples, cut into halves and quarters and fitted as real ones are; always the same ones.

    The closest distances of a sample arrive as a Poisson process; both ends of a pair fall into the quarters of each
    cut independently.
    """
    rng = np.random.default_rng(20_210_127)
    distances = np.cumsum(rng.exponential(size=(SIMULATED, ARRIVALS)), axis=1)
    log_values, pairs, own = [], [], []
    leaves = 2**LEVELS
    for _ in range(CUTS):
        a, b = rng.integers(0, leaves, (2, SIMULATED, ARRIVALS), dtype=np.int8)
        for level in range(LEVELS + 1):
            width = leaves >> level
            for number in range(2**level):
                inside = (a // width == number) & (b // width == number)
                inside[:, -1] = True  # a quarter that no pair fell into, once in 30,000
                first = inside.argmax(axis=1)[:, None]
                split = (2 * a // width != 2 * b // width) if level < LEVELS else inside
                log_values.append(np.log(np.take_along_axis(distances, first, 1)[:, 0]))
                own.append(np.take_along_axis(split, first, 1)[:, 0])
                pairs.append(0.25**level / (2 if level < LEVELS else 1))
    shapes, rates = _likeliest(
        np.stack(log_values, axis=1), np.array([pairs]), np.stack(own, axis=1).astype(np.float64)
    )
    return Simulated(shapes, rates, rng.exponential(size=SIMULATED))


def _likeliest(log_values: np.ndarray, pairs: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(shape, log rate), float64 (S,) each, of S sets of n blocks, float64 (S, n) each; the shape by bisection."""
    top = log_values.max(axis=1, keepdims=True)
    y, events = log_values - top, own.sum(axis=1)
    own_sum = (own * y).sum(axis=1)
    low, high = np.full(len(y), 1e-3), np.full(len(y), 1e4)
    for _ in range(50):
        shape = np.sqrt(low * high)
        weights = pairs * np.exp(shape[:, None] * y)
        rises = events / shape + own_sum > events * (weights * y).sum(axis=1) / weights.sum(axis=1)
        low, high = np.where(rises, shape, low), np.where(rises, high, shape)
    shape = np.sqrt(low * high)
    total = (pairs * np.exp(shape[:, None] * y)).sum(axis=1)
    return shape, np.log(events / total) - shape * top[:, 0]
