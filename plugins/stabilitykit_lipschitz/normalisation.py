"""The nonlinear part of LayerNorm and RMSNorm: bounded on the whole vector, not per coordinate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Normalisation:
    """z -> z / sqrt(mean(z^2) + eps): LayerNorm after centring (folded into the weights), or RMSNorm.

    Its Jacobian is symmetric, positive semidefinite and at most 1/sqrt(mean(z^2) + eps): a bound on the whole
    vector, not per coordinate, so its layer is `shared`.
    """

    eps: float
    name: str = "normalisation"
    piecewise_linear: bool = False
    kinks: tuple[float, ...] = ()
    blur: float = 0.0

    def value(self, z: np.ndarray) -> np.ndarray:
        return z / np.sqrt((z * z).mean(-1, keepdims=True) + self.eps)

    def linearise(self, z: np.ndarray) -> _Radial:
        return _Radial(z, np.sqrt((z * z).mean(-1, keepdims=True) + self.eps))


@dataclass(frozen=True)
class _Radial:
    z: np.ndarray
    scale: np.ndarray

    def push(self, v: np.ndarray) -> np.ndarray:
        inner = (self.z * v).mean(-1, keepdims=True)
        return v / self.scale - self.z * inner / self.scale**3

    pull = push
