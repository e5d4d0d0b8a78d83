"""Stored numbers become the same pixels whatever their type, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stabilitykit_vision.npz import npz

from stabilitykit import DataProblem, UsageProblem

RNG = np.random.default_rng(1)
LEVELS = RNG.integers(0, 16, (8, 5, 4), dtype=np.uint8)  # every stored form below shows v / 15
LABELS = np.arange(8) % 2
SHOWN = (LEVELS / 15).astype(np.float32)

STORED = {
    "bytes": (LEVELS * 17, None),
    "sixteen levels": (LEVELS, "15"),
    "words": (LEVELS.astype(np.uint16) * 4369, None),
    "words of the other byte order": (LEVELS.astype(">u2") * 4369, None),
    "long integers": (LEVELS.astype(np.int64) * 17, "255"),
    "signed": (LEVELS.astype(np.int16) * 2 - 15, "-15..15"),
    "floats": (LEVELS / 15, None),
    "floats of bytes": (LEVELS.astype(np.float64) * 17, "255"),
    "floats of a symmetric range": (LEVELS / 7.5 - 1, "-1..1"),
}


@pytest.mark.parametrize("kind", STORED)
def test_pixels_do_not_depend_on_how_they_are_stored(tmp_path: Path, kind: str) -> None:
    stored, given = STORED[kind]
    np.savez(tmp_path / "a.npz", X=stored, y=LABELS)
    data = npz(str(tmp_path / "a.npz"), channels="keep", range=given)
    np.testing.assert_allclose(np.asarray(data.images(range(8)))[:, 0], SHOWN, atol=1e-6)
    assert not data.warnings
    if stored.dtype.kind != "f" or given:
        assert data.transforms  # the scale stands in the record


def test_bool_is_black_and_white(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=LEVELS > 7, y=LABELS)
    assert np.array_equal(
        np.asarray(npz(str(tmp_path / "a.npz")).images([3]))[0, 2], (LEVELS[3] > 7).astype(np.float32)
    )


def test_a_given_range_holds_for_every_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=LEVELS, y=LABELS)
    with pytest.raises(DataProblem, match=r"ranges over .*range=10 was given"):
        npz(str(tmp_path / "a.npz"), range="10")
    for text in ("white", "1..0", "nan", "..", "3..inf"):
        with pytest.raises(UsageProblem, match="range is the number that means white"):
            npz(str(tmp_path / "a.npz"), range=text)
    dark = npz(str(tmp_path / "a.npz"), range="255")  # asked for: they are as dark as that
    assert dark.images([0])[0].max() < 0.06 and not dark.warnings


def test_dim_sets_and_images_without_a_picture_are_named(tmp_path: Path) -> None:
    pixels = LEVELS * 6
    pixels[[2, 5]] = 7
    np.savez(tmp_path / "a.npz", X=pixels, y=LABELS)
    dim, blank = npz(str(tmp_path / "a.npz")).warnings
    assert "90, 35 % of white" in dim and "range=100" in dim
    assert blank == "2 of 8 images show nothing (all pixels equal): 2, 5"


def test_an_opaque_fourth_channel_is_dropped_and_said(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (8, 5, 4, 3), dtype=np.uint8)
    alpha = np.full((8, 5, 4, 1), 255, np.uint8)
    np.savez(tmp_path / "a.npz", X=np.concatenate([colours, alpha], axis=3), y=LABELS)
    np.savez(tmp_path / "b.npz", X=colours, y=LABELS)
    with_alpha, without = npz(str(tmp_path / "a.npz"), layout="nhwc"), npz(str(tmp_path / "b.npz"))
    assert np.array_equal(with_alpha.images(range(8)), without.images(range(8)))
    assert any("opaque" in text for text in with_alpha.transforms)


def test_one_channel_on_demand(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (8, 5, 4, 3), dtype=np.uint8)
    colours[0] = colours[0, :, :, :1]  # grey already: kept to the last bit
    np.savez(tmp_path / "a.npz", X=colours, y=LABELS)
    images = np.asarray(npz(str(tmp_path / "a.npz"), channels="1").images(range(8)))
    assert images.shape == (8, 1, 5, 4)
    np.testing.assert_allclose(images[:, 0], colours @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-6)
    assert np.array_equal(images[0, 0], colours[0, :, :, 0].astype(np.float32) / 255)
