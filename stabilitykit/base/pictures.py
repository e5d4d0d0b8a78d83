"""Images of a dataset as PNG bytes, for witnesses in run folders and reports."""

from __future__ import annotations

import io

import numpy as np


def png_bytes(image: np.ndarray, longest: int = 128) -> bytes:
    """(C, H, W) float32 in [0, 1], 1 or 3 channels -> PNG, scaled down to at most ``longest`` pixels a side.

    Small images are kept at their own size: a browser enlarges them without inventing pixels.
    """
    from PIL import Image

    array = np.asarray(image)
    if array.shape[0] not in (1, 3):
        array = array[:1]
    pixels = np.clip(np.round(array.transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
