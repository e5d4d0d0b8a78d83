"""What a dataset's numbers may mean, guard by guard: ranges, brightness, labels."""

from __future__ import annotations

import numpy as np
import pytest
from stabilitykit_vision.labels import read_labels
from stabilitykit_vision.ranges import Range, check_brightness, check_range, parse_range, range_of

from stabilitykit import DataProblem, UsageProblem

PIXELS = np.random.default_rng(0).random((6, 3, 4, 4), dtype=np.float32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, -0.1])
@pytest.mark.parametrize("image", [0, 4])
def test_the_image_with_a_wrong_pixel_is_named(bad, image):
    check_range("d", PIXELS, Range(0, 1))
    pixels = PIXELS.copy()
    pixels[image, 1, 2, 3] = bad
    with pytest.raises(DataProblem, match=f"image {image} "):
        check_range("d", pixels, Range(0, 1))
    if np.isnan(bad):
        with pytest.raises(DataProblem, match="NaN or infinite"):
            check_range("d", pixels, Range(-9, 9))


@pytest.mark.parametrize("brightest, stored, outcome", [(1, 255, ""), (0.5, 127, ""), (0.3, 77, "if another number")])
def test_bright_sets_pass_and_dim_ones_are_warned_of(brightest, stored, outcome):
    found = check_brightness("d", brightest, stored, False)
    assert outcome in found and bool(found) == bool(outcome)
    assert check_brightness("d", brightest, stored, True) == ""


@pytest.mark.parametrize(
    "brightest, message", [(0.0, "every image is black"), (15 / 255, "range=15"), (1 / 255, "white")]
)
def test_nearly_black_sets_are_refused_unless_the_range_was_given(brightest, message):
    with pytest.raises(DataProblem, match=message):
        check_brightness("d", brightest, 255 * brightest, False)
    assert check_brightness("d", brightest, 255 * brightest, True) == ""


@pytest.mark.parametrize("text", ["", "white", "0", "-1", "1..1", "2..1", "nan", "0..inf", "1..2..3"])
def test_ranges_that_are_none(text):
    with pytest.raises(UsageProblem, match="number that means white"):
        parse_range(text, "d")


def test_white_is_the_largest_number_of_a_type():
    for dtype, white in (("uint8", 255), ("uint16", 65535), ("float32", 1), ("bool", 1)):
        known = range_of(np.dtype(dtype))
        assert known is not None
        assert known.scaled(np.array([0, white], dtype=dtype)).tolist() == [0.0, 1.0]
    assert range_of(np.dtype("int32")) is None
    assert Range(-1, 1).scaled(np.array([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]


ONE_HOT = np.eye(3)[[0, 2, 1]]


@pytest.mark.parametrize(
    "stored, names, more",
    [
        (np.array([0.5, 1.0]), None, {}),
        (np.array([0.0, np.nan]), None, {}),
        (np.array([0.0, 2.0**60]), None, {}),
        (np.array([0, 3]), ["a", "b", "c"], {}),
        (np.array([-1, 0, 1]), None, {}),
        (np.array([-1, 0, 1]), ["a", "b"], {}),
        (np.array([0, 1]), None, {"first": 1}),
        (np.array([0, 5]), None, {"num_classes": 5}),
        (np.array(["a", "z"]), ["a", "b"], {}),
        (ONE_HOT + np.eye(3)[[1, 0, 0]], None, {}),
        (ONE_HOT * 0.5, None, {}),
        (ONE_HOT * 0, None, {}),
        (np.array([2**63], dtype=np.uint64), None, {}),
        (np.array([0, 1 << 21]), None, {}),
        (np.array([1j]), None, {}),
        (np.zeros((2, 2, 2)), None, {}),
    ],
)
def test_labels_of_no_class_are_refused(stored, names, more):
    with pytest.raises(DataProblem):
        read_labels("d", stored, names, **more)


def test_labels_of_every_kind():
    assert read_labels("d", ONE_HOT, None).values.tolist() == [0, 2, 1]
    assert read_labels("d", np.array([1, 2, 3]), None, first=1).values.tolist() == [0, 1, 2]
    assert read_labels("d", np.array(["b", "a"]), ["a", "b"]).values.tolist() == [1, 0]
    found = read_labels("d", np.array([3, 7, 3]), None)
    assert found.values.tolist() == [0, 1, 0] and found.ids == [3, 7]
