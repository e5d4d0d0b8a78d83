"""Sets of many classes made from a network's last layer (benchmarks/imagenet_sets.py)."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from benchmarks.imagenet_sets import chunks, fit, head, write

CHANNELS, ACCURACY = (4, 8, 40), (0.2, 0.5, 0.9)


@pytest.fixture(scope="module")
def model():
    """20 classes of 40 features, far from centred."""
    return fit(np.random.default_rng(0).normal(3.0, 1.0, (20, 40)), CHANNELS, ACCURACY)


def test_a_set_is_decided_as_often_as_wanted_and_calibrated(model):
    parts = list(chunks(model, 6000))
    values, groups = np.concatenate([v for v, _ in parts], axis=1), np.concatenate([g for _, g in parts])
    assert values.shape == (3, 6000, 20) and values.dtype == np.float32
    np.testing.assert_allclose(values.sum(axis=-1), 1.0, atol=1e-5)
    accuracy = (values.argmax(-1) == groups).mean(axis=1)
    np.testing.assert_allclose(accuracy, ACCURACY, atol=0.04)
    np.testing.assert_allclose(values.max(-1).mean(axis=1), accuracy, atol=0.03)


def test_a_depth_has_no_more_directions_than_channels(model):
    logits = np.log(next(chunks(model, 500))[0].astype(np.float64))
    for t, channels in enumerate(CHANNELS):
        centred = logits[t] - logits[t].mean(axis=1, keepdims=True)
        # 19 directions of 20 classes; softmax takes the common one away.
        assert np.linalg.matrix_rank(centred - centred.mean(axis=0), tol=1e-2) == min(channels, 19)


def test_files_hold_the_chunks_and_a_seed_makes_the_same_set(model, tmp_path):
    write(model, 300, tmp_path, seed=1)
    values, groups = next(chunks(model, 300, seed=1))
    np.testing.assert_array_equal(np.load(tmp_path / "values.npy"), values)
    np.testing.assert_array_equal(np.load(tmp_path / "groups.npy"), groups)
    assert not np.array_equal(next(chunks(model, 300, seed=2))[0], values)


def test_the_last_layer_is_read_from_a_wheel_a_pytorch_file_or_an_array(tmp_path):
    weights = torch.arange(12.0).reshape(4, 3)
    torch.save({"first": torch.zeros(2, 2), "fc.weight": weights, "fc.bias": torch.zeros(4)}, tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "net.whl", "w") as wheel:
        wheel.write(tmp_path / "net.pth", "package/net.pth")
    np.save(tmp_path / "net.npy", weights.numpy())
    for name in ("net.pth", "net.whl", "net.npy"):
        np.testing.assert_array_equal(head(tmp_path / name), weights.numpy())
