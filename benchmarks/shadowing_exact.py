"""Exact s(eps)/eps over all sample pseudo-orbits against its bracket and the family's ratio, with times.

    python benchmarks/shadowing_exact.py [--trajectories FILE.npz ...] [--digits] [--synthetic IMAGES DEPTHS]

Without arguments: the embedded digits and a synthetic 10,000 x 9. Prints the rows of the table in
results/shadowing_exact.md. Times are CPU seconds of the process (all threads); compilation is not counted (a small
sample is run first).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from stabilitykit_shadowing.exact import ExactShadowing, too_much
from stabilitykit_shadowing.measure import bracket_of, shadow
from stabilitykit_shadowing.orbits import nearest_orbits

import stabilitykit
from stabilitykit.search.synthetic import softmax_trajectory

HEAD = (
    "| sample | N x depths | at | eps | family s/eps | bracket s/eps | exact s/eps | family / exact | proven | "
    "decisions | nodes | family CPU s | bracket CPU s | exact CPU s (wall) |"
)
QUANTILES = (0.1, 0.5, 0.9)
T = TypeVar("T")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trajectories", nargs="*", default=[])
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--synthetic", nargs=2, type=int, default=None)
    given = parser.parse_args()
    everything = not (given.trajectories or given.digits or given.synthetic)
    print(HEAD)
    print("|---" * HEAD.count(" | ") + "|---|")
    small, labels = softmax_trajectory(1300, 3)
    measured(small.astype(float), labels)
    if given.digits or everything:
        report("digits", *digits())
    if given.synthetic or everything:
        images, depths = given.synthetic or (10_000, 9)
        values, labels = softmax_trajectory(images, depths)
        report("synthetic", values.astype(float), labels)
    for file in given.trajectories:
        with np.load(file) as data:
            report(file.rsplit("/", 1)[-1], data["values"].astype(float), data["labels"])


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Trajectories of the embedded model on the embedded digits, and labels."""
    from stabilitykit.evaluation.context import Context

    held = []

    class Keep(stabilitykit.Property):
        name = "keep"

        def evaluate(self, context: Context) -> stabilitykit.PropertyResult:
            held.append((np.array(context.trajectory.values), np.array(context.labels)))
            return stabilitykit.PropertyResult([])

    stabilitykit.evaluate("resnet18-digits", "digits", [Keep()])
    return held[0]


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """(result, CPU seconds, wall seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def measured(values: np.ndarray, labels: np.ndarray) -> list[str]:
    """One row per eps: the headline's, and some quantiles of the family's."""
    family, family_cpu, _ = timed(lambda: shadow(values, nearest_orbits(values)))
    bounds, bracket_cpu, _ = timed(lambda: bracket_of(values, family, labels=labels))
    headline = family.constants()["Sh_profile"].eps
    assert headline is not None
    places = {"headline": headline} | {f"quantile {q:g}": float(np.quantile(family.eps, q)) for q in QUANTILES}
    rows = []
    exact, once_cpu, once_wall = timed(lambda: ExactShadowing(values)) if not too_much(values) else (None, 0.0, 0.0)
    for name, eps in places.items():
        lower, upper = bounds.at(eps)
        orbit = bounds.upper.orbit[bounds.upper.piece(eps)]
        text = f"{name} | {eps:.4g} | {family.profile(eps) / eps:.4g} | {lower / eps:.4g} - {upper / eps:.4g} | "
        if exact is None:
            text += "too many images | | | | "
            cpu = wall = 0.0
        else:
            known = bounds.paths[orbit] if orbit >= 0 else None
            found, cpu, wall = timed(lambda: exact.at(eps, lower, known))  # noqa: B023
            factor = family.profile(eps) / found.upper if found.upper else np.inf
            value = f"{found.upper / eps:.4g}" if found.proven else f"{found.lower / eps:.4g} - {found.upper / eps:.4g}"
            told = "yes" if found.proven else "no"
            text += f"{value} | {factor:.3g} | {told} | {found.decisions} | {found.nodes}"
        rows.append(f"{text} | {family_cpu:.2f} | {bracket_cpu:.2f} | {cpu + once_cpu:.2f} ({wall + once_wall:.2f}) |")
    return rows


def report(name: str, values: np.ndarray, labels: np.ndarray) -> None:
    """Print the rows of one sample."""
    for row in measured(values, labels):
        print(f"| {name} | {values.shape[1]:,} x {values.shape[0]} | {row}", flush=True)


if __name__ == "__main__":
    main()
