"""A dataset under other names of its classes."""

from __future__ import annotations

from collections.abc import Sequence

from stabilitykit.base.errors import UsageProblem
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.wrapped import Wrapped


class Renamed(Wrapped):
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
        super().__init__(inner)
        self._names = [str(name) for name in names]

    @property
    def class_names(self) -> Sequence[str]:
        return self._names

    @property
    def class_names_given(self) -> bool:
        return True


def check_class_names(names: Sequence[str]) -> None:
    """UsageProblem unless ``names`` are at least two different texts that are not empty."""
    if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names) or len(names) < 2:
        raise UsageProblem(f"class names are at least two texts, one per class; got {names!r}")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageProblem(f"class names are different ones; {twice[0]!r} is given twice")
