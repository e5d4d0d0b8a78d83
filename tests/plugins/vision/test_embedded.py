"""digits: the same data as scikit-learn gives, in fixed splits."""

from __future__ import annotations

import numpy as np
from stabilitykit_vision.digits import digits, resize_bilinear, split_indices, stored_digits

from stabilitykit.testing import check_dataset, failures


def test_stored_table_is_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    images, labels = stored_digits()
    expected = load_digits()
    assert np.array_equal(images, expected.images) and np.array_equal(labels, expected.target)


def test_contract() -> None:
    assert not failures(check_dataset(digits()))


def test_splits_partition_the_stored_order() -> None:
    train, test = split_indices(1797, "train"), split_indices(1797, "test")
    assert len(train) == 1200 and len(test) == 597
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(1797))
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    everything, part = digits("all"), digits("test")
    assert np.array_equal(everything.labels[test], part.labels)
    assert np.array_equal(np.asarray(everything.images(test[:5])), np.asarray(part.images(range(5))))
    assert len({d.fingerprint() for d in (everything, part, digits("train"))}) == 3
    assert part.fingerprint() == digits("test").fingerprint()


def test_images_are_padded_and_grey() -> None:
    image = digits().images([0])[0]
    assert image.shape == (3, 32, 32) and image.dtype == np.float32
    assert np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])
    border = np.ones((32, 32), bool)
    border[2:-2, 2:-2] = False
    assert (image[0][border] == 0).all() and 0 < image.max() <= 1


def test_resize_agrees_with_torch() -> None:
    import torch

    images = np.random.default_rng(0).random((4, 8, 8), dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images)[None], size=28, mode="bilinear", align_corners=False
    )[0].numpy()
    assert np.allclose(resize_bilinear(images, 28), expected, atol=1e-6)
