"""From dataset images (float32 in [0, 1]) to a network's input: resize on demand, normalise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit import CellProblem, UsageProblem

Preprocess = Callable[[Sequence[np.ndarray]], torch.Tensor]

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Named means and standard deviations per channel."""


def plain_preprocess(
    shape: Sequence[int], normalise: str, resize: bool, owner: str
) -> tuple[Preprocess, dict[str, Any]]:
    """Pixels in [0, 1], resized (bilinear, antialiased) only if asked to, minus mean, over standard deviation.

    Args:
        shape: what one input looks like; images of another size are a CellProblem unless ``resize``. Where it has
            fewer axes, images are flattened, or lose axes of length 1 (sequences, feature vectors).
        normalise: ``none``, a name in :data:`STATISTICS`, or ``MEAN/STD`` with numbers separated by blanks, e.g.
            ``"0.5/0.25"`` or ``"0.49 0.48 0.45/0.25 0.24 0.26"``.
    """
    statistics = _statistics(normalise, owner)

    def preprocess(images: Sequence[np.ndarray]) -> torch.Tensor:
        batch = torch.stack([_sized(image, shape, resize, owner) for image in images])
        if statistics is None:
            return batch
        mean, std = (torch.tensor(values).reshape(-1, *(1,) * (batch.ndim - 2)) for values in statistics)
        return (batch - mean) / std

    described: dict[str, Any] = {"resize": list(shape) if resize else None, "normalise": normalise}
    if statistics is not None:
        described |= {"mean": list(statistics[0]), "std": list(statistics[1])}
    return preprocess, described


def _statistics(text: str, owner: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if text == "none":
        return None
    if text in STATISTICS:
        return STATISTICS[text]
    mean, slash, std = text.partition("/")
    try:
        values = tuple(map(float, mean.split())), tuple(map(float, std.split()))
    except ValueError:
        values = (), ()
    if not slash or not values[0] or len(values[0]) != len(values[1]) or min(values[1]) <= 0:
        raise UsageProblem(
            f"{owner}: normalise is none, {', '.join(STATISTICS)} or MEAN/STD (as many numbers on both "
            f"sides, std above 0, separated by blanks); got {text!r}"
        )
    return values


def _sized(image: np.ndarray, shape: Sequence[int], resize: bool, owner: str) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    if tensor.ndim == 3 and len(shape) == 3:
        if tensor.shape[0] == 1 and shape[0] == 3:
            tensor = tensor.expand(3, -1, -1)
        if resize and tensor.shape[0] == shape[0]:
            return nn.functional.interpolate(tensor[None], tuple(shape[1:]), mode="bilinear", antialias=True)[0]
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    if len(shape) < tensor.ndim and tensor.numel() == math.prod(shape) and _fewer_axes(tensor.shape, shape):
        return tensor.reshape(tuple(shape))
    size, wanted = ("x".join(map(str, s)) for s in (image.shape, shape))
    single = image.ndim == 3 and len(shape) < 3 and math.prod(image.shape) == 3 * math.prod(shape)
    if len(shape) == 3 and shape[0] == 1 and image.ndim == 3 and image.shape[0] == 3:
        raise CellProblem(
            f"model {owner} takes inputs of {wanted}, one channel, got {size}; give the dataset channels=1 for grey "
            "images (imagefolder:DIR,channels=1)" + ("" if image.shape[1:] == tuple(shape[1:]) else " and resize=true")
        )
    raise CellProblem(
        f"model {owner} takes inputs of {wanted}, got {size}; set input={size} if it takes those, or "
        + ("channels=keep on the dataset, which repeats one channel to three" if single else "resize=true")
    )


def _fewer_axes(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether one image becomes an input by dropping axes of length 1, or by flattening it altogether."""
    return len(wanted) == 1 or [n for n in given if n != 1] == [n for n in wanted if n != 1]
