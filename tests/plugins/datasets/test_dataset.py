"""``hf:FOLDER``: columns by their types, pixels as stored, and nothing read from elsewhere."""

from __future__ import annotations

import io
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from stabilitykit import DataProblem, UsageProblem

datasets = pytest.importorskip("datasets")
from stabilitykit_datasets.dataset import HuggingFaceDataset, huggingface  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
NAMES = ["cat", "dog", "owl"]


def _rows(**more):
    columns = {"picture": [Image.fromarray(p) for p in PIXELS], "kind": [0, 1, 2, 0, 1, 2]} | more
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=NAMES)}
    features |= {
        name: datasets.Value("string" if isinstance(column[0], str) else "int64") for name, column in more.items()
    }
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


@pytest.fixture(params=["save_to_disk", "parquet"])
def folder(request, tmp_path):
    rows = _rows()
    if request.param == "save_to_disk":
        datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path)
    else:
        (tmp_path / "data").mkdir()
        for n in range(2):
            rows.select(range(3 * n, 3 * n + 3)).to_parquet(tmp_path / "data" / f"test-0000{n}-of-00002.parquet")
    return tmp_path


def _reason(path, **options):
    with pytest.raises(UsageProblem) as caught:
        huggingface(str(path), **options)
    return str(caught.value)


def test_pixels_labels_and_names_are_the_stored_ones(folder):
    before = set(threading.enumerate())
    data = huggingface(str(folder))
    data.check()
    assert len(data) == 6 and data.class_names == NAMES and data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    for image, stored in zip(data.images(range(6)), PIXELS):
        assert image.dtype == np.float32 and np.array_equal(np.rint(image * 255), stored.transpose(2, 0, 1))
    assert data.fingerprint() == huggingface(str(folder)).fingerprint()
    assert data.fingerprint() != huggingface(str(folder), channels="1").fingerprint()
    assert huggingface(str(folder), size=8, channels="1").images([0])[0].shape == (1, 8, 8)
    assert {t.name for t in threading.enumerate()} - {t.name for t in before} == set()


def test_splits_and_columns_are_asked_for_where_several_fit(tmp_path):
    datasets.DatasetDict({"train": _rows(), "test": _rows(other=list("ababab"))}).save_to_disk(tmp_path)
    assert "holds the splits train, test" in _reason(tmp_path)
    assert "no split 'tets' (did you mean" in _reason(tmp_path, split="tets")
    data = huggingface(str(tmp_path), split="test", label="other")
    assert data.class_names == ["a", "b"] and data.labels.tolist() == [0, 1] * 3
    assert "no column 'pictur'" in _reason(tmp_path, split="test", image="pictur")
    assert "holds" in _reason(tmp_path, split="test", label="picture")


def test_rows_without_labels_are_refused(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [Image.fromarray(p) for p in PIXELS[:2]], "label": [0, -1]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path)
    assert "1 rows have no label (row 1)" in _reason(tmp_path)


@pytest.mark.parametrize("link", ["/etc/hostname", "https://example.org/a.png", "../a.png"])
def test_images_that_lie_elsewhere_are_not_read(tmp_path, link):
    folder = tmp_path / "in"
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    rows = {"image": [{"path": link, "bytes": None}] * 2, "label": [0, 1]}
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=NAMES)})
    folder.mkdir()
    data = HuggingFaceDataset(str(folder), datasets.Dataset.from_dict(rows, features))
    with pytest.raises(DataProblem, match="not stored in the folder"):
        data.images([0])


def test_pictures_that_cannot_be_taken_are_named(tmp_path):
    deep = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep, "png")
    rows = {
        "image": [{"path": None, "bytes": b"no picture"}, {"path": None, "bytes": deep.getvalue()}],
        "label": [0, 1],
    }
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=NAMES)})
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path)
    data = huggingface(str(tmp_path))
    with pytest.raises(DataProblem, match="image of row 0 cannot be decoded"):
        data.images([0])
    with pytest.raises(DataProblem, match="row 1 has more than 8 bits"):
        data.images([1])


def test_folders_that_hold_none(tmp_path):
    assert "fetched with --download only" in _reason("org/name")
    assert "neither what save_to_disk writes nor a Parquet file" in _reason(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 no")
    assert "cannot be read" in _reason(tmp_path)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'stabilitykit[datasets]'" in _reason(tmp_path)
