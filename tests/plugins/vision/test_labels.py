"""Labels of every kind: the right class of every image, or one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stabilitykit_vision.npz import npz

from stabilitykit import DataProblem, UsageProblem

COUNT = 12
PIXELS = np.random.default_rng(2).integers(0, 256, (COUNT, 4, 4), dtype=np.uint8)
LABELS = np.random.default_rng(3).permutation(np.arange(COUNT) % 3)

SAME = {
    "small integers": LABELS.astype(np.int8),
    "a column": LABELS[:, None],
    "whole floats": LABELS.astype(np.float32),
    "one-hot rows": np.eye(3, dtype=np.int64)[LABELS],
    "one-hot floats": np.eye(3)[LABELS],
    "one-hot bools": np.eye(3, dtype=bool)[LABELS],
    "text of numbers": LABELS.astype(str),
    "bytes in a column": LABELS.astype("S1")[:, None],
}


def read(folder: Path, labels: np.ndarray, **options: object):
    np.savez(folder / "a.npz", X=PIXELS, y=labels)
    return npz(str(folder / "a.npz"), **options)


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_gives_the_same_classes(tmp_path: Path, kind: str) -> None:
    data = read(tmp_path, SAME[kind])
    assert data.labels.dtype == np.int64 and np.array_equal(data.labels, LABELS)
    assert list(data.class_names) == ["0", "1", "2"] and data.class_ids is None


def test_text_is_ordered_as_asked(tmp_path: Path) -> None:
    words = np.array(["c10", "c2", "C3"])[LABELS]
    natural, text = read(tmp_path, words), read(tmp_path, words, order="text")
    assert list(natural.class_names) == ["c2", "C3", "c10"] and list(text.class_names) == ["C3", "c10", "c2"]
    for data in (natural, text):
        assert [data.class_names[c] for c in data.labels] == words.tolist()
        assert len(data.warnings) == 1 and "order=" in data.warnings[0]
        assert data.class_names_given
    assert natural.describe()["order"] == "natural" and text.describe()["order"] == "text"


def test_bool_labels_are_two_named_classes(tmp_path: Path) -> None:
    data = read(tmp_path, LABELS > 0)
    assert list(data.class_names) == ["False", "True"] and np.array_equal(data.labels, LABELS > 0)


def test_numbers_with_gaps_are_classes_of_that_name(tmp_path: Path) -> None:
    numbers = np.array([7, 2, 5])[LABELS]
    data = read(tmp_path, numbers)
    assert list(data.class_names) == ["2", "5", "7"] and list(data.class_ids or ()) == [2, 5, 7]
    assert [int(data.class_names[c]) for c in data.labels] == numbers.tolist()
    assert "2, 5, 7" in data.warnings[0] and data.describe()["class_ids"] == [2, 5, 7]
    kept = read(tmp_path, numbers, num_classes=10)
    assert np.array_equal(kept.labels, numbers) and len(kept.class_names) == 10 and kept.class_ids is None
    assert "no image of class 0, 1, 3" in kept.warnings[0]
    with pytest.raises(DataProblem, match=r"2\.\.7, expected 0\.\.6"):
        read(tmp_path, numbers, num_classes=7)


def test_labels_from_one(tmp_path: Path) -> None:
    data = read(tmp_path, LABELS + 1)
    assert list(data.class_ids or ()) == [1, 2, 3] and "labels_from=1" in data.warnings[0]
    told = read(tmp_path, LABELS + 1, labels_from=1)
    assert np.array_equal(told.labels, LABELS) and told.class_ids is None and not told.warnings
    np.savez(tmp_path / "b.npz", X=PIXELS, y=LABELS + 1, class_names=np.array(["a", "b", "c"]))
    with pytest.raises(DataProblem, match="labels_from=1"):
        npz(str(tmp_path / "b.npz"))
    assert np.array_equal(npz(str(tmp_path / "b.npz"), labels_from=1).labels, LABELS)


def test_arrays_of_any_name(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, x_test=PIXELS, y_test=LABELS, x_train=PIXELS[::-1], y_train=LABELS[::-1])
    with pytest.raises(DataProblem, match=r"images=KEY,labels=KEY; found x_test \(uint8 12x4x4\)"):
        npz(path)
    data = npz(path, images="x_test", labels="y_test")
    assert np.array_equal(data.labels, LABELS) and data.describe()["arrays"] == ["x_test", "y_test"]
    with pytest.raises(UsageProblem, match="no array 'x_tset'"):
        npz(path, images="x_tset", labels="y_test")
    with pytest.raises(DataProblem, match="no labels"):
        npz(path, images="x_test")
