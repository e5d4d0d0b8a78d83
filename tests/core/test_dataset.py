"""Datasets are checked for what every number rests on: one label per image, labels that have a name."""

from __future__ import annotations

import numpy as np
import pytest

from stabilitykit.base.errors import DataProblem
from stabilitykit.testing.fixtures import TinyDataset


def dataset(labels, classes=3, count=24):
    made = TinyDataset(count, classes)
    made._labels = np.asarray(labels)
    return made


class Short(TinyDataset):
    def __len__(self):
        return 23


@pytest.mark.parametrize(
    "made, message",
    [
        (Short(), "24 labels for 23 images"),
        (dataset([]), "is empty"),
        (dataset([0.0, 1.0]), "expected integers"),
        (dataset([0, 3]), "0..3, expected 0..2"),
        (dataset([-1, 1]), "-1..1, expected 0..2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(made, message):
    with pytest.raises(DataProblem, match=message):
        made.check()


def test_numbers_within_a_class_count_its_images_only():
    labels = np.random.default_rng(0).integers(0, 3, 40)
    order = dataset(labels).order_in_class
    for image, label in enumerate(labels):
        assert order[image] == np.count_nonzero(labels[:image] == label)
