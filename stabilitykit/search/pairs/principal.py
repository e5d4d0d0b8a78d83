"""Principal directions of a sample of points."""

from __future__ import annotations

import numpy as np


def principal_directions(sample: np.ndarray, most: int) -> np.ndarray:
    """(readout, m) orthonormal float64: the directions in which the sample spreads most, m <= most."""
    if sample.shape[1] <= sample.shape[0]:
        _, vectors = np.linalg.eigh(sample.T @ sample)
        found = vectors[:, ::-1][:, :most]
    else:
        weights, vectors = np.linalg.eigh(sample @ sample.T)
        # Directions of small weight would be rounding noise.
        useful = max(1, int((weights > 1e-12 * weights[-1]).sum()))
        found = sample.T @ vectors[:, ::-1][:, : min(most, useful)]
    return np.linalg.qr(found)[0]
