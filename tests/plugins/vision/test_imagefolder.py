"""Folders of images: classes by folder, content fingerprints, unreadable files named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stabilitykit_vision.imagefolder import imagefolder

from stabilitykit import DataProblem
from stabilitykit.testing import check_dataset, failures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("cat", 3), ("ant", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (10 + number, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def test_classes_and_pixels(folder: Path) -> None:
    data = imagefolder(str(folder))
    assert list(data.class_names) == ["ant", "cat"] and data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.order_in_class.tolist() == [0, 1, 0, 1, 2]
    stored = np.asarray(Image.open(folder / "cat" / "1.png"), dtype=np.float32).transpose(2, 0, 1) / 255
    assert np.array_equal(data.images([3])[0], stored) and stored.shape == (3, 11, 8)
    assert not failures(check_dataset(data))
    assert [i.shape for i in imagefolder(str(folder), size=32).images(range(5))] == [(3, 32, 32)] * 5


def test_fingerprint_follows_the_content(folder: Path, tmp_path_factory) -> None:
    import shutil

    copy = tmp_path_factory.mktemp("copy") / "other"
    shutil.copytree(folder, copy)
    first = imagefolder(str(folder)).fingerprint()
    assert imagefolder(str(copy)).fingerprint() == first != imagefolder(str(copy), size=8).fingerprint()
    Image.fromarray(np.zeros((10, 8, 3), np.uint8)).save(copy / "ant" / "0.png")
    assert imagefolder(str(copy)).fingerprint() != first


def test_grey_and_palette_images_become_rgb(folder: Path) -> None:
    grey = np.arange(80, dtype=np.uint8).reshape(10, 8)
    Image.fromarray(grey).save(folder / "ant" / "0.png")
    image = imagefolder(str(folder)).images([0])[0]
    assert image.shape == (3, 10, 8) and np.array_equal(np.round(image[2] * 255), grey)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_unreadable_images_are_named(folder: Path, damage: str) -> None:
    path = folder / "cat" / "1.png"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "text": b"hello", "empty": b""}[damage])
    images = imagefolder(str(folder))
    with pytest.raises(DataProblem, match=r"cat/1\.png") as caught:
        images.images([3])
    assert "\n" not in str(caught.value)
    if damage != "truncated":  # a header is enough to see it before anything is computed
        with pytest.raises(DataProblem, match=r"cat/1\.png"):
            images.check()


def test_folders_that_are_no_dataset(folder: Path) -> None:
    with pytest.raises(DataProblem, match="not a folder"):
        imagefolder(str(folder / "nowhere"))
    (folder / "dog").mkdir()
    with pytest.raises(DataProblem, match="dog holds no image"):
        imagefolder(str(folder))
    with pytest.raises(DataProblem, match="0 class folders"):
        imagefolder(str(folder / "cat"))
