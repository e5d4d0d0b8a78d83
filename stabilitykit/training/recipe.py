"""How to train: the paper's recipe, the augmented one that reaches its accuracy, and everything between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from stabilitykit.base.errors import UsageProblem

AUGMENTATIONS = ("flip", "crop")
SCHEDULES = ("constant", "onecycle", "cosine")
PRECISIONS = ("float32", "bfloat16")
HIGHEST_LR = 1e3


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the paper's.

    Attributes:
        epochs: passes over the images.
        batch_size: images per step. A last batch of one image is left out: BatchNorm has no variance for it.
        lr: learning rate of Adam, the highest one of a schedule; other parameters as PyTorch has them.
        seed: of the order of images and their augmentation (functions of seed and epoch alone), of dropout and of
            which images are held out.
        patience: stop after this many epochs without a lower loss on the watched images and keep the best epoch;
            None: never.
        augment: of ``flip`` (left and right, every second image) and ``crop`` (a shift by up to an eighth of the
            image, black pixels moving in); in every epoch anew.
        schedule: of the learning rate. ``constant``; ``onecycle``: up from lr/25 over the first 30 % of the steps,
            down to nearly 0 (Smith and Topin); ``cosine``: from lr down to 0.
        amp: dtype of the network's products while training; weights and the loss stay float32.
        weight_decay: decoupled, as of AdamW.
        average: the weights kept are a moving average of those of all steps, the old average counting this much
            (0.99: about the last 100 steps); 0: the weights of the last step.
        hold_out: images taken out of the training images, to be watched.
        limit: train on a seeded random subset of so many images; None: on all.
    """

    epochs: int = 100
    batch_size: int = 400
    lr: float = 1e-4
    seed: int = 0
    patience: int | None = None
    augment: tuple[str, ...] = ()
    schedule: str = "constant"
    amp: str = "float32"
    weight_decay: float = 0.0
    average: float = 0.0
    hold_out: int = 0
    limit: int | None = None

    def check(self, *, watched: bool = True) -> None:
        """UsageProblem where this is no recipe; ``watched``: whether there are images to stop early by."""
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.lr <= HIGHEST_LR:
            raise UsageProblem(
                f"epochs and batch size are at least 1 and lr is positive, at most {HIGHEST_LR:g}; got {self}"
            )
        if self.patience is not None and self.patience < 1:
            raise UsageProblem(f"--patience is at least 1; got {self.patience}")
        if self.patience is not None and not watched:
            raise UsageProblem("early stopping (--patience) needs images to watch: --hold-out or --validation")
        for given, known in ((self.augment, AUGMENTATIONS), ((self.schedule,), SCHEDULES), ((self.amp,), PRECISIONS)):
            unknown = [word for word in given if word not in known]
            if unknown:
                raise UsageProblem(f"a recipe knows {', '.join(known)}; got {', '.join(unknown)}")
        if not 0 <= self.weight_decay < float("inf") or not 0 <= self.average < 1 or self.hold_out < 0:
            raise UsageProblem(
                f"weight decay and held-out images are not negative, average is from 0 to below 1; got {self}"
            )

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Recipe:
        """The recipe in a checkpoint; what older ones do not name is the default. Other keys are left out."""
        known = {key: value for key, value in record.items() if key in cls.__dataclass_fields__}
        return cls(**{**known, "augment": tuple(known.get("augment", ()))})

    def identity(self) -> dict[str, Any]:
        """What a resumed training must agree on: all but when to stop, where that changes no step before it."""
        changing = {"patience": None} | ({"epochs": None} if self.schedule == "constant" else {})
        return {**asdict(self), **changing}


RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": {"limit": 50_000},
        "augmented": {"epochs": 30, "lr": 1e-3, "augment": ("flip", "crop"), "schedule": "onecycle", "amp": "bfloat16"},
    }
)
"""Recipes by name: what each has other than :class:`Recipe`. ``paper``: as its section 3 says it (its 50,000 images
of MNIST are a seeded random part). ``augmented``: our inference of how its accuracies were reached."""


def held_out(indices: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Images to train on and images to watch, drawn by the recipe's seed.

    Arguments:
        indices: integers (n,).

    Returns:
        (n - hold_out,) and (hold_out,), both in the order of ``indices``.

    Raises:
        UsageProblem: fewer than two images would be left to train on.
    """
    if len(indices) - recipe.hold_out < 2:
        raise UsageProblem(f"--hold-out {recipe.hold_out} leaves fewer than 2 of {len(indices)} images to train on")
    chosen = np.random.Generator(np.random.PCG64([recipe.seed, 2])).permutation(len(indices))[: recipe.hold_out]
    watched = np.zeros(len(indices), dtype=bool)
    watched[chosen] = True
    return indices[~watched], indices[watched]
