"""How far each intermediate result can move with the input: the algebra of a layer-wise bound.

`Gains` has the functions that module `folding` has for affine maps; a `Trace` combines values by one or the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.operators import Dense, Linear, Selection


@dataclass(frozen=True, eq=False)
class Gain:
    """One intermediate result of ``size`` numbers per sample.

    start: bounds (3, 3) of its Lipschitz constant from the input, see `pairs`, or None where it is ``linear`` of the
    result ``of``: then a scaling that follows is folded into the matrix first, and the bounds are computed when asked
    for. made: (name of the activation, what it was applied to).
    """

    size: int
    start: np.ndarray | None = None
    linear: Linear | None = None
    of: Gain | None = None
    made: tuple[str, Gain] | None = None

    @property
    def shape(self) -> tuple[int]:
        """As of an `Affine`."""
        return (self.size,)

    @cached_property
    def table(self) -> np.ndarray:
        """(3, 3) bounds of the Lipschitz constant, inf where there is none."""
        if self.start is not None:
            return self.start
        assert self.of is not None and self.linear is not None
        return pairs.after(self.of.table, self.linear.norms)

    @property
    def is_constant(self) -> bool:
        return self.start is not None and not self.start.any()


class Gains:
    """inputs: how many numbers the input has."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs

    def settled(self, table: np.ndarray, size: int, **more: Any) -> Gain:
        """A result with these bounds and what the equivalence of norms adds."""
        return Gain(size, pairs.completed(table, self.inputs, size), **more)

    def of_state(self, state: int, shape: tuple[int, ...]) -> Gain:
        """The input itself."""
        return Gain(prod(shape), pairs.identity(prod(shape)))

    def constant(self, values: np.ndarray) -> Gain:
        """Numbers that depend on nothing."""
        return Gain(len(values), np.zeros((3, 3)))

    def through(self, linear: Linear, value: Gain, size: int) -> Gain:
        """``linear`` of a value. Raises: ValueError for weights that are not finite."""
        weights = getattr(linear, "matrix", getattr(linear, "kernel", None))
        if weights is not None and not np.isfinite(weights).all():
            raise ValueError("has weights that are not finite; expected finite numbers")
        return Gain(size, linear=linear, of=value)

    def apply(self, matrix: Any, value: Gain, shape: tuple[int, ...], error: float = 0.0) -> Gain:
        """A dense matrix, known but for a Frobenius norm ``error``, times a value."""
        return self.through(Dense(np.asarray(matrix), 1, error), value, prod(shape))

    def repeated(self, matrix: np.ndarray, count: int, value: Gain) -> Gain:
        """The same matrix on each of ``count`` pieces."""
        return self.through(Dense(np.ascontiguousarray(matrix), count), value, count * len(matrix))

    def shifted(self, value: Gain, by: np.ndarray) -> Gain:
        """value + by: no distance changes."""
        return value

    def scale(self, factors: np.ndarray, value: Gain, relative: float) -> Gain:
        """Each number times its factor, known to ``relative`` accuracy."""
        if not np.isfinite(factors).all():
            raise ValueError("multiplies by numbers that are not finite; expected finite ones")
        folded = None if value.linear is None else value.linear.rows_scaled(factors * (1 + relative))
        if folded is not None:
            assert value.of is not None
            return self.through(folded, value.of, value.size)
        largest = float(np.abs(factors).max(initial=0.0)) * (1 + relative)
        return self.settled(pairs.after(value.table, largest * pairs.identity(value.size)), value.size)

    def gather(self, index: np.ndarray, value: Gain, shape: tuple[int, ...]) -> Gain:
        """Numbers ``index`` of a value."""
        if len(index) == value.size and (index == np.arange(value.size)).all():
            return value
        if isinstance(value.linear, Selection):
            assert value.of is not None
            return self._selected(value.linear.index[index], value.of)
        return self._selected(np.asarray(index), value)

    def _selected(self, index: np.ndarray, value: Gain) -> Gain:
        if len(index) == value.size and (index == np.arange(value.size)).all():
            return value
        return self.through(Selection(index, value.size), value, len(index))

    def combine(self, a: Gain, b: Gain, sign: float = 1.0) -> Gain:
        """a + sign b."""
        if a.is_constant or b.is_constant:
            return b if a.is_constant else a
        return self.settled((a.table + b.table) * (1 + pairs.MARGIN), a.size)

    def stack(self, values: list[Gain], order: np.ndarray, shape: tuple[int, ...]) -> Gain:
        """Numbers of all values side by side, then those at ``order``."""
        starts = np.cumsum([0, *(v.size for v in values)])
        used = [v for v, a, b in zip(values, starts, starts[1:]) if ((order >= a) & (order < b)).any()]
        bases = {id(self._base(v)): self._base(v) for v in used if not v.is_constant}
        if len(bases) == 1:
            (base,) = bases.values()
            index = np.concatenate([self._positions(v, base) for v in values])
            return self._selected(index[order], base)
        if not bases:
            return self.constant(np.zeros(len(order)))
        tables = np.array([v.table for v in used])
        table = np.full((3, 3), math.inf)
        table[:, 0], table[:, 2] = tables[:, :, 0].sum(0), tables[:, :, 2].max(0)
        largest = tables[:, :, 1].max(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            roots = largest * np.sqrt(((tables[:, :, 1] / largest) ** 2).sum(0))
        table[:, 1] = np.where((largest > 0) & np.isfinite(largest), roots, largest)
        size = int(starts[-1])
        whole = self.settled(table * (1 + pairs.MARGIN * (2 + len(used))), size)
        return self.gather(order, whole, shape)

    @staticmethod
    def _base(value: Gain) -> Gain:
        return value.of if isinstance(value.linear, Selection) and value.of is not None else value

    def _positions(self, value: Gain, base: Gain) -> np.ndarray:
        if value is base:
            return np.arange(value.size)
        if isinstance(value.linear, Selection) and value.of is base:
            return value.linear.index
        return np.full(value.size, -1)  # a constant, or numbers that `order` leaves out
