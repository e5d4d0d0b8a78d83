"""A dataset under other names of its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabilitykit.base.errors import UsageProblem
from stabilitykit.dynamics.dataset import Dataset


class Renamed(Dataset):
    """``inner`` with the class names ``names``; everything else is its own.

    Raises:
        UsageProblem: another number of names than it has classes.
    """

    def __init__(self, inner: Dataset, names: Sequence[str]) -> None:
        if len(names) != len(inner.class_names):
            raise UsageProblem(
                f"{len(names)} class names were given, dataset {inner.name} has {len(inner.class_names)} classes "
                f"({', '.join(map(str, list(inner.class_names)[:6]))}...)"
            )
        self.name, self.inner, self._names = inner.name, inner, [str(name) for name in names]

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def labels(self) -> np.ndarray:
        return self.inner.labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._names

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


def check_class_names(names: Sequence[str]) -> None:
    """UsageProblem unless ``names`` are at least two different texts that are not empty."""
    if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names) or len(names) < 2:
        raise UsageProblem(f"class names are at least two texts, one per class; got {names!r}")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageProblem(f"class names are different ones; {twice[0]!r} is given twice")
