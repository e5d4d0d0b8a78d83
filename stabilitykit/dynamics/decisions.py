"""Decisions along depth, from a trajectory."""

from __future__ import annotations

import numpy as np

from stabilitykit.dynamics.trajectory import Trajectory

# Images whose final readouts are widened to float64 at once.
_IMAGES = 4096


def decisions_along_depth(trajectory: Trajectory) -> np.ndarray:
    """int64 (T+1, N): the class g chooses at each depth (lowest class on ties)."""
    return np.stack([np.asarray(logits).argmax(axis=1) for logits in trajectory.logits]).astype(np.int64)


def prediction_depth(chosen: np.ndarray) -> np.ndarray:
    """(T+1, N) decisions -> int64 (N,): the first depth from which the decision stays the final one.

    Source: Baldock, Maennel and Neyshabur 2021, with this readout.
    """
    differs = chosen != chosen[-1]
    last = len(chosen) - 1 - np.argmax(differs[::-1], axis=0)
    return np.where(differs.any(axis=0), last + 1, 0).astype(np.int64)


def sureness(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Final logits (N, K), float32 or float64 -> (confidence, margin), float64 (N,).

    Confidence is the softmax probability of the largest logit, margin its excess over the second largest (0 for K = 1);
    both computed in float64.
    """
    confidence, margin = np.empty(len(logits)), np.zeros(len(logits))
    for start in range(0, len(logits), _IMAGES):
        part = slice(start, start + _IMAGES)
        wide = np.asarray(logits[part], dtype=np.float64)
        largest = wide.max(axis=1)
        confidence[part] = 1.0 / np.exp(wide - largest[:, None]).sum(axis=1)
        if wide.shape[1] > 1:
            margin[part] = largest - np.partition(wide, -2, axis=1)[:, -2]
    return confidence, margin
