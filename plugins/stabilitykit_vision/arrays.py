"""Datasets held as one array: what digits, MNIST, CIFAR-10 and npz have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabilitykit import DataProblem, Dataset


class ArrayDataset(Dataset):
    """Images in one array, turned into (C, H, W) float32 in [0, 1] when asked for.

    Arguments:
        name: what messages call it.
        pixels: uint8 (N, C, H, W) of 0..255, or float (N, C, H, W) in [0, 1]; any strides.
        labels: integers (N,) in 0..K-1.
        class_names: K names.
        pad: zeros added on each edge.
        channels: ``"rgb"`` repeats a single channel to three, ``"keep"`` leaves it.
        transforms: what was done to the stored pixels before, in order.
        record: plain data for provenance.

    Raises:
        DataProblem: labels out of range, a class without an image, a single class, NaN or infinite pixels,
            floats outside [0, 1].
    """

    def __init__(
        self,
        name: str,
        pixels: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        pad: int = 0,
        channels: str = "rgb",
        transforms: Sequence[str] = (),
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._pixels = pixels
        self._labels = check_labels(name, labels, len(pixels), class_names)
        self._class_names = [str(c) for c in class_names]
        self._pad, self._repeat = pad, channels == "rgb" and pixels.shape[1] == 1
        self._record = dict(record or {})
        self._transforms = list(transforms)
        if pixels.dtype == np.uint8:
            self._transforms.append("divide by 255")
        else:
            check_range(name, pixels)
        if pad:
            self._transforms.append(f"zero-pad {pad} on each edge")
        if self._repeat:
            self._transforms.append("repeat 1 channel to 3")

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._class_names

    @property
    def transforms(self) -> Sequence[str]:
        return tuple(self._transforms)

    def describe(self) -> Mapping[str, Any]:
        return self._record

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """float32 (len(indices), C, H, W), one array: much faster than a list of single images."""
        chosen = self._pixels[np.asarray(indices, dtype=np.int64)]
        scaled = chosen.astype(np.float32)
        if chosen.dtype == np.uint8:
            scaled /= np.float32(255)
        p = self._pad
        count, channels, height, width = scaled.shape
        if p:
            padded = np.zeros((count, channels, height + 2 * p, width + 2 * p), dtype=np.float32)
            padded[:, :, p : p + height, p : p + width] = scaled
            scaled = padded
        if self._repeat:
            scaled = np.repeat(scaled, 3, axis=1)
        return scaled  # type: ignore[return-value]

    def fingerprint(self) -> str:
        """SHA-256 of pixels as (N, C, H, W), labels, class names and transforms."""
        digest = hashlib.sha256(
            repr(
                (self._pixels.shape, self._pixels.dtype.str.lstrip("<>=|"), self._class_names, self._transforms)
            ).encode()
        )
        for start in range(0, len(self), 1024):
            part = np.ascontiguousarray(self._pixels[start : start + 1024])
            digest.update(part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes())
        digest.update(self._labels.astype("<i8").tobytes())
        return digest.hexdigest()


def check_labels(name: str, labels: np.ndarray, count: int, class_names: Sequence[str]) -> np.ndarray:
    """``labels`` as int64 (N,); DataProblem unless they fit ``count`` images and use every class name."""
    labels = np.asarray(labels)
    if count == 0:
        raise DataProblem(f"dataset {name} holds no images")
    if labels.shape != (count,):
        raise DataProblem(f"dataset {name}: labels have shape {labels.shape}, expected ({count},), one per image")
    if labels.dtype.kind not in "iu":
        raise DataProblem(f"dataset {name}: labels are {labels.dtype}, expected integers")
    low, high, classes = int(labels.min()), int(labels.max()), len(class_names)
    if low < 0 or high >= classes:
        raise DataProblem(
            f"dataset {name}: labels range over {low}..{high}, expected 0..{classes - 1} for its {classes} classes"
        )
    present = np.bincount(labels.astype(np.int64), minlength=classes) > 0
    if present.sum() == 1:
        raise DataProblem(
            f"dataset {name} holds a single class ({class_names[int(present.argmax())]}); "
            "distances between classes need two"
        )
    if not present.all():
        absent = [str(class_names[int(c)]) for c in np.flatnonzero(~present)]
        raise DataProblem(
            f"dataset {name}: no image of class {', '.join(absent[:5])}"
            f"{' and others' if len(absent) > 5 else ''}; every class needs at least one"
        )
    return labels.astype(np.int64)


def check_range(name: str, pixels: np.ndarray) -> None:
    """DataProblem, naming the first image, unless float ``pixels`` (N, ...) are finite and in [0, 1]."""
    for start in range(0, len(pixels), 1024):
        part = pixels[start : start + 1024].reshape(len(pixels[start : start + 1024]), -1)
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            raise DataProblem(
                f"dataset {name}: image {start + int((~finite).argmax())} holds NaN or infinite "
                "pixels; remove or repair it"
            )
        inside = ((part >= 0) & (part <= 1)).all(axis=1)
        if not inside.all():
            bad = int((~inside).argmax())
            raise DataProblem(
                f"dataset {name}: image {start + bad} ranges over {part[bad].min():g}.."
                f"{part[bad].max():g}; floats lie in [0, 1] (or store uint8 of 0..255)"
            )


def data_root(root: str | None) -> str:
    """``root``, else the environment variable STABILITYKIT_DATA, else ``data``."""
    import os

    return root or os.environ.get("STABILITYKIT_DATA") or "data"
