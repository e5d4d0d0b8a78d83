"""Seeded trajectories that look like those of trained networks, for tests and benchmarks."""

from __future__ import annotations

import numpy as np

CHUNK = 65536


def softmax_trajectory(
    images: int,
    depths: int = 9,
    classes: int = 10,
    *,
    gain: float = 12.0,
    noise: float = 0.0,
    width: int = 16,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax readouts of a random residual network with one head, and labels.

    States start as Gaussian clusters, one per class, and pass through `depths - 1` random residual blocks
    h + 0.3 tanh(W h). The head is the least-squares classifier of the last states; like a trained model's
    it separates the classes better and better along depth.

    Arguments:
        gain: scale of the logits. 3: unsure; 12: a good classifier; 60 and more: saturated in float32, with
            many exact zeros and ones.
        noise: standard deviation of independent noise on the logits at every depth, relative to `gain`.
            Real readouts are functions of one state; with noise, closeness at one depth says less about the
            others, which is harder for every search.
        width: dimension of the states.

    Returns:
        values (depths, images, classes) float32 and labels (images,) int64.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    means = 1.4 * random.standard_normal((classes, width)).astype(np.float32)
    blocks = random.standard_normal((depths - 1, width, width)).astype(np.float32) / np.float32(np.sqrt(width))

    def states(own: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        state = means[own] + generator.standard_normal((len(own), width), dtype=np.float32)
        found = [state]
        for block in blocks:
            state = state + np.float32(0.3) * np.tanh(state @ block)
            found.append(state)
        return found

    own = random.integers(0, classes, 4096)
    last = np.column_stack([states(own, random)[-1], np.ones(len(own), dtype=np.float32)])
    head = np.linalg.lstsq(last, np.eye(classes, dtype=np.float32)[own], rcond=None)[0] * np.float32(gain)
    values = np.empty((depths, images, classes), dtype=np.float32)
    for start in range(0, images, CHUNK):
        part = slice(start, min(images, start + CHUNK))
        for t, state in enumerate(states(labels[part], random)):
            logits = state @ head[:-1] + head[-1]
            if noise:
                logits += np.float32(noise * gain) * random.standard_normal(logits.shape, dtype=np.float32)
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            logits /= logits.sum(axis=1, keepdims=True)
            values[t, part] = logits
    return values, labels
