"""scikit-learn's handwritten digits: 1,797 images of 8x8, part of the installed package, so nothing to fetch."""

from __future__ import annotations

import numpy as np

from .arrays import ArrayDataset

SIZE, PAD, TEST = 28, 2, 597


def digits(split: str = "test") -> ArrayDataset:
    """Digits as 3x32x32: 8x8 of 0..16, resized to 28x28, zero-padded by 2, one channel repeated to three.

    ``split``: ``train`` (1,200 images), ``test`` (597) or ``all`` (1,797, the stored order). The split is fixed;
    within it the stored order is kept.
    """
    from sklearn.datasets import load_digits

    stored = load_digits()
    small = stored.images.astype(np.float32) / np.float32(16)
    large = resize_bilinear(small, SIZE)[:, None]
    chosen = split_indices(len(small), split)
    return ArrayDataset("digits", large[chosen], stored.target[chosen], [str(c) for c in range(10)], pad=PAD,
                        transforms=["divide by 16", f"resize 8x8 to {SIZE}x{SIZE} (bilinear)"],
                        record={"source": "sklearn.datasets.load_digits", "split": split})


def split_indices(count: int, split: str) -> np.ndarray:
    """Ascending indices of a split. RandomState's stream is frozen by NumPy's policy: the split never changes."""
    if split == "all":
        return np.arange(count)
    shuffled = np.random.RandomState(0).permutation(count)
    return np.sort(shuffled[:TEST] if split == "test" else shuffled[TEST:])


def resize_bilinear(images: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W) float32 -> (N, size, size), half-pixel centres, edges repeated.

    Two products and a sum per axis, elementwise: the same bits on every machine, so fingerprints agree.
    """
    for axis in (1, 2):
        length = images.shape[axis]
        centres = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        lower = np.minimum(centres.astype(np.int64), max(length - 2, 0))
        upper = np.minimum(lower + 1, length - 1)
        weight = (centres - lower).astype(np.float32)
        weight = weight[:, None] if axis == 1 else weight
        images = (images.take(lower, axis=axis) * (np.float32(1) - weight)
                  + images.take(upper, axis=axis) * weight)
    return images
