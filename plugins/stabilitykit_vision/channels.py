"""One channel or three."""

from __future__ import annotations

import numpy as np

LUMA = "colour to grey (0.299 R + 0.587 G + 0.114 B)"


def grey_of(images: np.ndarray) -> np.ndarray:
    """(..., 3, H, W) float32 -> (..., 1, H, W); pixels whose channels agree keep their value to the last bit."""
    red, green, blue = (images[..., c : c + 1, :, :] for c in range(3))
    mixed = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return np.where((red == green) & (green == blue), red, mixed)
