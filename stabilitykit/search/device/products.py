"""Squared distances from matrix products on a device, with bounds of their rounding that are proven.

|a|^2 + |b|^2 - 2ab: with u the unit roundoff of the products' dtype, a product of readouts of length K, summed in any
order and with or without fused steps, is off by at most K u |a||b| (1 + K u) <= K u (|a|^2 + |b|^2) (1 + K u) / 2;
the norms, their sum and the difference add less than 6 u (|a|^2 + |b|^2). `slack` is twice that. Coordinates taken to
float32 move a distance by u (|a| + |b|) at most, and by what underflows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Squares of numbers up to here, and sums of many of them, stay finite in float32.
LARGEST_SINGLE = 1e15
# Distances in float64 below which squares lose digits or vanish, and a distance above all that such a sum may miss.
UNDERFLOW = 1e-150


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Matrix products in the dtype of their factors: without TF32, without autocast; and no gradients."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode(), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def relative_slack(depths: int, readout: int) -> float:
    """By what part a reduced distance in float64, summed in any order, may differ from the canonical one, and more."""
    return 4 * (readout + depths + 8) * 2.0**-52


@dataclass
class Factors:
    """The points of one depth, ready for products in one dtype.

    Attributes:
        points: (images, readout).
        squares: (images,), squared lengths.
        unit: the unit roundoff.
        moved: whether taking the points to the dtype rounded them.
    """

    points: torch.Tensor
    squares: torch.Tensor
    unit: float
    moved: bool

    @classmethod
    def of(cls, points: torch.Tensor, dtype: torch.dtype) -> Factors:
        """Of points (images, readout), float32 or float64."""
        taken = points.to(dtype)
        squares = taken.double().square().sum(dim=1).to(dtype)
        return cls(
            taken, squares, 2.0**-24 if dtype == torch.float32 else 2.0**-53, points.dtype.itemsize > dtype.itemsize
        )

    def squared(self, rows: slice, columns: slice) -> torch.Tensor:
        """Squared distances (rows, columns) in the products' dtype, each off by less than ``slack`` of the lengths."""
        products = self.points[rows] @ self.points[columns].T
        return torch.add(self.squares[rows, None] + self.squares[columns], products, alpha=-2)

    def slack(self, lengths: float) -> float:
        """By how much a squared distance may be off where |a|^2 + |b|^2 is at most ``lengths``."""
        readout = self.points.shape[1]
        tiny = 1e-37 if self.unit > 1e-10 else 1e-300
        return 2 * (readout + 8) * self.unit * lengths * (1 + 1e-6) + 8 * readout * tiny

    def shift(self, lengths: float) -> float:
        """By how much rounded coordinates may have moved a distance where |a|^2 + |b|^2 is at most ``lengths``."""
        if not self.moved:
            return 0.0
        return float(2 * self.unit * (2 * lengths) ** 0.5 + 1e-37 * (self.points.shape[1] ** 0.5))

    def limit(self, distance: float, lengths: float) -> float:
        """What a computed square exceeds only where the true distance exceeds ``distance``, in the products' dtype."""
        reach = (distance + self.shift(lengths)) * (1 + 1e-14)
        return (reach * reach + self.slack(lengths)) * (1 + 4 * self.unit)
