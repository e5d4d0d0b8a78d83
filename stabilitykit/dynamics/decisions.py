"""Decisions along depth, from a trajectory."""

from __future__ import annotations

import numpy as np

from stabilitykit.dynamics.trajectory import Trajectory

# Images whose final readouts are widened to float64 at once.
_IMAGES = 4096


def decisions_along_depth(trajectory: Trajectory) -> np.ndarray:
    """int64 (T+1, N): the class g chooses at each depth (lowest class on ties)."""
    return trajectory.decisions.astype(np.int64)


def prediction_depth(chosen: np.ndarray, seeing: np.ndarray | None = None) -> np.ndarray:
    """(T+1, N) decisions -> int64 (N,): the first depth from which the decision stays the final one.

    Arguments:
        seeing: int64 (S,), the depths that are not blind: an image is decided at one of these. None: all.

    Source: Baldock, Maennel and Neyshabur 2021, with this readout.
    """
    depths = np.arange(len(chosen)) if seeing is None or not len(seeing) else seeing
    differs = chosen[depths] != chosen[-1]
    after = len(depths) - np.argmax(differs[::-1], axis=0)
    # Behind the last depth that sees comes the end, should that be blind itself.
    places = np.append(depths, len(chosen) - 1)
    found: np.ndarray = np.where(differs.any(axis=0), places[after], depths[0]).astype(np.int64)
    return found


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
