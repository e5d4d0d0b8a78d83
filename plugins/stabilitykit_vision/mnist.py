"""MNIST and Fashion-MNIST from their official idx files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stabilitykit import DataProblem, UsageProblem
from stabilitykit_vision.arrays import ArrayDataset, data_root
from stabilitykit_vision.idx import find_idx, read_idx

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def mnist(root: str | None = None, split: str = "test", download: bool = False, channels: str = "3") -> ArrayDataset:
    """MNIST as 3x32x32: 28x28 zero-padded by 2 on each edge, one channel repeated to three (paper section 3).

    ``split``: ``train`` (60,000), ``test`` (10,000), ``all`` (train, then test), ``train50k`` (the first
    50,000 of train) or ``validation10k`` (its last 10,000). Files are found plain or as .gz in
    ``root/MNIST/raw``, ``root/raw`` or ``root``; nothing is unpacked on disk.
    """
    return _load("mnist", "MNIST", tuple(map(str, range(10))), root, split, download, channels)


def fashion_mnist(
    root: str | None = None, split: str = "test", download: bool = False, channels: str = "3"
) -> ArrayDataset:
    """Fashion-MNIST as 3x32x32; options as for :func:`mnist`, folder ``FashionMNIST``."""
    return _load("fashion-mnist", "FashionMNIST", FASHION, root, split, download, channels)


def _load(
    name: str, folder: str, class_names: tuple[str, ...], root: str | None, split: str, download: bool, channels: str
) -> ArrayDataset:
    place = Path(data_root(root))
    if download:
        _download(folder, place)
    parts = {"train": ["train"], "test": ["test"], "all": ["train", "test"]}.get(split, ["train"])
    pairs = [_read_part(name, folder, place, part) for part in parts]
    images = np.concatenate([pair[0] for pair in pairs]) if len(pairs) > 1 else pairs[0][0]
    labels = np.concatenate([pair[1] for pair in pairs])
    if split in ("train50k", "validation10k"):
        kept = slice(0, 50_000) if split == "train50k" else slice(50_000, None)
        images, labels = images[kept], labels[kept]
    return ArrayDataset(
        name,
        images[:, None],
        labels,
        class_names,
        pad=2,
        channels=channels,
        record={"root": str(place), "split": split},
    )


def _read_part(name: str, folder: str, root: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    paths = [find_idx(root, folder, stem) for stem in FILES[part]]
    if None in paths:
        missing = FILES[part][paths.index(None)]
        raise DataProblem(
            f"dataset {name}: no {missing} or {missing}.gz in {root / folder / 'raw'}, {root / 'raw'} "
            f"or {root}; give the folder ({name}:root=DIR) or fetch it ({name}:download=true)"
        )
    images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)  # type: ignore[arg-type]
    if len(images) != len(labels):
        raise DataProblem(f"dataset {name}: {len(images)} images in {paths[0]} but {len(labels)} labels in {paths[1]}")
    if images.shape[1:] != (28, 28):
        raise DataProblem(
            f"dataset {name}: {paths[0]} holds images of {images.shape[1]}x{images.shape[2]}, expected 28x28"
        )
    return images, labels


def _download(folder: str, root: Path) -> None:
    """torchvision's own download with its checksums; a no-op when the files are there."""
    if all(find_idx(root, folder, stem) for stems in FILES.values() for stem in stems):
        return
    import torchvision

    try:
        getattr(torchvision.datasets, folder)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise UsageProblem(f"cannot download {folder} into {root}: {error}") from None
