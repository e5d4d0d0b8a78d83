"""Small trajectories for laws: continuous, on a grid (ties, duplicates), and with depths of unlike scale."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


@st.composite
def trajectories(draw, min_images=2, max_images=7, max_blocks=3, max_classes=4):
    images = draw(st.integers(min_images, max_images))
    blocks = draw(st.integers(1, max_blocks))
    classes = draw(st.integers(1, max_classes))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = generator.normal(size=(blocks + 1, images, classes))
    kind = draw(st.sampled_from(["continuous", "grid", "scales", "close"]))
    if kind == "grid":
        values = np.round(values * 1.5) / 2
    elif kind == "scales":
        values *= np.exp(3 * generator.normal(size=(blocks + 1, 1, 1)))
    elif kind == "close":
        values[:, images // 2 :] = values[:, : images - images // 2] + 1e-9 * values[:, images // 2 :]
    return values
