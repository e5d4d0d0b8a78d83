"""The space distances are taken in: probabilities (softmax of the readout) or logits."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from stabilitykit.base.errors import UsageProblem

Space = Literal["probabilities", "logits"]


def to_space(logits: np.ndarray, space: Space) -> np.ndarray:
    """Logits (..., K) -> float64 values in ``space``; the softmax is taken in float64.

    Softmax in float32 saturates: near-certain images become equal and distances of 1e-8 vanish.
    """
    values = np.asarray(logits, dtype=np.float64)
    if space == "logits":
        return values
    if space != "probabilities":
        raise UsageProblem(f"space is probabilities or logits; got {space!r}")
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def to_space_torch(logits: torch.Tensor, space: Space) -> torch.Tensor:
    """Differentiable twin of :func:`to_space`: logits (..., K) of any float dtype -> values in ``space``, float64."""
    values = logits.double()
    return values if space == "logits" else torch.softmax(values, dim=-1)
