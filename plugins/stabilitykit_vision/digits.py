"""scikit-learn's handwritten digits: 1,797 images of 8x8, part of the installed package, so nothing to fetch."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from stabilitykit_vision.arrays import ArrayDataset

SIZE, PAD, TEST = 28, 2, 597


def digits(split: str = "test", channels: str = "3") -> ArrayDataset:
    """Digits as 3x32x32: 8x8 of 0..16, resized to 28x28, zero-padded by 2, one channel repeated to three.

    ``split``: ``train`` (1,200 images), ``test`` (597) or ``all`` (1,797, the stored order). The split is fixed;
    within it the stored order is kept.
    """
    stored, labels = stored_digits()
    small = stored.astype(np.float32) / np.float32(16)
    large = resize_bilinear(small, SIZE)[:, None]
    chosen = split_indices(len(small), split)
    return ArrayDataset(
        "digits",
        large[chosen],
        labels[chosen],
        [str(c) for c in range(10)],
        pad=PAD,
        channels=channels,
        transforms=["divide by 16", f"resize 8x8 to {SIZE}x{SIZE} (bilinear)"],
        record={"source": "sklearn.datasets.load_digits", "split": split},
    )


def stored_digits() -> tuple[np.ndarray, np.ndarray]:
    """uint8 (1797, 8, 8) of 0..16 and int64 (1797,), as ``sklearn.datasets.load_digits`` gives them.

    Importing scikit-learn takes seconds, so its table is read directly where it lies.
    """
    package = importlib.util.find_spec("sklearn")
    for place in (package.submodule_search_locations or ()) if package else ():
        table = Path(place, "datasets", "data", "digits.csv.gz")
        if table.is_file():
            with gzip.open(table, "rt", encoding="ascii") as file:
                rows = np.asarray([line.split(",") for line in file], dtype=np.uint8)
            return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images.astype(np.uint8), loaded.target.astype(np.int64)


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
        images = images.take(lower, axis=axis) * (np.float32(1) - weight) + images.take(upper, axis=axis) * weight
    return images
