"""Which files of a folder belong to the set; all others are counted and named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stabilitykit_vision.imagefolder import imagefolder
from stabilitykit_vision.ordering import natural_key, ordered

from stabilitykit import DataProblem

PIXELS = np.random.default_rng(6).integers(0, 256, (5, 5, 3), dtype=np.uint8)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path, "PNG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("ant", "bee"):
        picture(root / name / "0.png")
    return root


def left_out(root: Path, **options: object) -> dict[str, list[str]]:
    data = imagefolder(str(root), **options)
    data.check()
    said = [text for text in data.warnings if "left out" in text]
    recorded = {reason: list(entry["first"]) for reason, entry in data.describe()["left_out"].items()}
    assert bool(said) == bool(recorded)
    for reason in recorded:
        assert f"{data.describe()['left_out'][reason]['count']} {reason}" in said[0]
    return recorded


def test_every_file_left_out_has_a_reason(folder: Path) -> None:
    assert left_out(folder) == {}
    os.symlink("nowhere.png", folder / "ant" / "1.png")
    (folder / "ant" / "._0.png").write_bytes(b"\0\5\x16\7")
    (folder / "ant" / "notes.txt").write_text("no image")
    (folder / "ant" / "dir.png").mkdir()
    os.mkfifo(folder / "bee" / "pipe.png")
    (folder / "list.csv").write_text("a,b")
    picture(folder / "__MACOSX" / "ant" / "0.png")
    assert left_out(folder) == {
        "left by an operating system or archive": ["__MACOSX/"],
        "outside the class folders": ["list.csv"],
        "hidden": ["ant/._0.png"],
        "dangling link": ["ant/1.png"],
        "not called like an image": ["ant/notes.txt"],
        "no regular file": ["bee/pipe.png"],
    }
    assert len(imagefolder(str(folder))) == 2 and list(imagefolder(str(folder)).class_names) == ["ant", "bee"]


def test_folders_below_a_class_are_entered(folder: Path) -> None:
    for name in ("ant/day1/b.PNG", "ant/day1/deeper/c.png", "ant/day0/d.png"):
        picture(folder / name)
    data = imagefolder(str(folder))
    assert [f.relative_to(folder).as_posix() for f in data.files] == [
        "ant/0.png",
        "ant/day0/d.png",
        "ant/day1/b.PNG",
        "ant/day1/deeper/c.png",
        "bee/0.png",
    ]
    assert data.labels.tolist() == [0, 0, 0, 0, 1]


def test_links_are_followed_and_loops_end(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "store" / "x.png")
    os.symlink(tmp_path / "store", folder / "cat")
    os.symlink("..", folder / "ant" / "up")
    os.symlink(".", folder / "bee" / "self")
    os.symlink(".", folder / "here")
    os.symlink("round", folder / "ant" / "round")
    found = left_out(folder)
    assert found["link back to a folder above"] == ["here/", "ant/up/", "bee/self/"]
    assert found["dangling link"] == ["ant/round"]
    assert list(imagefolder(str(folder)).class_names) == ["ant", "bee", "cat"] and len(imagefolder(str(folder))) == 3


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_unreadable_files_are_left_out_on_demand_only(folder: Path, damage: str) -> None:
    picture(folder / "bee" / "1.png")
    data = (folder / "bee" / "1.png").read_bytes()
    (folder / "bee" / "1.png").write_bytes({"truncated": data[: len(data) // 2], "text": b"text", "empty": b""}[damage])
    with pytest.raises(DataProblem, match=r"bee/1\.png.*unreadable=skip"):
        imagefolder(str(folder)).check()
    assert left_out(folder, unreadable="skip") == {"cannot be decoded": ["bee/1.png"]}


def test_an_empty_class_is_refused_or_kept(folder: Path) -> None:
    (folder / "cow").mkdir()
    (folder / "cow" / "._1.png").write_bytes(b"")
    with pytest.raises(DataProblem, match=r"cow holds no image.*allow_empty=true.*hidden"):
        imagefolder(str(folder))
    kept = imagefolder(str(folder), allow_empty=True)
    assert list(kept.class_names) == ["ant", "bee", "cow"] and "no image of class cow" in kept.warnings


def test_order_of_numbered_folders(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / str(number) / "0.png")
    natural, text = imagefolder(str(tmp_path)), imagefolder(str(tmp_path), order="text")
    assert list(natural.class_names) == [str(n) for n in range(12)]
    assert list(text.class_names) == sorted(natural.class_names)
    for data, other in ((natural, "text"), (text, "natural")):
        assert [file.parent.name for file in data.files] == [data.class_names[c] for c in data.labels]
        assert sum(f"order={other}" in warning for warning in data.warnings) == 1
        assert data.describe()["order"] != other
    assert natural.fingerprint() != text.fingerprint()


def test_natural_order_is_timms() -> None:
    from timm.data.readers.reader_image_folder import natural_key as theirs

    names = ["b10", "B9", "a", "10", "9", "n02", "n1", "Zebra", "apple", "x1y20", "x1y3", "", "7a", "a7"]
    assert sorted(names, key=lambda n: natural_key(n)[0]) == sorted(names, key=theirs)
    assert ordered(["01", "02", "10"], "natural") == (["01", "02", "10"], "")


def test_names_that_are_no_utf8(folder: Path) -> None:
    os.link(folder / "ant" / "0.png", os.fsencode(folder / "ant") + b"/.\xff.png")
    assert left_out(folder) == {"hidden": ["ant/.\\udcff.png"]}
