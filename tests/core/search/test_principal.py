"""Principal directions: orthonormal, whatever the sample, so that keys along them are 1-Lipschitz."""

from __future__ import annotations

import numpy as np
import pytest

from stabilitykit.search.pairs import sweep
from stabilitykit.search.pairs.principal import principal_directions
from stabilitykit.search.synthetic import softmax_trajectory


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (6, 6), (1, 5)])
@pytest.mark.parametrize("kind", ["full", "rank one", "zero"])
def test_directions_are_orthonormal_and_lead(shape, kind):
    random = np.random.default_rng(0)
    sample = random.normal(size=shape) * np.arange(1, shape[1] + 1)
    if kind == "rank one":
        sample = np.outer(random.normal(size=shape[0]), random.normal(size=shape[1]))
    elif kind == "zero":
        sample[:] = 0.0
    for most in (1, 3, 5):
        found = principal_directions(sample, most)
        assert found.shape[0] == shape[1] and 1 <= found.shape[1] <= most
        np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-13)
        held = ((sample @ found) ** 2).sum()
        best = (np.linalg.svd(sample, compute_uv=False)[: found.shape[1]] ** 2).sum()
        assert held == pytest.approx(best, rel=1e-9, abs=1e-12)


def test_few_images_choose_the_sweeps_keys_of_long_readouts():
    """Of 3,000 images only LONG_SAMPLE are looked at: keys of the others are 1-Lipschitz, too."""
    values, _ = softmax_trajectory(3000, 1, 60, gain=8)
    keys = sweep.keys_of(values[0])
    apart = np.abs(keys.keys[::40, None] - keys.keys[None, ::40]).max(axis=-1)
    points = values[0, ::40].astype(np.float64)
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=-1))
    assert (apart <= distance + keys.error).all()
    assert keys.extent.min() > 0
