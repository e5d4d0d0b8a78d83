"""The evaluation transforms that timm and torchvision made their networks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from stabilitykit_adapters.pixels import Pixels, Preprocess
from stabilitykit_adapters.statistics import STATISTICS, Statistics
from torch import nn

from stabilitykit import UsageProblem


def timm_preprocess(
    module: nn.Module, shape: Sequence[int] | None = None, pixels: Pixels | None = None
) -> tuple[Preprocess, dict[str, Any]]:
    """The evaluation transform a timm model was made for (its data_config), and that config as plain data.

    Arguments:
        shape: (C, H, W) of one input, where the network was built for another size than its config says.
        pixels: what a user says in place of the config.

    timm's transforms take 8-bit images, so pixels are rounded to multiples of 1/255: exact for image files.
    """
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(module)
    pixels = pixels or Pixels()
    if shape is not None:
        config["input_size"] = tuple(shape)
    channels = int(config["input_size"][0])
    mean, std = _per_channel(pixels, (tuple(config["mean"]), tuple(config["std"])), channels)
    config |= {"mean": mean, "std": std}
    if pixels.crop_pct is not None:
        config["crop_pct"] = pixels.crop_pct
    if pixels.interpolation is not None:
        config["interpolation"] = pixels.interpolation
    transform = create_transform(**config, is_training=False)

    def preprocess(images: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.stack([transform(_picture(image, channels)) for image in images])

    return preprocess, {"by": "timm", **{key: _plain(value) for key, value in config.items()}}


def torchvision_preprocess(shape: Sequence[int], pixels: Pixels | None = None) -> tuple[Preprocess, dict[str, Any]]:
    """torchvision's recipe for classifiers: shorter side to size / 0.875, centre crop, ImageNet statistics.

    Arguments:
        shape: (C, H, W) of one input.
        pixels: what a user says in place of the recipe.
    """
    from torchvision.transforms import InterpolationMode, functional

    pixels = pixels or Pixels()
    mean, std = _per_channel(pixels, STATISTICS["imagenet"], int(shape[0]))
    side = int(shape[-1])
    larger = round(side / (pixels.crop_pct or 0.875))
    mode = InterpolationMode(pixels.interpolation or "bilinear")

    def preprocess(images: Sequence[np.ndarray]) -> torch.Tensor:
        batch = []
        for image in images:
            tensor = functional.pil_to_tensor(
                functional.center_crop(functional.resize(_picture(image, int(shape[0])), [larger], mode), [side, side])
            )
            batch.append(functional.normalize(tensor.float() / 255, list(mean), list(std)))
        return torch.stack(batch)

    return preprocess, {
        "by": "torchvision",
        "resize": larger,
        "crop": side,
        "interpolation": mode.value,
        "mean": list(mean),
        "std": list(std),
    }


def _per_channel(pixels: Pixels, usual: Statistics, channels: int) -> Statistics:
    """Mean and standard deviation for every channel; ``normalise=none`` is mean 0 and deviation 1."""
    mean, std = pixels.statistics("normalise", usual) or ((0.0,), (1.0,))
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    if len(mean) != channels:
        raise UsageProblem(
            f"{len(mean)} means and standard deviations for {channels} channels: give mean= and std= for each channel"
        )
    return mean, std


def _picture(image: np.ndarray, channels: int) -> Any:
    """(C, H, W) float in [0, 1] -> 8-bit PIL image with ``channels`` channels."""
    from PIL import Image

    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
    if pixels.shape[0] == 1:
        picture = Image.fromarray(pixels[0], mode="L")
    else:
        picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return picture.convert("RGB" if channels == 3 else "L")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
