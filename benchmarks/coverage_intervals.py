"""How often do nominal 95 % intervals hold the truth? Synthetic populations of 200,000 images with known constants.

    python benchmarks/coverage_intervals.py [--samples 20] [--out benchmarks/results/coverage_intervals.md]

Three intervals: the extrapolation to a larger N (`stabilitykit_expansivity.larger`), the interval of the mean log ratio
over disjoint blocks and the spread over halves (`stabilitykit.review.resampling`). Minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from stabilitykit_expansivity import larger

from stabilitykit.review.resampling import BLOCKS, block_interval, bootstrap_difference, percentiles
from stabilitykit.search import closest_pair
from stabilitykit.search.synthetic import softmax_trajectory

POPULATION = 200_000


def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Gaussian class clouds in R^6 at three depths, float64, and labels."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 10, POPULATION)
    means = 2 * rng.standard_normal((3, 10, 6))
    return means[:, labels] + rng.standard_normal((3, POPULATION, 6)), labels


POPULATIONS = {
    "Gaussian clouds in R^6": clouds,
    "softmax, gain 3": lambda: softmax_trajectory(POPULATION, 5, 10, gain=3, seed=7),
    "softmax, gain 3, noise .2": lambda: softmax_trajectory(POPULATION, 5, 10, gain=3, noise=0.2, seed=8),
    "softmax, gain 12 (saturated)": lambda: softmax_trajectory(POPULATION, 5, 10, gain=12, seed=7),
}


def constant(values: np.ndarray, labels: np.ndarray, rows: np.ndarray, reduction: str) -> float:
    """The constant over ``rows`` of a population."""
    return closest_pair(values[:, rows].astype(np.float64), labels[rows], reduction).value


def draw(rng: np.random.Generator, count: int) -> np.ndarray:
    """Rows of a sample of ``count``, ascending."""
    return np.sort(rng.choice(POPULATION, count, replace=False, shuffle=False))


def extrapolation(values: np.ndarray, labels: np.ndarray, count: int, samples: int, reduction: str) -> list[str]:
    """One line per factor: how often fresh samples of ``factor * count`` images fell into the interval."""
    rng = np.random.default_rng(11)
    truth = {
        f: np.array([constant(values, labels, draw(rng, f * count), reduction) for _ in range(m)])
        for f, m in zip(larger.FACTORS, (30, 20, 10))
    }
    found: dict[int, list[tuple[float, ...]]] = {f: [] for f in truth}
    refused, exponents = 0, []
    for number in range(samples):
        rows = draw(rng, count)
        part, groups = values[:, rows].astype(np.float64), labels[rows]
        blocks = larger.measure(part, groups, closest_pair(part, groups, reduction), reduction, number)
        assert not isinstance(blocks, str), blocks
        law = larger.fit(blocks)
        exponents.append(law.exponent)
        if law.exponent > larger.STEEPEST and reduction != "min":
            refused += 1
            continue
        for factor, true in truth.items():
            e = larger.extrapolate(law, larger.cross_pairs(groups), count, factor * count)
            inside = float(((e.low <= true) & (true <= e.high)).mean())
            found[factor].append((inside, e.value / float(np.median(true)), e.low / e.value, e.high / e.value))
    lines = []
    for factor, one in found.items():
        told = ["-"] * 4
        if one:
            covered, ratio, low, high = np.array(one).T
            told = [f"{100 * covered.mean():.0f} %", f"{np.median(ratio):.2f}"]
            told += [f"{np.median(low):.2f} to {np.median(high):.2f}", f"{ratio.min():.2f} to {ratio.max():.2f}"]
        lines.append(
            f"{reduction} | {count} | {factor}N | {np.median(exponents):.2f} | {refused}/{samples} | "
            + " | ".join(told)
        )
    return lines


def ratios(trials: int, count: int = 800) -> list[str]:
    """Two models over the same images: the interval over blocks, the spread over halves, the bootstrap of a mean."""
    rng = np.random.default_rng(3)
    a, labels = softmax_trajectory(POPULATION, 3, 10, gain=3, seed=7)
    b = a + np.float32(0.01) * rng.standard_normal(a.shape, dtype=np.float32)
    b /= b.sum(axis=2, keepdims=True)

    def ratio(rows: np.ndarray) -> float:
        return float(np.log(constant(b, labels, rows, "max") / constant(a, labels, rows, "max")))

    at_block = np.mean([ratio(draw(rng, count // BLOCKS)) for _ in range(600)])
    fresh = np.array([ratio(draw(rng, count)) for _ in range(60)])
    right = rng.random((2, POPULATION)) < np.array([[0.96], [0.9]])
    right[1] &= (rng.random(POPULATION) < 0.9) | ~right[0]
    covered: dict[str, list[float]] = {"blocks": [], "halves": [], "mean": []}
    for trial in range(trials):
        rows = draw(rng, count)
        order = rng.permutation(rows)
        low, high = block_interval(np.array([ratio(np.sort(part)) for part in np.array_split(order, BLOCKS)]))
        covered["blocks"].append(low <= np.exp(at_block) <= high)
        if trial < 15:
            halves = np.array([ratio(np.sort(rng.choice(rows, count // 2, replace=False))) for _ in range(20)])
            low, high = percentiles(np.exp(halves))
            covered["halves"].append(float(((low <= np.exp(fresh)) & (np.exp(fresh) <= high)).mean()))
        low, high = bootstrap_difference(
            right[0, rows].astype(float), right[1, rows].astype(float), paired=True, resamples=300, seed=trial
        )
        covered["mean"].append(low <= right[1].mean() - right[0].mean() <= high)
    told = {
        "blocks": f"ratio of constants, {BLOCKS} disjoint blocks of {count // BLOCKS} images | their mean at that size",
        "halves": f"ratios over random halves of {count} images | the ratio over a fresh sample of {count}",
        "mean": f"difference of two accuracies, paired bootstrap over {count} images | the population's",
    }
    return [f"| {told[k]} | {100 * np.mean(v):.0f} % | {len(v)} |" for k, v in covered.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    lines = ["| interval | of | covered | trials |", "|---|---|---|---|", *ratios(options.trials), ""]
    print("\n".join(lines), flush=True)
    lines += [
        "| population | constant | N | to | falls as N^- | refused | covered | foretold/true | "
        "interval/foretold | foretold/true, range |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for name, make in POPULATIONS.items():
        values, labels = make()
        for count in options.counts:
            for reduction in ("max", "mean"):
                for line in extrapolation(values, labels, count, options.samples, reduction):
                    lines.append(f"| {name} | {line} |")
                    print(lines[-1], flush=True)
    text = "\n".join(lines)
    print(text, f"\n{time.perf_counter() - start:.0f} s")
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
