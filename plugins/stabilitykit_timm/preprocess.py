"""The evaluation transforms that timm and torchvision made their networks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from stabilitykit_adapters.pixels import STATISTICS, Preprocess
from torch import nn


def timm_preprocess(module: nn.Module, shape: Sequence[int] | None = None) -> tuple[Preprocess, dict[str, Any]]:
    """The evaluation transform a timm model was made for (its data_config), and that config as plain data.

    ``shape``: (C, H, W) of one input, where the network was built for another size than its config says. timm's
    transforms take 8-bit images, so pixels are rounded to multiples of 1/255: exact for image files.
    """
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(module)
    if shape is not None:
        config["input_size"] = tuple(shape)
    transform = create_transform(**config, is_training=False)
    channels = int(config["input_size"][0])

    def preprocess(images: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.stack([transform(_picture(image, channels)) for image in images])

    return preprocess, {"by": "timm", **{key: _plain(value) for key, value in config.items()}}


def torchvision_preprocess(shape: Sequence[int]) -> tuple[Preprocess, dict[str, Any]]:
    """torchvision's recipe for classifiers: shorter side to size / 0.875, centre crop, ImageNet statistics."""
    from torchvision.transforms import InterpolationMode, functional

    mean, std = STATISTICS["imagenet"]
    side = int(shape[-1])
    larger = round(side / 0.875)

    def preprocess(images: Sequence[np.ndarray]) -> torch.Tensor:
        batch = []
        for image in images:
            tensor = functional.pil_to_tensor(
                functional.center_crop(
                    functional.resize(_picture(image, int(shape[0])), [larger], InterpolationMode.BILINEAR),
                    [side, side],
                )
            )
            batch.append(functional.normalize(tensor.float() / 255, list(mean), list(std)))
        return torch.stack(batch)

    return preprocess, {
        "by": "torchvision",
        "resize": larger,
        "crop": side,
        "interpolation": "bilinear",
        "mean": list(mean),
        "std": list(std),
    }


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
