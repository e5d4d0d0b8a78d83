"""From dataset images (float32 in [0, 1]) to a network's input: resize on demand, normalise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit import CellProblem, UsageProblem
from stabilitykit_adapters.statistics import Statistics, statistics

Preprocess = Callable[[Sequence[np.ndarray]], torch.Tensor]


@dataclass(frozen=True)
class Pixels:
    """What a user says about preprocessing in place of what the network's library says; None: as it says.

    Attributes:
        normalise: mean and standard deviation at once (see :mod:`stabilitykit_adapters.statistics`).
        mean, std: each alone.
        size: side of the square input.
        crop_pct: the input's side over the side images are resized to before the centre is cut out.
        interpolation: how images are resized.
    """

    normalise: str | None = None
    mean: str | None = None
    std: str | None = None
    size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None

    @classmethod
    def taken(cls, options: dict[str, Any]) -> Pixels:
        """From a component's options, which are taken out of ``options``."""
        return cls(**{name: options.pop(name, None) for name in cls.__dataclass_fields__})

    def statistics(self, owner: str, usual: Statistics | None) -> Statistics | None:
        """(mean, std) per channel, or None for none."""
        return statistics(self.normalise, self.mean, self.std, owner, usual)


def plain_preprocess(
    shape: Sequence[int], given: Pixels, resize: bool, owner: str
) -> tuple[Preprocess, dict[str, Any]]:
    """Pixels in [0, 1], resized (antialiased) only if asked to, minus mean, over standard deviation.

    Arguments:
        shape: what one input looks like; images of another size are a CellProblem unless ``resize``. Where it has
            fewer axes, images are flattened, or lose axes of length 1 (sequences, feature vectors).
        given: with ``crop_pct`` the shorter side is resized to the input's side over it and the centre cut out, else
            the whole image is resized to the input's height and width.

    Returns:
        (images -> input, what it does as plain data).
    """
    chosen = given.statistics(owner, None)
    channels = shape[0] if shape else 1
    if chosen is not None and len(shape) == 3 and len(chosen[0]) not in (1, channels):
        raise UsageProblem(f"{owner}: {len(chosen[0])} means and standard deviations for {channels} channels")
    if (given.crop_pct or given.interpolation) and not resize:
        raise UsageProblem(f"{owner}: crop_pct and interpolation say how images are resized; add resize=true")
    mode = given.interpolation or "bilinear"

    def preprocess(images: Sequence[np.ndarray]) -> torch.Tensor:
        batch = torch.stack([_sized(image, shape, resize, owner, mode, given.crop_pct) for image in images])
        if chosen is None:
            return batch
        mean, std = (torch.tensor(values).reshape(-1, *(1,) * (batch.ndim - 2)) for values in chosen)
        return (batch - mean) / std

    described: dict[str, Any] = {"resize": list(shape) if resize else None, "normalise": given.normalise or "none"}
    if resize and (given.crop_pct or given.interpolation):
        described |= {"interpolation": mode, "crop_pct": given.crop_pct}
    if chosen is not None:
        described |= {"mean": list(chosen[0]), "std": list(chosen[1])}
    return preprocess, described


def _sized(
    image: np.ndarray, shape: Sequence[int], resize: bool, owner: str, mode: str, crop_pct: float | None
) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    if tuple(tensor.shape) == tuple(shape) and crop_pct is None:
        return tensor
    if tensor.ndim == 3 and len(shape) == 3:
        if tensor.shape[0] == 1 and shape[0] == 3:
            tensor = tensor.expand(3, -1, -1)
        if resize and tensor.shape[0] == shape[0]:
            return _resized(tensor, shape[1], shape[2], mode, crop_pct)
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


def _resized(tensor: torch.Tensor, height: int, width: int, mode: str, crop_pct: float | None) -> torch.Tensor:
    """(C, any, any) -> (C, height, width), squeezed, or with ``crop_pct`` scaled and its centre cut out."""
    size = height, width
    if crop_pct is not None:
        rows, columns = tensor.shape[1:]
        factor = max(height / rows, width / columns) / crop_pct
        size = max(height, round(rows * factor)), max(width, round(columns * factor))
    smooth = mode in ("bilinear", "bicubic")
    out = nn.functional.interpolate(tensor[None], size, mode=mode, antialias=smooth)[0]
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return (
        out[:, top : top + height, left : left + width].clamp(0, 1)
        if mode == "bicubic"
        else out[:, top : top + height, left : left + width]
    )


def _fewer_axes(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether one image becomes an input by dropping axes of length 1, or by flattening it altogether."""
    return len(wanted) == 1 or [n for n in given if n != 1] == [n for n in wanted if n != 1]
