"""Datasets held as one array: what digits, MNIST, CIFAR-10 and npz have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabilitykit import DataProblem, Dataset
from stabilitykit_vision.channels import LUMA, grey_of
from stabilitykit_vision.ranges import Range, check_brightness, check_range, guess, parts, range_of


class ArrayDataset(Dataset):
    """Images in one array, turned into (C, H, W) float32 in [0, 1] when asked for.

    Arguments:
        name: what messages call it.
        pixels: (N, C, H, W) of any strides: uint8 of 0..255, uint16 of 0..65535, bool, floats in [0, 1], or any
            numbers inside ``pixel_range``.
        labels: integers (N,) in 0..K-1.
        class_names: K names.
        pad: zeros added on each edge.
        channels: ``"3"`` (or ``"rgb"``) repeats a single channel to three, ``"1"`` makes colour grey, ``"keep"``
            leaves what there is.
        pixel_range: which stored numbers are black and white, where the type of ``pixels`` does not say.
        transforms: what was done to the stored pixels before, in order.
        record: plain data for provenance.
        class_ids: K numbers the classes had where they were stored; None: 0..K-1.
        named: whether the class names came with the data, or are mere numbers.
        pictures: False for feature vectors, of which no brightness is expected.
        notes: warnings so far.

    Raises:
        DataProblem: labels out of range, a single class, NaN or infinite pixels, numbers whose range is not
            known, pixels outside their range, a set that is black.
    """

    def __init__(
        self,
        name: str,
        pixels: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        pad: int = 0,
        channels: str = "3",
        pixel_range: Range | None = None,
        transforms: Sequence[str] = (),
        record: Mapping[str, Any] | None = None,
        class_ids: Sequence[int] | None = None,
        named: bool = True,
        pictures: bool = True,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._class_names = [str(c) for c in class_names]
        self._labels = check_labels(name, labels, len(pixels), self._class_names)
        self._class_ids, self._named = None if class_ids is None else list(class_ids), named
        self._pixels, self._pad = pixels, pad
        self._record, self._transforms, self._warnings = dict(record or {}), list(transforms), list(notes)
        self._range = _known_range(name, pixels, pixel_range)
        if pixels.dtype != np.uint8 or self._range.text:
            check_range(name, pixels, self._range)
        if self._range.transform != "as stored":
            self._transforms.append(self._range.transform)
        if pictures:
            self._look()
        self._to_grey = channels == "1" and pixels.shape[1] == 3
        self._repeat = channels in ("3", "rgb") and pixels.shape[1] == 1
        if channels != "keep" and pixels.shape[1] not in (1, 3):
            raise DataProblem(
                f"dataset {name}: images have {pixels.shape[1]} channels, expected 1 or 3; channels=keep hands all of "
                "them to a network that takes as many"
            )
        if self._to_grey:
            self._transforms.append(LUMA)
        if pad:
            self._transforms.append(f"zero-pad {pad} on each edge")
        if self._repeat:
            self._transforms.append("repeat 1 channel to 3")
        absent = [self._class_names[int(c)] for c in np.flatnonzero(~self._present())]
        if absent:
            self._warnings.append(
                f"no image of class {', '.join(absent[:5])}{f' and {len(absent) - 5} others' if absent[5:] else ''}"
            )

    def __len__(self) -> int:
        return len(self._pixels)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._class_names

    @property
    def class_names_given(self) -> bool:
        return self._named

    @property
    def class_ids(self) -> Sequence[int] | None:
        return self._class_ids

    @property
    def transforms(self) -> Sequence[str]:
        return tuple(self._transforms)

    @property
    def warnings(self) -> Sequence[str]:
        return tuple(self._warnings)

    def describe(self) -> Mapping[str, Any]:
        return self._record

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """float32 (len(indices), C, H, W), one array: much faster than a list of single images."""
        scaled = self._range.scaled(self._pixels[np.asarray(indices, dtype=np.int64)])
        if self._to_grey:
            scaled = grey_of(scaled)
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

    def _present(self) -> np.ndarray:
        return np.bincount(self._labels, minlength=len(self._class_names)) > 0

    def _look(self) -> None:
        """Name images without a picture; refuse a set that is as good as black."""
        brightest, constant = -np.inf, []
        for start, part in parts(self._pixels):
            low, high = part.min(axis=1), part.max(axis=1)
            brightest = max(brightest, float(high.max()))
            constant += (start + np.flatnonzero(low == high)).tolist()
        share = float(self._range.scaled(np.asarray([brightest]))[0])
        said = check_brightness(self.name, share, brightest, bool(self._range.text))
        if said:
            self._warnings.append(said)
        if constant:
            self._warnings.append(constant_images([str(i) for i in constant], len(self)))


def constant_images(names: Sequence[str], count: int) -> str:
    """The warning about images whose pixels are all equal."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} of {count} images show nothing (all pixels equal): {', '.join(names[:5])}{more}"


def check_labels(name: str, labels: np.ndarray, count: int, class_names: Sequence[str]) -> np.ndarray:
    """``labels`` as int64 (N,); DataProblem unless they fit ``count`` images and the class names, two of them used."""
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
    if low == high:
        raise DataProblem(
            f"dataset {name} holds a single class ({class_names[low]}); distances between classes need two"
        )
    return labels.astype(np.int64)


def _known_range(name: str, pixels: np.ndarray, given: Range | None) -> Range:
    """What is black and white in ``pixels``; DataProblem where neither their type nor ``given`` says it."""
    if pixels.dtype.kind not in "biuf":
        raise DataProblem(f"dataset {name}: images are {pixels.dtype}, expected uint8 or float")
    known = given or range_of(pixels.dtype)
    if known is None:
        low, high = (pixels.min(), pixels.max()) if pixels.size else (0, 255)
        raise DataProblem(
            f"dataset {name}: images are {pixels.dtype} of {low:g}..{high:g}, expected uint8 or float in [0, 1]; "
            f"say what is black and white, as range={guess(low, high)}"
        )
    return known


def data_root(root: str | None) -> str:
    """``root``, else the environment variable STABILITYKIT_DATA, else ``data``."""
    import os

    return root or os.environ.get("STABILITYKIT_DATA") or "data"
