"""Seeded trajectories that look like those of trained networks, for tests and benchmarks."""

from __future__ import annotations

import numpy as np


def softmax_trajectory(
    images: int, depths: int = 9, classes: int = 10, *, gain: float = 12.0, errors: float = 0.02, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax readouts that sharpen along depth, and labels.

    Every image has a class signal, a confusion with a second class and noise; the signal's share grows with
    depth and the logits' scale grows to `gain` (about 3: unsure, 12: a good classifier, 40: saturated in
    float32, with many exact zeros, ones and duplicates). About `errors` of the images end in a wrong class.

    Returns:
        values (depths, images, classes) float32 and labels (images,) int64.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    rows = np.arange(images)
    rival = (labels + random.integers(1, classes, images)) % classes if classes > 1 else labels
    margin = random.lognormal(0.0, 0.5, images).astype(np.float32)
    margin *= np.where(random.random(images) < errors, -0.5, 1.0).astype(np.float32)
    start = random.standard_normal((images, classes), dtype=np.float32) * np.float32(0.5)
    values = np.empty((depths, images, classes), dtype=np.float32)
    for t in range(depths):
        share = np.float32((t + 1) / depths)
        logits = start * (1 - np.float32(0.7) * share)
        logits += random.standard_normal((images, classes), dtype=np.float32) * np.float32(0.05)
        logits[rows, labels] += share * (1 + margin)
        logits[rows, rival] += share
        logits *= np.float32(0.5 + (gain - 0.5) * share * share)
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        values[t] = logits
    return values, labels
