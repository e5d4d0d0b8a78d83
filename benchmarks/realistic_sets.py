"""Large trajectories like those of a real network, sampled from a fit to a small recorded one.

    python benchmarks/realistic_sets.py RECORDED.npz --images 1000000 --output LARGE.npz

RECORDED holds `values` (depths, images, classes), logits, and `labels` (images,). All depths of an image are one point
of R^(depths * classes). Each pair of a label and a last decision gets a Gaussian with its own mean and covariance (of
few images: the covariance within all such pairs together), drawn as often as in the recording. Softmax makes
probabilities of the logits. So a set keeps what is hard about real trajectories: images of different labels that the
network decides alike at every depth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# A covariance of fewer images than this many times its dimension is noise.
PER_DIMENSION = 2
CHUNK = 1 << 15


@dataclass(frozen=True)
class Fit:
    """Gaussians of logits, one per group of images of equal label and equal last decision.

    Attributes:
        shape: (depths, classes).
        labels: int64 (groups,). shares: float64 (groups,), of the images. means: float32 (groups, dimension).
        factors: float32 (n, dimension, dimension); noise @ factor has the covariance. which: (groups,), its number.
    """

    shape: tuple[int, int]
    labels: np.ndarray
    shares: np.ndarray
    means: np.ndarray
    factors: np.ndarray
    which: np.ndarray


def fit(path: Path | str) -> Fit:
    """The Gaussians of a recorded file of logits."""
    with np.load(path) as recorded:
        logits, labels = recorded["values"].astype(np.float64), recorded["labels"].astype(np.int64)
    depths, images, classes = logits.shape
    points = logits.transpose(1, 0, 2).reshape(images, -1)
    kinds, own = np.unique(labels * classes + logits[-1].argmax(axis=1), return_inverse=True)
    counts = np.bincount(own)
    means = np.stack([points[own == g].mean(axis=0) for g in range(len(kinds))])
    centred = points - means[own]
    factors, which = [factor(centred)], np.zeros(len(kinds), dtype=np.int64)
    for g in np.flatnonzero(counts >= PER_DIMENSION * points.shape[1]):
        which[g] = len(factors)
        factors.append(factor(centred[own == g]))
    return Fit(
        (depths, classes),
        kinds // classes,
        counts / images,
        means.astype(np.float32),
        np.stack(factors).astype(np.float32),
        which,
    )


def factor(centred: np.ndarray) -> np.ndarray:
    """The transposed square root of the covariance of centred points (images, dimension); it may be singular."""
    weights, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    return np.sqrt(np.maximum(weights, 0.0))[:, None] * directions.T


def chunks(fitted: Fit, images: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Probabilities, float32 (depths, n, classes), and labels, int64 (n,), of `images` images, some at a time."""
    random = np.random.default_rng(seed)
    depths, classes = fitted.shape
    for start in range(0, images, CHUNK):
        count = min(CHUNK, images - start)
        group = random.choice(len(fitted.shares), count, p=fitted.shares)
        points = random.standard_normal((count, depths * classes), dtype=np.float32)
        for number, covariance in enumerate(fitted.factors):
            rows = np.flatnonzero(fitted.which[group] == number)
            points[rows] = points[rows] @ covariance
        points += fitted.means[group]
        yield softmax(points.reshape(count, depths, classes)).transpose(1, 0, 2), fitted.labels[group]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax along the last axis, in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def realistic(path: Path | str, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """values (depths, images, classes) float32 and labels (images,) int64."""
    fitted = fit(path)
    values = np.empty((fitted.shape[0], images, fitted.shape[1]), dtype=np.float32)
    return values, fill(values, chunks(fitted, images, seed))


def fill(values: np.ndarray, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Put the parts, (values, labels) of some images each, into ``values`` (depths, images, classes); all labels."""
    labels = np.empty(values.shape[1], dtype=np.int64)
    start = 0
    for part, own in parts:
        values[:, start : start + len(own)] = part
        labels[start : start + len(own)] = own
        start += len(own)
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recorded", type=Path, help="npz with `values` (depths, images, classes) logits and `labels`")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="npz with `values` (probabilities) and `labels`")
    options = parser.parse_args()
    values, labels = realistic(options.recorded, options.images, options.seed)
    np.savez(options.output, values=values, labels=labels)


if __name__ == "__main__":
    main()
