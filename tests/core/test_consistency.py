"""A measurement must agree with itself and with the dataset: classes and numbers of its witness, its interval."""

from __future__ import annotations

import pytest

from stabilitykit.base.results import Kind, Measurement
from stabilitykit.review.consistency import inconsistent
from stabilitykit.testing.fixtures import TinyDataset

# Labels cycle 0, 1, 2: image 4 is the second of class1, image 5 the second of class2.
WITNESS = {"indices": [4, 5], "classes": ["class1", "class2"], "orders": [1, 1]}


def measurement(witness=WITNESS, value=1.0, interval=(0.5, 2.0)):
    return Measurement("x", value, Kind.EXACT, 24, witness=witness, interval=interval)


@pytest.mark.parametrize("interval", [(0.5, 2.0), (1.0, 1.0), (None, None), (None, 1.0), (1.0, None)])
def test_what_agrees_passes(interval):
    assert inconsistent(TinyDataset(), measurement(interval=interval)) == ""


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": ["class1", "class0"]}, "classes"),
        ({"classes": ["class2", "class1"]}, "classes"),
        ({"orders": [1, 2]}, "orders"),
        ({"orders": [4, 5]}, "orders"),
        ({"indices": [4, 24]}, "dataset has 0..23"),
        ({"indices": [-1, 5]}, "dataset has 0..23"),
        ({"indices": [4, "5"]}, "dataset has 0..23"),
    ],
)
def test_a_witness_that_is_not_in_the_dataset_fails(change, message):
    assert message in inconsistent(TinyDataset(), measurement({**WITNESS, **change}))


@pytest.mark.parametrize("interval", [(1.5, 2.0), (0.0, 0.5), (None, 0.5), (1.5, None)])
def test_a_value_outside_its_interval_fails(interval):
    assert "outside its interval" in inconsistent(TinyDataset(), measurement(interval=interval))
