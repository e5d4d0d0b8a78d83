"""Linear maps by their norms: what a layer-wise bound needs of a matrix, without the matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
import torch

from stabilitykit_lipschitz import pairs, spectral
from stabilitykit_lipschitz.known import side_by_side
from stabilitykit_lipschitz.rounding import UNIT, frobenius, gamma


class Linear(Protocol):
    """norms: (3, 3), see `pairs`."""

    @property
    def norms(self) -> np.ndarray:
        """Upper bounds for all pairs of norms."""

    def rows_scaled(self, factors: np.ndarray) -> Linear | None:
        """Its rows times ``factors`` (outputs,), or None where that leaves its kind."""


@dataclass(frozen=True)
class Dense:
    """The same matrix (m, n) float64 on each of ``parts`` pieces of n numbers, known but for a matrix whose Frobenius
    norm is at most ``error``."""

    matrix: np.ndarray
    parts: int = 1
    error: float = 0.0

    @cached_property
    def norms(self) -> np.ndarray:
        m, n = self.matrix.shape
        table = pairs.of_matrix(self.matrix, spectral.of_dense(self.matrix))
        if self.error:
            lost = np.full((3, 3), math.inf)
            lost[1, 1] = self.error
            table = (table + pairs.completed(lost, n, m)) * (1 + pairs.MARGIN)
        return side_by_side(table, n, m, self.parts)

    def rows_scaled(self, factors: np.ndarray) -> Dense | None:
        rows = factors.reshape(self.parts, -1)
        if not (rows == rows[:1]).all():
            return None
        scaled = self.matrix * rows[0][:, None]
        largest = float(np.abs(rows[0]).max(initial=0.0))
        return Dense(scaled, self.parts, (self.error * largest + 2 * UNIT * frobenius(scaled)) * (1 + 1e-12))


@dataclass(frozen=True)
class Selection:
    """Output i is input index[i], or a constant where index[i] is -1."""

    index: np.ndarray
    inputs: int

    @cached_property
    def norms(self) -> np.ndarray:
        used = self.index[self.index >= 0]
        most = float(np.bincount(used, minlength=1).max(initial=0))
        if most == 0:
            return np.zeros((3, 3))
        table = np.full((3, 3), math.inf)
        root = math.sqrt(most) * (1 + pairs.MARGIN) if most > 1 else 1.0
        table[0] = [most, root, 1.0]
        table[1, 1], table[1, 2], table[2, 2] = root, 1.0, 1.0
        return pairs.completed(table, self.inputs, len(self.index))

    def rows_scaled(self, factors: np.ndarray) -> None:
        return None


@dataclass(frozen=True)
class Convolution:
    """aten's convolution without its bias, on one sample.

    kernel: (O, I / groups, *taps), of a transposed one (I, O / groups, *taps), float64; sizes, outputs: shapes of the
    input and the output, channels first; how: stride, padding, dilation, transposed, output padding, groups. roughly:
    relative error of the kernel's entries.
    """

    kernel: np.ndarray
    sizes: tuple[int, ...]
    outputs: tuple[int, ...]
    how: tuple[Any, ...] = field(repr=False)
    roughly: float = 0.0

    @cached_property
    def norms(self) -> np.ndarray:
        kernel = np.where(self._used(), self.kernel, 0.0)
        top = float(np.abs(kernel).max(initial=0.0))
        if top == 0.0:
            return np.zeros((3, 3))
        scale = math.ldexp(1.0, math.frexp(top)[1])
        size = torch.from_numpy(np.abs(kernel) / scale)
        table = np.full((3, 3), math.inf)
        (rows, columns), (row_squares, column_squares) = self._sums(size), self._sums(size * size)
        table[0] = [columns, math.sqrt(column_squares), float(size.max())]
        table[1, 2], table[2, 2] = math.sqrt(row_squares), rows
        # the sums have at most as many terms as the kernel; torch may group them as it likes
        table *= scale * (1 + 2 * gamma(self.kernel.size + 4)) * (1 + pairs.MARGIN)
        stride, padding, dilation, transposed, _, groups = self.how
        near, far = (self.outputs, self.sizes) if transposed else (self.sizes, self.outputs)
        table[1, 1] = spectral.of_convolution(kernel, near[1:], far[1:], stride, padding, dilation, groups)
        # what is lost is at most a share of |A|, whose l2 norm is at most the root of row sum times column sum
        table[1, 1] += self.roughly * math.sqrt(table[0, 0]) * math.sqrt(table[2, 2])
        table *= (1 + self.roughly) * (1 + pairs.MARGIN)
        return pairs.completed(table, prod(self.sizes), prod(self.outputs))

    def _used(self) -> np.ndarray:
        """bool, of the kernel's shape: the entries that meet a number of the input; others see padding only."""
        with torch._C._DisableTorchDispatch():
            near, far = (torch.ones(1, *shape, dtype=torch.float64) for shape in (self.sizes, self.outputs))
            kernel = torch.ones(self.kernel.shape, dtype=torch.float64)
            (_, times, _) = torch.ops.aten.convolution_backward.default(
                far, near, kernel, None, *self.how, [False, True, False]
            )
        used: np.ndarray = times.numpy() > 0.5
        return used

    def _sums(self, kernel: torch.Tensor) -> tuple[float, float]:
        """Largest row sum and column sum of the matrix with this kernel, which has no negative entry."""
        with torch._C._DisableTorchDispatch():
            ones, far = (torch.ones(1, *shape, dtype=torch.float64) for shape in (self.sizes, self.outputs))
            rows = torch.ops.aten.convolution.default(ones, kernel, None, *self.how)
            (columns, *_) = torch.ops.aten.convolution_backward.default(
                far, ones, kernel, None, *self.how, [True, False, False]
            )
        return float(rows.max()), float(columns.max())

    def rows_scaled(self, factors: np.ndarray) -> Convolution | None:
        rows = factors.reshape(self.outputs[0], -1)
        if self.how[3] or not (rows == rows[:, :1]).all():
            return None
        kernel = self.kernel * rows[:, 0].reshape(-1, *[1] * (self.kernel.ndim - 1))
        return Convolution(kernel, self.sizes, self.outputs, self.how, self.roughly + 1e-15)
