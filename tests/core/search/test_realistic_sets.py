"""Large sets like a recorded one (benchmarks/realistic_sets.py)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.realistic_sets import fit, realistic
from stabilitykit.search.synthetic import softmax_trajectory


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Logits of 1,500 images of 3 classes at 4 depths, two of them equal: a covariance that is singular."""
    values, labels = softmax_trajectory(1500, 4, classes=3, gain=4, noise=0.2)
    values[2] = values[1]
    path = tmp_path_factory.mktemp("recorded") / "recorded.npz"
    np.savez(path, values=np.log(values), labels=labels)
    return path


def test_a_set_has_the_shares_and_means_of_the_recording(recorded):
    with np.load(recorded) as file:
        logits, labels = file["values"], file["labels"]
    values, own = realistic(recorded, 40_000)
    assert values.shape == (4, 40_000, 3) and values.dtype == np.float32
    np.testing.assert_allclose(values.sum(axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.bincount(own) / 40_000, np.bincount(labels) / 1500, atol=0.01)
    accuracy = (logits.argmax(-1) == labels).mean(axis=1)
    np.testing.assert_allclose((values.argmax(-1) == own).mean(axis=1), accuracy, atol=0.04)
    # What depends on each other in the recording does here.
    np.testing.assert_allclose(values[2], values[1], atol=1e-4)


def test_a_seed_makes_the_same_set(recorded):
    first, again, other = (realistic(recorded, 100, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_small_groups_share_a_covariance(recorded):
    fitted = fit(recorded)
    assert len(fitted.labels) > len(fitted.factors) - 1
    assert fitted.shares.sum() == pytest.approx(1.0)
    assert (fitted.which[fitted.shares * 1500 < 24] == 0).all()
