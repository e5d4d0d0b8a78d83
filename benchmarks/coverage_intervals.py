"""How often do nominal 95 % intervals hold the truth, and how often does `compare` call chance a real change?

    python benchmarks/coverage_intervals.py [--recorded course.npz] [--out FILE]

Populations of known truth, and a recorded set (`values` logits (T+1, N, K), `labels`) of which subsamples are drawn.
Simulated: constants foretold for a larger N (`stabilitykit_expansivity.larger`), and `compare`'s rule over disjoint
blocks, its bootstrap of means and its spread over halves (`stabilitykit.review.resampling`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from stabilitykit_expansivity import larger

from stabilitykit.dynamics.space import to_space
from stabilitykit.review import resampling
from stabilitykit.search import ClosestPair, brute_force_closest_pairs, closest_pair
from stabilitykit.search.synthetic import softmax_trajectory

IMAGES = 200_000
CLASSES = 10
FACTORS = (2, 4, 10)
# Two networks: noise on the logits of each, in their standard deviations, and what a real change multiplies them by.
NOISE, GAIN = 0.1, 1.2
# N, share of images that one network alone has right (and as many the other), share that the second has beyond that.
ACCURACIES = (
    (100, 0.02, 0.0),
    (100, 0.05, 0.0),
    (1000, 0.003, 0.0),
    (1000, 0.02, 0.0),
    (100, 0.0, 0.02),
    (300, 0.02, 0.03),
    (1000, 0.01, 0.02),
)
Population = tuple[np.ndarray, np.ndarray]


def search(values: np.ndarray, groups: np.ndarray, reduction: str, **_: int) -> ClosestPair:
    """The closest pair, by what is fastest for many small samples on one thread; arguments of `closest_pair`."""
    if len(groups) <= 500:
        return brute_force_closest_pairs(values, groups, reduction, threads=1).overall()
    return closest_pair(values, groups, reduction, backend="numba", threads=1)


def clouds(depths: int, width: int, noise: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Population:
    """A cloud per class at every depth, float32 (depths, IMAGES, width), independent between depths; and labels."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, CLASSES, IMAGES)
    means = 2 * rng.standard_normal((depths, CLASSES, width))
    return (means[:, labels] + noise(rng, (depths, IMAGES, width))).astype(np.float32), labels


def cube(width: int) -> Population:
    """Uniform in a cube, classes at random: the closest pair falls as N^(-2/width)."""
    rng = np.random.default_rng(1)
    return rng.random((1, IMAGES, width), dtype=np.float32), rng.integers(0, CLASSES, IMAGES)


def recorded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (T+1, N, K) and labels of a recording."""
    with np.load(path) as file:
        return file["values"], file["labels"]


POPULATIONS: dict[str, Callable[[], Population]] = {
    "uniform in R^5": partial(cube, 5),
    "Gaussian clouds in R^4, 3 depths": lambda: clouds(3, 4, lambda rng, shape: rng.standard_normal(shape)),
    "heavy tails: Student t(1.5) in R^4, 2 depths": lambda: clouds(2, 4, lambda rng, shape: rng.standard_t(1.5, shape)),
    "softmax, gain 3": lambda: softmax_trajectory(IMAGES, 5, CLASSES, gain=3, seed=7),
    "softmax, gain 12 (saturated)": lambda: softmax_trajectory(IMAGES, 5, CLASSES, gain=12, seed=7),
}


def constant(population: Population, rows: np.ndarray, reduction: str) -> float:
    """The constant over ``rows``, in any order."""
    values, labels = population
    rows = np.sort(rows)
    return search(values[:, rows].astype(np.float64), labels[rows], reduction).value


def extrapolation(population: Population, count: int, samples: int, reduction: str) -> Iterator[str]:
    """One line per factor: how often constants of fresh samples of ``factor * count`` images lay in the interval."""
    images = population[0].shape[1]
    rng = np.random.default_rng(11)
    simulated = larger.simulate()

    def draw(size: int) -> np.ndarray:
        return rng.choice(images, size, replace=False, shuffle=False)

    truth = {
        factor: np.array([constant(population, draw(factor * count), reduction) for _ in range(120 // factor)])
        for factor in FACTORS
        if factor * count <= images / 2
    }
    told: dict[int, list[tuple[float, ...]]] = {factor: [] for factor in truth}
    exponents, refused = [], 0
    for number in range(samples):
        rows = np.sort(draw(count))
        values, groups = population[0][:, rows].astype(np.float64), population[1][rows]
        blocks = larger.measure(values, groups, search(values, groups, reduction), reduction, number)
        assert not isinstance(blocks, str), blocks
        law = larger.fit(blocks)
        exponents.append(law.exponent)
        if law.exponent > larger.STEEPEST and reduction != "min":
            refused += 1
            continue
        for factor, fresh in truth.items():
            value, low, high = larger.extrapolate(law, simulated, larger.cross_pairs(groups), count, factor * count)
            inside, true = np.mean((low <= fresh) & (fresh <= high)), float(np.median(fresh))
            told[factor].append((float(inside), low <= true <= high, value / true, high / low))
    for factor, one in told.items():
        line = f"{reduction} | {count} | {factor}N | {np.median(exponents):.2f} | {refused}/{samples} | "
        if one:
            inside, median, ratio, width = np.array(one, dtype=float).T
            spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
            yield line + f"{inside.mean():.0%} | {median.mean():.0%} | {spread} | {np.median(width):.1f}"
        else:
            yield line + "- | - | - | -"


def networks(logits: np.ndarray, labels: np.ndarray, gain: float) -> tuple[Population, Population]:
    """Two networks over the same images: logits of both with noise of equal size, the second's times ``gain``.

    With gain 1 they are exchangeable: in expectation no constant of them differs.

    Arguments:
        logits: float (T+1, N, K).
    """
    rng = np.random.default_rng(23)
    both = []
    for factor in (1.0, gain):
        noisy = factor * (logits + NOISE * logits.std() * rng.standard_normal(logits.shape))
        both.append(np.stack([to_space(at, "probabilities").astype(np.float32) for at in noisy]))
    return (both[0], labels), (both[1], labels)


def rule(pair: tuple[Population, Population], count: int, trials: int, paired: bool, reduction: str) -> str:
    """Coverage of the interval over disjoint blocks, and how often a change is called real."""
    images, size = pair[0][0].shape[1], count // resampling.BLOCKS
    rng = np.random.default_rng(3)

    def ratios() -> np.ndarray:
        """Float64 (BLOCKS,): the second network's constants over the first's."""
        rows = rng.choice(images, (1 if paired else 2, resampling.BLOCKS, size), replace=False)
        a, b = (
            np.array([constant(one, block, reduction) for block in part])
            for one, part in zip(pair, (rows[0], rows[-1]), strict=True)
        )
        return np.asarray(b / a)

    true = 1.0 if pair[0] is pair[1] else float(np.exp(np.mean([np.log(ratios()) for _ in range(60)])))
    inside, real = [], []
    for _ in range(trials):
        low, high = resampling.block_interval(ratios())
        inside.append(low <= true <= high)
        found = resampling.Interval("ratio", low, high, "", resampling.BLOCKS, paired, confidence=True)
        real.append(resampling.judge(found).real)
    return f"{reduction} | {count} | {true:.3f} | {np.mean(inside):.1%} | {np.mean(real):.1%} | {trials}"


def halves(pair: tuple[Population, Population], count: int, trials: int, reduction: str) -> str:
    """How often the spread over random halves holds the ratio over a fresh sample of as many images."""
    images = pair[0][0].shape[1]
    rng = np.random.default_rng(4)

    def ratio(rows: np.ndarray) -> float:
        return constant(pair[1], rows, reduction) / constant(pair[0], rows, reduction)

    fresh = np.array([ratio(rng.choice(images, count, replace=False)) for _ in range(60)])
    inside = []
    for _ in range(trials):
        rows = rng.choice(images, count, replace=False)
        found = [ratio(rng.choice(rows, count // 2, replace=False)) for _ in range(40)]
        low, high = resampling.percentiles(np.array(found))
        inside.append(np.mean((low <= fresh) & (fresh <= high)))
    return f"{reduction} | {count} | {np.mean(inside):.0%} | {trials}"


def means(count: int, only: float, gained: float, trials: int, paired: bool) -> str:
    """Two networks' accuracies: coverage of the bootstrap's interval, and how often a change is called real.

    Arguments:
        only: share of images that the first alone has right, and as many that the second alone has.
        gained: share of images that the second alone has right beyond that.
    """
    rng = np.random.default_rng(9)
    inside, real = [], []
    for trial in range(trials):
        u = rng.random((1 if paired else 2, count))
        a, b = u[0] >= only + gained, (u[-1] < only + gained) | (u[-1] >= 2 * only + gained)
        found = resampling.of_means(a.astype(float), b.astype(float), paired=paired, resamples=400, seed=trial)
        real.append(resampling.judge(found).real)
        if found.confidence:
            inside.append(found.low <= gained <= found.high)
    covered = f"{np.mean(inside):.1%}" if inside else "-"
    how = f"{'paired' if paired else 'unpaired'} | {count} | {2 * only + gained:.3f} | {gained:.3f}"
    return f"{how} | {len(inside) / trials:.0%} | {covered} | {np.mean(real):.1%} | {trials}"


def tables(options: argparse.Namespace) -> Iterator[str]:
    """Lines of Markdown, as they are found."""
    populations = dict(POPULATIONS)
    synthetic = softmax_trajectory(IMAGES // 5, 5, CLASSES, gain=3, seed=7)
    logits = {"softmax, gain 3": (np.log(synthetic[0]), synthetic[1])}
    if options.recorded:
        name = f"recorded: {options.recorded.name}"
        logits[name] = recorded(options.recorded)
        values, labels = logits[name]
        found = np.stack([to_space(at, "probabilities").astype(np.float32) for at in values]), labels
        populations[name] = lambda: found
    yield "\n## Constants foretold for a larger N (nominal 95 %)\n"
    yield (
        "| population | constant | N | to | falls as N^- | refused | holds a fresh sample's | holds their median | "
        "foretold/true, median (range) | high/low |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for name, make in populations.items():
        population = make()
        for count in options.counts:
            for reduction in ("max", "mean"):
                yield from (f"| {name} | {x} |" for x in extrapolation(population, count, options.samples, reduction))
            if name in logits:
                yield from (f"| {name} | {x} |" for x in extrapolation(population, count, options.samples, "min"))
    yield "\n## Ratio of constants over 16 disjoint blocks (nominal 95 %)\n"
    yield "| networks | case | constant | N | true ratio | covered | called real | trials |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, (values, labels) in logits.items():
        null, real = (networks(values, labels, gain) for gain in (1.0, GAIN))
        cases = {
            "one network, other images": ((null[0], null[0]), False, options.trials),
            "two exchangeable networks, same images": (null, True, options.trials),
            f"logits times {GAIN}, same images": (real, True, options.trials // 4),
            f"logits times {GAIN}, other images": (real, False, options.trials // 4),
        }
        for case, (pair, paired, trials) in cases.items():
            for count in (320, 1600):
                for reduction in ("max", "mean", "min"):
                    yield f"| {name} | {case} | {rule(pair, count, trials, paired, reduction)} |"
    yield "\n## Spread of the ratio over random halves\n"
    yield "| networks | constant | N | holds the ratio over a fresh sample of N | trials |\n|---|---|---|---|---|"
    for name, (values, labels) in logits.items():
        for reduction in ("max", "mean", "min"):
            yield f"| {name} | {halves(networks(values, labels, GAIN), 800, 8, reduction)} |"
    yield "\n## Difference of two accuracies, bootstrap (nominal 95 %)\n"
    yield "| images | N | differ | true difference | called confidence interval | then covered | called real | trials |"
    yield "|---|---|---|---|---|---|---|---|"
    for paired in (True, False):
        for count, only, gained in ACCURACIES:
            yield f"| {means(count, only, gained, options.trials, paired)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recorded", type=Path, help="npz of a recorded trajectory: values, labels")
    parser.add_argument("--samples", type=int, default=50, help="samples that are extrapolated from")
    parser.add_argument("--trials", type=int, default=200, help="samples over which two networks are compared")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start, lines = time.process_time(), []
    larger.closest_pair = search
    for line in tables(options):
        print(line, flush=True)
        lines.append(line)
    print(f"\n{time.process_time() - start:.0f} s of CPU")
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
