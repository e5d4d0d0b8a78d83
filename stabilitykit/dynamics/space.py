"""The space distances are taken in: probabilities (softmax of the readout) or logits."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from stabilitykit.base.errors import UsageProblem

Space = Literal["probabilities", "logits"]
SUM_TOLERANCE = 1e-3
"""How far the sum of a row of probabilities may be from 1: sums of a softmax in float16 are off by up to 5e-4."""


def to_space(logits: np.ndarray, space: Space) -> np.ndarray:
    """Logits (..., K) -> float64 values in ``space``; the softmax is taken in float64.

    Softmax in float32 saturates: near-certain images become equal and distances of 1e-8 vanish.

    Raises:
        UsageProblem: ``space`` is neither ``"probabilities"`` nor ``"logits"``.

    Examples:
        >>> to_space(np.array([[0.0, 0.0], [1000.0, 0.0]]), "probabilities").tolist()
        [[0.5, 0.5], [1.0, 0.0]]
    """
    values = np.asarray(logits, dtype=np.float64)
    if space == "logits":
        return values
    if space != "probabilities":
        raise UsageProblem(f"space is probabilities or logits; got {space!r}")
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def kind_of_outputs(values: torch.Tensor) -> str:
    """``"probabilities"``, ``"log-probabilities"`` or ``"logits"``, judged by float rows (B, K) that a network gave.

    ``values`` is of any dtype.

    Rows that sum to 1 are probabilities up to :data:`SUM_TOLERANCE`. Log-probabilities are logits, too: their softmax
    is the probabilities.
    """
    rows = values.detach().double()
    if rows.ndim == 2 and rows.shape[1] >= 2 and bool(torch.isfinite(rows).all()):
        if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < SUM_TOLERANCE).all()):
            return "probabilities"
        if bool((rows <= 0).all()) and bool((rows.logsumexp(1).abs() < SUM_TOLERANCE).all()):
            return "log-probabilities"
    return "logits"


def to_space_torch(logits: torch.Tensor, space: Space) -> torch.Tensor:
    """Differentiable twin of :func:`to_space`: logits (..., K) of any float dtype -> values in ``space``, float64."""
    values = logits.double()
    return values if space == "logits" else torch.softmax(values, dim=-1)
