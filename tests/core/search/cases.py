"""Trajectories that have broken pair searches: ties, duplicates, tiny and huge numbers, saturation."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.synthetic import softmax_trajectory


def labelled(values: np.ndarray, groups: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return values, np.random.default_rng(seed).integers(0, groups, values.shape[1])


def adversarial() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """name -> (values (depths, images, readout), groups (images,))."""
    random = np.random.default_rng(0)
    normal = random.normal(size=(3, 260, 5))
    twins = np.tile(normal[:, :65], (1, 4, 1))
    near_ties = twins + 1e-9 * random.normal(size=twins.shape)
    outlier = np.zeros((2, 240, 4), dtype=np.float32)
    outlier[:, ::40] = random.normal(size=(2, 6, 4))
    powers = np.zeros((1, 200, 3))
    powers[0, :, 0] = 2.0 ** -np.arange(200)
    return {
        "unsure": softmax_trajectory(400, 4, gain=3),
        "sharp": softmax_trajectory(400, 4, gain=12),
        "saturated": softmax_trajectory(400, 4, gain=60),
        "one-hot": softmax_trajectory(400, 4, gain=2000),
        "noise": labelled(normal, 3),
        "grid": labelled(np.round(normal), 3),
        "duplicates": labelled(twins, 4),
        "near ties": labelled(near_ties, 4),
        "identical": labelled(np.zeros((3, 300, 4), dtype=np.float32), 3),
        "mostly identical": labelled(outlier, 3),
        "powers of two": labelled(powers, 3),
        "underflow": labelled(normal * 1e-162, 3),
        "denormal": labelled(normal * 1e-310, 3),
        "float32 denormal": labelled((normal * 1e-42).astype(np.float32), 3),
        "huge": labelled(normal * 1e140, 3),
        "huge logits": labelled((normal * 1e30).astype(np.float32), 3),
        "offset": labelled(normal + 1e9, 3),
        "one coordinate": labelled(normal[:, :, :1].copy(), 5),
        "one depth": labelled(normal[:1].copy(), 2),
        "long readout": softmax_trajectory(400, 2, classes=210, gain=30, width=32),
        "own class per image": (normal[:, :60].copy(), np.arange(60)),
    }
