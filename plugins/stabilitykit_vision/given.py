"""Labelled images handed over in Python: they are the network's input as they are, nothing is done to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabilitykit import DataProblem, Dataset
from stabilitykit_vision.arrays import check_labels
from stabilitykit_vision.labels import read_labels

AS_GIVEN = "as given: no scaling, no normalisation"


class GivenImages(Dataset):
    """Inputs of a network in one array, with their labels.

    Arguments:
        name: what messages call it.
        inputs: (N, ...) floats of at most three axes per image, finite; kept as float32.
        labels: (N,) or (N, 1) numbers or texts, or one-hot (N, K).
        class_names: K names; None: the labels' own texts or numbers.
        num_classes: K, where labels are numbers and some classes have no image.
        transforms: what was done to the images before.
        notes: warnings so far.
        record: plain data for provenance.

    Raises:
        DataProblem: integers, NaN or infinite images (naming the first), labels that do not fit or are of one class.
    """

    def __init__(
        self,
        name: str,
        inputs: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str] | None = None,
        *,
        num_classes: int | None = None,
        transforms: Sequence[str] = (),
        notes: Sequence[str] = (),
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        transforms = list(transforms)
        _require_inputs(name, inputs)
        if inputs.dtype != np.float32:
            transforms.append(f"{inputs.dtype} to float32")
        self._inputs = inputs.astype(np.float32, copy=False)
        names = None if class_names is None else [str(c) for c in class_names]
        if names is not None and len(set(names)) < len(names):
            twice = next(c for c in names if names.count(c) > 1)
            raise DataProblem(f"dataset {name}: class_names holds {twice!r} twice")
        read = read_labels(f"dataset {name}", labels, names, num_classes=num_classes)
        self._labels = check_labels(name, read.values, len(inputs), read.class_names)
        self._read, self._record = read, dict(record or {})
        self._transforms, self._warnings = [*transforms, AS_GIVEN], [*notes, *read.notes]
        self._low, self._high = _check_finite(name, self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._read.class_names

    @property
    def class_names_given(self) -> bool:
        return self._read.named

    @property
    def class_ids(self) -> Sequence[int] | None:
        return self._read.ids

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._inputs.shape[1:]

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """Each float32 of three axes; inputs of fewer axes get axes of length 1 in front."""
        front = (1,) * (3 - len(self.input_shape))
        return [self._inputs[i].reshape(front + self.input_shape) for i in indices]

    def picture(self, index: int) -> np.ndarray:
        """Image ``index``, the lowest number of all images being black and the highest white."""
        width = self._high - self._low
        return (self.images([index])[0] - np.float32(self._low)) / np.float32(width if width > 0 else 1)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(("given", self._inputs.shape, self._transforms)).encode())
        for start in range(0, len(self._inputs), 1024):
            digest.update(np.ascontiguousarray(self._inputs[start : start + 1024], "<f4").data)
        digest.update(self._labels.astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def transforms(self) -> Sequence[str]:
        return self._transforms

    @property
    def warnings(self) -> Sequence[str]:
        return self._warnings

    def describe(self) -> Mapping[str, Any]:
        return {**self._record, "class_ids": self._read.ids, "class_names_given": self._read.named}


def _require_inputs(name: str, inputs: np.ndarray) -> None:
    """DataProblem unless ``inputs`` are floats (N, ...) of one to three axes per image, not empty."""
    if inputs.dtype.kind in "biu":
        raise DataProblem(
            f"dataset {name}: images are {inputs.dtype}, expected floats: they go to the network as they are, so "
            "bring them to what it was trained on first (images / 255, minus its mean, over its std)"
        )
    if inputs.dtype.kind != "f":
        raise DataProblem(f"dataset {name}: images are {inputs.dtype}, expected floats")
    if not 2 <= inputs.ndim <= 4 or 0 in inputs.shape[1:]:
        raise DataProblem(
            f"dataset {name}: images have shape {inputs.shape}, expected (N, C, H, W), or (N, ...) of what one input is"
        )


def _check_finite(name: str, inputs: np.ndarray) -> tuple[float, float]:
    """(lowest, highest) number; DataProblem, naming the image, where one is NaN or infinite in float32."""
    lows, highs = [0.0], [0.0]
    step = max(1, (1 << 24) // max(int(np.prod(inputs.shape[1:])), 1))
    for start in range(0, len(inputs), step):
        part = inputs[start : start + step].reshape(len(inputs[start : start + step]), -1)
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            raise DataProblem(
                f"dataset {name}: image {start + int((~finite).argmax())} holds NaN or infinite numbers; remove or "
                "repair it"
            )
        lows.append(float(part.min()))
        highs.append(float(part.max()))
    return min(lows[1:], default=0.0), max(highs[1:], default=0.0)
