"""Training images flipped and shifted at random, anew in every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.wrapped import Wrapped

SHARE = 8
"""A crop shifts by up to 1/8 of the side: 4 pixels of 32, as is usual on CIFAR-10."""


class Augmented(Wrapped):
    """The images of another dataset, changed in a way that depends on seed, epoch and index alone.

    So a resumed epoch, and one whose images come in another order, sees the same pixels. Made before the model's
    preprocessing: what moves in at the border is black, whatever the model makes of black.

    Arguments:
        dataset: (C, H, W) float32 images.
        augment: of ``flip`` and ``crop`` (:class:`~stabilitykit.training.recipe.Recipe`).
        seed, epoch: of the random choices.
    """

    def __init__(self, dataset: Dataset, augment: Sequence[str], seed: int, epoch: int) -> None:
        super().__init__(dataset)
        self._augment = tuple(augment)
        generator = np.random.Generator(np.random.PCG64([seed, epoch, 1]))
        self._flipped = generator.random(len(dataset)) < 0.5
        self._shifts = generator.uniform(-1.0, 1.0, (len(dataset), 2))

    @property
    def transforms(self) -> Sequence[str]:
        """Those of the dataset, then the random ones."""
        return (*self.inner.transforms, *(f"random {name}" for name in self._augment))

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """Images at ``indices``, each of its own size (C, H, W), float32."""
        return [self._changed(image, index) for image, index in zip(self.inner.images(indices), indices)]

    def _changed(self, image: np.ndarray, index: int) -> np.ndarray:
        if "flip" in self._augment and self._flipped[index]:
            image = image[:, :, ::-1]
        if "crop" in self._augment:
            image = _shifted(image, self._shifts[index])
        return np.ascontiguousarray(image)


def _shifted(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(C, H, W) moved by ``shift`` (down, right) in units of the largest move, black moving in."""
    sides = image.shape[1:]
    # Every whole number of pixels from -reach to reach is equally likely.
    moves = [
        int(np.floor((part + 1) / 2 * (2 * (side // SHARE) + 1))) - side // SHARE for part, side in zip(shift, sides)
    ]
    moved = np.zeros_like(image)
    into = tuple(slice(max(m, 0), side + min(m, 0)) for m, side in zip(moves, sides))
    out = tuple(slice(max(-m, 0), side + min(-m, 0)) for m, side in zip(moves, sides))
    moved[(slice(None), *into)] = image[(slice(None), *out)]
    return moved
