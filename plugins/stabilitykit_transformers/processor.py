"""The image processor that was saved with a network: how images are made its input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stabilitykit_adapters.pixels import Pixels, Preprocess

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.base.errors import describe

FILES = ("preprocessor_config.json", "processor_config.json")
RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}
"""Pillow's numbers of the ways to resize."""
_STATED = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "crop_pct",
    "do_pad",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_convert_rgb",
)


def image_processor(package: Any, folder: str, download: bool, name: str) -> Any:
    """The processor of a folder, or of the hub; None where a folder has none.

    Raises:
        UsageProblem: it cannot be loaded.
    """
    if Path(folder).is_dir() and not any((Path(folder) / file).is_file() for file in FILES):
        return None
    try:
        return package.AutoImageProcessor.from_pretrained(
            folder, local_files_only=not download, trust_remote_code=False
        )
    except Exception as error:  # damaged files, missing packages, code that is asked for
        raise UsageProblem(f"model {name}: its image processor cannot be loaded: {describe(error, 300)}") from None


def prepared(
    processor: Any, pixels: Pixels, declared: Sequence[int], owner: str
) -> tuple[tuple[int, ...], Preprocess, dict[str, Any]]:
    """(shape of one input, images -> input, what it does as plain data).

    Arguments:
        pixels: what a user says in place of the processor's own numbers.
        declared: (C, H, W) as the network says; taken where the processor leaves the size of images as it is.
    """
    changes = _changes(processor, pixels, owner)
    channels = int(declared[0])

    def preprocess(images: Sequence[np.ndarray]) -> torch.Tensor:
        pictures = [_picture(image, channels, owner) for image in images]
        try:
            found = processor(pictures, input_data_format="channels_first", return_tensors="pt", **changes)
        except Exception as error:
            raise CellProblem(f"model {owner}: its image processor failed: {describe(error, 300)}") from None
        made: torch.Tensor = found["pixel_values"]
        return made.float()

    settings = processor.to_dict() | changes
    described = {key: _plain(settings[key]) for key in _STATED if settings.get(key) is not None}
    resizes = bool(settings.get("do_resize")) or bool(settings.get("do_center_crop"))
    shape = tuple(declared)
    if resizes:
        shape = tuple(preprocess([np.zeros((channels, 64, 80), dtype=np.float32)]).shape[1:])
    return shape, preprocess, {"by": type(processor).__name__, **described}


def _changes(processor: Any, pixels: Pixels, owner: str) -> dict[str, Any]:
    """What a user's numbers change in a call of the processor."""
    if pixels.crop_pct is not None:
        raise UsageProblem(f"model {owner}: its image processor says how images are cropped; crop_pct is not taken")
    own = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    usual = (tuple(own[0]), tuple(own[1])) if own[0] is not None and own[1] is not None else None
    changes: dict[str, Any] = {}
    if pixels.normalise is not None or pixels.mean is not None or pixels.std is not None:
        chosen = pixels.statistics(owner, usual)
        changes["do_normalize"] = chosen is not None
        if chosen is not None:
            changes |= {"image_mean": list(chosen[0]), "image_std": list(chosen[1])}
    if pixels.size is not None:
        side = {"height": pixels.size, "width": pixels.size}
        changes |= {"do_resize": True, "size": side}
        if getattr(processor, "do_center_crop", None):
            changes["crop_size"] = side
    if pixels.interpolation is not None:
        changes["resample"] = RESAMPLE[pixels.interpolation]
    return changes


def _picture(image: np.ndarray, channels: int, owner: str) -> np.ndarray:
    """(C, H, W) float in [0, 1] -> 8-bit (channels, H, W): exact for image files of 8 bits."""
    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, channels):
        raise CellProblem(
            f"model {owner} takes images with {channels} channel{'s' * (channels > 1)}, got images "
            f"{'x'.join(map(str, image.shape))}; give the dataset channels={channels}"
        )
    return np.repeat(pixels, channels, axis=0) if pixels.shape[0] != channels else pixels


def _plain(value: Any) -> Any:
    """A setting as plain data."""
    found: Any = json.loads(json.dumps(value, default=lambda thing: getattr(thing, "__dict__", str(thing))))
    return found
