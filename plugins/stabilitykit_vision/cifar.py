"""CIFAR-10 through torchvision's class, which checks the official archives' checksums before unpickling them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stabilitykit import DataProblem, UsageProblem
from stabilitykit_vision.arrays import ArrayDataset, data_root

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(root: str | None = None, split: str = "test", download: bool = False, channels: str = "3") -> ArrayDataset:
    """CIFAR-10 as 3x32x32 in the official order; ``split``: ``train`` (50,000), ``test`` (10,000) or ``all``."""
    from torchvision.datasets import CIFAR10

    place = Path(data_root(root))
    parts = {"train": [True], "test": [False], "all": [True, False]}[split]
    images, labels = [], []
    for train in parts:
        try:
            loaded = CIFAR10(str(place), train=train, download=download)
        except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
            if download:
                raise UsageProblem(f"cannot download CIFAR-10 into {place}: {error}") from None
            raise DataProblem(
                f"dataset cifar10: {place / 'cifar-10-batches-py'} is missing or not the official archive; give its "
                "folder (cifar10:root=DIR), fetch it (cifar10:download=true) or use npz:FILE for arrays"
            ) from None
        images.append(loaded.data)
        labels.append(np.asarray(loaded.targets))
    pixels = np.concatenate(images).transpose(0, 3, 1, 2)
    return ArrayDataset(
        "cifar10",
        pixels,
        np.concatenate(labels),
        CLASSES,
        channels=channels,
        record={"root": str(place), "split": split},
    )
