"""The images of the paper's models: MNIST, CIFAR-10, or the embedded digits in their place."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit.base.files import write_atomic
from stabilitykit.evaluation.settings import choose_indices
from stabilitykit.plugins.registry import Registry

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS = tuple(str(digit) for digit in range(10))
Spec = dict[str, Any]


def images_of(name: str, given: argparse.Namespace) -> tuple[Spec, Spec] | None:
    """(training, test) dataset specs of a model; None when its data was not given."""
    if name.startswith("mnist") and given.mnist_root is not None:
        first, last = (
            {"name": "mnist", "options": {"root": str(given.mnist_root), "split": split}} for split in ("train", "test")
        )
        return first, last
    if name.startswith("cifar") and given.cifar_npz is not None:
        first, last = (
            {"name": "npz", "options": {"path": str(named_classes(given.cifar_npz / f"{part}.npz", given.runs))}}
            for part in ("train", "test")
        )
        return first, last
    if given.quick:
        return tuple({"name": "digits", "options": {"split": split}} for split in ("train", "test"))  # type: ignore
    return None


def class_names(name: str, given: argparse.Namespace) -> tuple[str, ...]:
    """K names of the classes of a model's images, in the order of their labels."""
    return CIFAR_CLASSES if name.startswith("cifar") and given.cifar_npz is not None else DIGITS


def named_classes(path: Path, folder: Path) -> Path:
    """``path``, or a copy with the names of CIFAR-10's classes where the file has none."""
    with np.load(path, allow_pickle=False) as opened:
        if "class_names" in opened.files:
            return path
        copy = folder / f"cifar10-{path.name}"
        if not copy.exists():
            _write(copy, class_names=np.array(CIFAR_CLASSES), **{key: opened[key] for key in opened.files})
    return copy


def some_of(spec: Spec, count: int | None, key: str, folder: Path) -> Spec:
    """A seeded random ``count`` of the images of ``spec``, as a file in ``folder``; None: all of them, as they are.

    Arguments:
        key: tells this data set from others in the folder.
    """
    if count is None:
        return spec
    path = folder / f"{key}-{count}.npz"
    if not path.exists():
        dataset = Registry.load().create("dataset", spec)
        chosen = choose_indices(len(dataset), count, seed=0)
        pixels = np.stack([np.asarray(image) for image in dataset.images(chosen.tolist())])
        _write(
            path,
            X=np.rint(pixels * 255).astype(np.uint8).transpose(0, 2, 3, 1),
            y=np.asarray(dataset.labels)[chosen],
            class_names=np.array([str(name) for name in dataset.class_names]),
        )
    return {"name": "npz", "options": {"path": str(path)}}


def spelled(spec: Spec) -> str:
    """A spec as the command line takes it."""
    return f"{spec['name']}:" + ",".join(f"{key}={value}" for key, value in spec["options"].items())


def _write(path: Path, **arrays: np.ndarray) -> None:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    write_atomic(path, stream.getvalue())
