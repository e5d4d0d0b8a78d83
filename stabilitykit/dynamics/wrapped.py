"""A dataset that is another one but for what a subclass changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabilitykit.dynamics.dataset import Dataset


class Wrapped(Dataset):
    """``inner``, every answer its own."""

    def __init__(self, inner: Dataset) -> None:
        self.name, self.inner = inner.name, inner

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def labels(self) -> np.ndarray:
        return self.inner.labels

    @property
    def class_names(self) -> Sequence[str]:
        return self.inner.class_names

    @property
    def class_names_given(self) -> bool:
        return self.inner.class_names_given

    @property
    def class_ids(self) -> Sequence[int] | None:
        return self.inner.class_ids

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        return self.inner.input_shape

    @property
    def transforms(self) -> Sequence[str]:
        return self.inner.transforms

    @property
    def warnings(self) -> Sequence[str]:
        return self.inner.warnings

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """As of ``inner``."""
        return self.inner.images(indices)

    def picture(self, index: int) -> np.ndarray:
        return self.inner.picture(index)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def describe(self) -> Mapping[str, Any]:
        return self.inner.describe()
