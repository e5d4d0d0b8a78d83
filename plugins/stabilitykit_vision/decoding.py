"""One image file -> pixels in [0, 1], whatever its mode, and what has to be said about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit import DataProblem
from stabilitykit_vision.channels import grey_of
from stabilitykit_vision.ranges import Range, guess

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION, BITS, PHOTOMETRIC = 0x0112, 258, 262

ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
BACKGROUND = {"white": 1.0, "black": 0.0}


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        size: side to which every image is resized; None: as stored.
        channels: ``"3"``, ``"1"`` or ``"keep"``.
        alpha: ``"drop"``, ``"white"``, ``"black"`` or ``"only"``.
        range: which stored numbers are black and white; None: what the format says.
    """

    size: int | None = None
    channels: str = "3"
    alpha: str = "drop"
    range: Range | None = None


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels are decoded.

    Attributes:
        turned: it is tagged with an orientation other than upright.
        deep: ``"16-bit"``, ``"32-bit"`` or ``"float"`` where it has more than 8 bits a pixel, else "".
        alpha: it may have transparent pixels.
        frames: number of pictures in it.
    """

    turned: bool
    deep: str
    alpha: bool
    frames: int


class Unreadable(DataProblem):
    """A file that cannot be decoded."""


@contextmanager
def no_bombs() -> Iterator[None]:
    """Pictures of more pixels than Pillow thinks sane are errors inside."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def read_header(file: Path) -> Header:
    """The header of ``file``; Unreadable, naming it, when it is no image."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            mode, kind = image.mode, image.format
            turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
            deep = {"F": "float", "I": "32-bit"}.get(mode, "16-bit" if mode.startswith("I;") else "")
            if mode == "I" and kind in ("PNG", "PPM"):
                deep = "16-bit"
            frames = 1 if kind == "MPO" else int(getattr(image, "n_frames", 1))
            return Header(turned, deep, mode in ALPHA or "transparency" in image.info, frames)
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error...
        raise unreadable(file, error) from None


@dataclass(frozen=True)
class Pixels:
    """One image as it is stored, upright.

    Attributes:
        stored: (C, H, W), 1 or 3 channels, uint8, uint16, int32 or float32.
        alpha: float32 (1, H, W) in [0, 1], or None where all is opaque.
        format_range: which stored numbers are black and white; None where the format does not say.
    """

    stored: np.ndarray
    alpha: np.ndarray | None
    format_range: Range | None


def read_pixels(file: Path) -> Pixels:
    """The first picture in ``file``, turned as its EXIF orientation says; Unreadable when it cannot be decoded."""
    from PIL import Image, ImageOps

    try:
        # By handle, not by name: Pillow maps uncompressed TIFFs into memory with width and height exchanged when
        # their orientation tag turns them.
        with open(file, "rb") as handle, Image.open(handle) as opened:
            kind, tags = opened.format, dict(getattr(opened, "tag_v2", {}) or {})
            opened.load()
            image = ImageOps.exif_transpose(opened)
            return _pixels(image, kind, tags)
    except Exception as error:
        raise unreadable(file, error) from None


def _pixels(image: Image.Image, kind: str | None, tags: dict[int, object]) -> Pixels:
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        stored = np.asarray(image)
        known: Range | None = None
        if image.mode.startswith("I;"):
            told: Any = tags.get(BITS, 16)
            bits = int(told[0] if isinstance(told, tuple) else told)
            known = Range(0, 2**bits - 1)
            if tags.get(PHOTOMETRIC) == 0:  # white is zero; Pillow inverts 8-bit pixels only
                stored = (int(known.high) - stored.astype(np.int64)).astype(np.uint16)
            stored = stored.astype(np.uint16)
        elif image.mode == "I" and kind in ("PNG", "PPM"):
            known = Range(0, 65535)
        elif image.mode == "F":
            known = Range(0, 1)
        return Pixels(stored[None], None, known)
    alpha = None
    if image.mode in ALPHA or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"), dtype=np.float32)[None] / np.float32(255)
        alpha = None if bool((alpha == 1).all()) else alpha
    grey = image.mode in ("L", "1", "LA", "La")
    plain = image.convert("L" if grey else "RGB")
    stored = np.asarray(plain)
    return Pixels(stored[None] if grey else stored.transpose(2, 0, 1), alpha, Range(0, 255))


def finished(file: Path, pixels: Pixels, how: Reading) -> np.ndarray:
    """Pixels of ``file`` -> float32 (C, H, W) in [0, 1], as ``how`` says.

    Raises:
        DataProblem: numbers of unknown range, or outside it.
    """
    stored = pixels.stored
    known = how.range or pixels.format_range
    low, high = float(stored.min()), float(stored.max())
    if known is None:
        raise DataProblem(
            f"imagefolder: {file} holds 32-bit numbers {low:g}..{high:g}, of which its format does not say what is "
            f"white; say it with range={guess(low, high)}"
        )
    if not (known.low <= low and high <= known.high):  # also NaN
        what = f"range={known.text} was given" if known.text else f"floats lie in [0, 1]: say range={guess(low, high)}"
        what = what if np.isfinite([low, high]).all() else "remove or repair it"
        raise DataProblem(f"imagefolder: {file} holds pixels {low:g}..{high:g}; {what}")
    eight_bit = stored.dtype == np.uint8 and known.transform == "divide by 255"
    if eight_bit and how.size is not None and (pixels.alpha is None or how.alpha == "drop"):
        scaled = _resized_bytes(stored, how.size)
        return _channels(scaled, how.channels)
    scaled = _over(known.scaled(stored), pixels.alpha, how.alpha)
    if how.size is not None:
        scaled = np.stack([_resized(plane, how.size) for plane in scaled])
    return _channels(scaled, how.channels)


def _over(scaled: np.ndarray, alpha: np.ndarray | None, how: str) -> np.ndarray:
    """What is seen of ``scaled`` (C, H, W) where ``alpha`` (1, H, W) lets something through."""
    if how == "only":
        return np.ones_like(scaled[:1]) if alpha is None else alpha
    if alpha is None or how == "drop":
        return scaled
    return (scaled * alpha + np.float32(BACKGROUND[how]) * (1 - alpha)).astype(np.float32)


def _resized_bytes(stored: np.ndarray, size: int) -> np.ndarray:
    """8-bit (C, H, W) -> float32 (C, size, size), rounded to 8 bits as torchvision does with pictures."""
    from PIL import Image

    picture = Image.fromarray(stored[0] if len(stored) == 1 else np.ascontiguousarray(stored.transpose(1, 2, 0)))
    resized = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
    resized = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
    return resized / np.float32(255)


def _resized(plane: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.clip(np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)), 0, 1)


def _channels(scaled: np.ndarray, channels: str) -> np.ndarray:
    if channels == "1" and len(scaled) == 3:
        return grey_of(scaled)
    if channels in ("3", "rgb") and len(scaled) == 1:
        return np.repeat(scaled, 3, axis=0)
    return scaled


def unreadable(file: Path, error: Exception) -> Unreadable:
    """One line for a file that cannot be decoded."""
    text = str(error) or type(error).__name__
    return Unreadable(
        f"imagefolder: cannot read image {file}: {text}; remove or replace it, or unreadable=skip to go on without"
    )
