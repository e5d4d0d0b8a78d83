"""Labelled images in a fixed order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from stabilitykit.base.errors import DataProblem


class Dataset(ABC):
    """Labelled images in a fixed, unshuffled order."""

    name: str = "dataset"

    @abstractmethod
    def __len__(self) -> int:
        """N, the number of images."""

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """int64 (N,), values in 0..K-1."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """K names; ``class_names[c]`` names label c."""

    @abstractmethod
    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """Images at ``indices``: each (C, H, W) float32 in [0, 1]; sizes may differ between images."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of pixels, labels and transforms: equal data give equal fingerprints on any machine."""

    def picture(self, index: int) -> np.ndarray:
        """Image ``index`` as people look at it: (C, H, W) float32 in [0, 1]; by default the image itself."""
        return self.images([index])[0]

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one input of the network, where the images are inputs as they are; else None."""
        return None

    @property
    def transforms(self) -> Sequence[str]:
        """What was done to the stored pixels, in order, as text (recorded in provenance)."""
        return ()

    @property
    def class_names_given(self) -> bool:
        """Whether the class names came with the data; False where they only count 0, 1, 2..."""
        return True

    @property
    def class_ids(self) -> Sequence[int] | None:
        """K numbers the classes have where the labels come from, when these are not 0..K-1; else None."""
        return None

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader of the results has to know, one line each: files left out, images that show nothing..."""
        return ()

    def describe(self) -> Mapping[str, Any]:
        """Plain data for the record: path, split, options."""
        return {}

    @cached_property
    def order_in_class(self) -> np.ndarray:
        """int64 (N,): 0-based position of each image among the images of its class (the paper's numbering)."""
        labels = np.asarray(self.labels)
        order = np.zeros(len(labels), dtype=np.int64)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            order[members] = np.arange(len(members))
        return order

    def check(self) -> None:
        """DataProblem unless labels and class names fit together and every index has an image."""
        labels = np.asarray(self.labels)
        if len(labels) != len(self):
            raise DataProblem(f"dataset {self.name}: {len(labels)} labels for {len(self)} images")
        if len(labels) == 0:
            raise DataProblem(f"dataset {self.name} is empty")
        if labels.dtype.kind not in "iu":
            raise DataProblem(f"dataset {self.name}: labels are {labels.dtype}, expected integers")
        classes = len(self.class_names)
        if labels.min() < 0 or labels.max() >= classes:
            raise DataProblem(
                f"dataset {self.name}: labels range over {labels.min()}..{labels.max()}, "
                f"expected 0..{classes - 1} for its {classes} class names"
            )
