"""Image files of every mode show what any viewer shows, or are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stabilitykit_vision.imagefolder import imagefolder

from stabilitykit import DataProblem

GREY = np.random.default_rng(4).integers(0, 256, (6, 9), dtype=np.uint8)
GREY[0, 0], GREY[0, 1] = 255, 0
SHOWN = GREY.astype(np.float32) / 255


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(GREY).save(tmp_path / name / "plain.png")
    return tmp_path


def shown(folder: Path, **options: object) -> np.ndarray:
    """The first image of class a that is not the plain one."""
    data = imagefolder(str(folder), **options)
    data.check()
    index = next(i for i, file in enumerate(data.files) if file.stem != "plain")
    return data.images([index])[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_exif_orientation_is_applied(folder: Path, orientation: int, suffix: str) -> None:
    # The inverse of what a viewer does: 6 and 8 are each other's, all others their own.
    turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    turn |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    ramp = np.add.outer(np.arange(16) * 8, np.arange(24) * 5).astype(np.uint8)  # survives JPEG
    picture = Image.fromarray(ramp)
    stored = picture if orientation == 1 else picture.transpose(Image.Transpose[turn[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(folder / "a" / f"turned.{suffix}", exif=exif, **({"quality": 98} if suffix == "jpg" else {}))
    image = shown(folder)
    assert image.shape == (3, 16, 24)
    np.testing.assert_allclose(image[0], ramp / 255, atol=0.02)
    said = "turn by the EXIF orientation" in imagefolder(str(folder)).transforms
    assert said == (orientation != 1)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_by_their_range(folder: Path, suffix: str) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(folder / "a" / f"deep.{suffix}")
    np.testing.assert_allclose(shown(folder), np.repeat(SHOWN[None], 3, 0), atol=1e-6)
    assert any("16-bit" in text for text in imagefolder(str(folder)).transforms)
    resized = shown(folder, size=4)
    Image.fromarray(GREY).save(folder / "a" / f"deep.{suffix}")
    np.testing.assert_allclose(resized, shown(folder, size=4), atol=0.6 / 255)


def test_big_endian_and_white_is_zero(folder: Path) -> None:
    Image.frombytes("I;16B", (9, 6), (GREY.astype(">u2") * 257).tobytes()).save(folder / "a" / "deep.tif")
    np.testing.assert_allclose(shown(folder)[0], SHOWN, atol=1e-6)
    inverse = Image.fromarray((255 - GREY).astype(np.uint16) * 257)
    inverse.save(folder / "a" / "deep.tif", tiffinfo={262: 0})
    with Image.open(folder / "a" / "deep.tif") as written:
        assert written.tag_v2[262] == 0
    np.testing.assert_allclose(shown(folder)[0], SHOWN, atol=1e-6)


def test_twelve_bits_in_sixteen_are_refused_until_told(folder: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(GREY.astype(np.uint16) * 16).save(folder / name / "deep.png")
    with pytest.raises(DataProblem, match=r"uint16 files.*range=4095"):
        imagefolder(str(folder)).check()
    for name in ("a", "b"):
        (folder / name / "plain.png").unlink()
    np.testing.assert_allclose(shown(folder, range="4080")[0], SHOWN, atol=1e-6)


def test_floats(folder: Path) -> None:
    Image.fromarray(SHOWN).save(folder / "a" / "float.tif")
    np.testing.assert_allclose(shown(folder)[1], SHOWN, atol=1e-6)
    for wrong, words in ((SHOWN * 255, "range=255"), (SHOWN * 2 - 1, r"range=-1\.\.1"), (SHOWN * np.nan, "float.tif")):
        Image.fromarray(wrong.astype(np.float32)).save(folder / "a" / "float.tif")
        with pytest.raises(DataProblem, match=words):
            imagefolder(str(folder)).check()
    Image.fromarray(GREY.astype(np.int32)).save(folder / "a" / "float.tif")
    with pytest.raises(DataProblem, match=r"32-bit numbers.*range=255"):
        imagefolder(str(folder)).check()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB", "RGBA", "LA"])
def test_opaque_modes_show_the_same(folder: Path, mode: str) -> None:
    source = Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8) if mode == "1" else GREY)
    picture = source.convert("RGB").convert(mode) if mode in ("CMYK",) else source.convert(mode)
    picture.save(folder / "a" / ("x.tif" if mode == "CMYK" else "x.png"))
    expected = np.asarray(source.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255
    assert np.array_equal(shown(folder), expected)
    assert not imagefolder(str(folder)).warnings


def test_transparency_is_said_and_can_be_chosen(folder: Path) -> None:
    alpha = np.where(np.arange(9) < 4, 0, 255).astype(np.uint8)[None].repeat(6, 0)
    Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(alpha))).save(folder / "a" / "x.png")
    data = imagefolder(str(folder))
    assert np.array_equal(shown(folder)[0], SHOWN)
    assert any("transparent" in text and "a/x.png" in text for text in data.warnings)
    for how, behind in (("white", 1), ("black", 0)):
        np.testing.assert_allclose(shown(folder, alpha=how)[0], np.where(alpha == 255, SHOWN, behind), atol=1e-6)
        assert f"transparent pixels: over {how}" in imagefolder(str(folder), alpha=how).transforms
    assert len({imagefolder(str(folder), alpha=how).fingerprint() for how in ("drop", "white", "black", "only")}) == 4


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_picture_in_alpha_alone_is_refused_until_told(folder: Path, mode: str) -> None:
    bands = [Image.new("L", (9, 6), 0)] * (len(mode) - 1)
    Image.merge(mode, (*bands, Image.fromarray(GREY))).save(folder / "a" / "x.png")
    with pytest.raises(DataProblem, match=r"a/x\.png.*alpha=white"):
        imagefolder(str(folder)).check()
    np.testing.assert_allclose(shown(folder, alpha="white")[0], 1 - SHOWN, atol=1e-6)


def test_palette_with_transparency(folder: Path) -> None:
    Image.fromarray(GREY).convert("P").save(folder / "a" / "x.png", transparency=255)
    assert any("transparent" in text for text in imagefolder(str(folder)).warnings)
    assert np.array_equal(shown(folder)[0], SHOWN)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_pictures(folder: Path, suffix: str) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(folder / "a" / f"x.{suffix}", save_all=True, append_images=[second], **options)
    np.testing.assert_allclose(shown(folder)[0], SHOWN, atol=0.02)
    assert any("several pictures" in text and f"a/x.{suffix}" in text for text in imagefolder(str(folder)).warnings)


def test_images_that_show_nothing_are_named(folder: Path) -> None:
    Image.new("RGB", (9, 6), (10, 200, 30)).save(folder / "b" / "blank.png")
    assert "1 of 3 images show nothing (all pixels equal): b/blank.png" in imagefolder(str(folder)).warnings


def test_nearly_black_bytes_are_refused(folder: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(GREY // 16).save(folder / name / "plain.png")
    with pytest.raises(DataProblem, match="range=15"):
        imagefolder(str(folder)).check()
    data = imagefolder(str(folder), range="15")
    data.check()
    np.testing.assert_allclose(data.images([0])[0][0], (GREY // 16) / 15, atol=1e-6)


def test_channels(folder: Path) -> None:
    colours = np.random.default_rng(5).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "a" / "x.png")
    assert shown(folder, channels="1").shape == (1, 6, 9)
    np.testing.assert_allclose(shown(folder, channels="1")[0], colours @ [0.299, 0.587, 0.114] / 255, atol=1e-6)
    assert [i.shape[0] for i in imagefolder(str(folder), channels="keep").images([0, 1, 2])] == [1, 3, 1]


def test_pixels_that_were_read_right_keep_their_fingerprint(folder: Path) -> None:
    """Runs recorded before orientation, depth and order were heeded go on to be verified."""
    import hashlib

    digest = hashlib.sha256(repr((["a", "b"], ("decode as RGB", "divide by 255"))).encode())
    for name in ("a/plain.png", "b/plain.png"):
        digest.update(name.encode() + b"\0")
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    assert imagefolder(str(folder)).fingerprint() == digest.hexdigest()
