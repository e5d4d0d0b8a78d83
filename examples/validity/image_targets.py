"""Which images are to be found: decisions that change, that an attack breaks first, that are wrong; wrong labels."""

from __future__ import annotations

import harms
import numpy as np
from population import Member

FEWEST = 10
"""Images on either side below which a target says nothing."""


def changes(member: Member, images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """``wrong`` and ``flips.*``: float64 (N,), 1 the images to be found, 0 the others.

    Arguments:
        images: float32 (N, 3, H, W) in [0, 1]. labels: int64 (N,).
    """
    low = harms.quantised(member, images)
    thin = harms.pruned(member, images)
    model = member.load()
    clean = harms.decided(model.logits, images, model.preprocess)
    found = {"wrong": clean != labels}
    found |= {f"flips.{name}": classes != clean for name, classes in low.items()}
    found |= {f"flips.pruned{round(100 * share)}": classes != clean for share, classes in thin.items()}
    return {name: values.astype(np.float64) for name, values in found.items()}


def attacked_first(member: Member, images: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """float64 (N,): 1 fallen and 0 standing at the radius at which nearest to half of those decided rightly have
    fallen; NaN where wrong unattacked, and beyond the first ``count``. Radii are tried from the smallest until more
    than half have fallen.

    Arguments:
        images: float32 (N, 3, H, W) in [0, 1]. labels: int64 (N,).
    """
    found = np.full(len(images), np.nan)
    smallest = np.zeros(min(count, len(images)))
    standing = np.arange(len(smallest))
    radii = []
    for radius in member.attack_eps:
        fallen = harms.attacked(member, images[standing], labels[standing], [radius]).smallest
        smallest[standing] = fallen
        right = smallest != 0
        standing = np.flatnonzero(np.isinf(smallest))
        radii.append(radius)
        if 2 * len(standing) < right.sum():
            break
    shares = [(smallest[right] <= radius).mean() for radius in radii]
    chosen = radii[int(np.argmin(np.abs(np.array(shares) - 0.5)))]
    found[: len(smallest)] = np.where(right, smallest <= chosen, np.nan)
    return found


def telling(target: np.ndarray) -> bool:
    """Whether both sides of a target, float (N,) with NaN for images that do not count, have FEWEST images."""
    return bool(min((target == 1).sum(), (target == 0).sum()) >= FEWEST)
