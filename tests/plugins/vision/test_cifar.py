"""CIFAR-10 through torchvision's class."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from stabilitykit_vision.cifar import CLASSES, cifar10

from stabilitykit import DataProblem


def test_missing_archive_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match="cifar10:download=true"):
        cifar10(str(tmp_path))


def test_order_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in the official form; only the checksums that torchvision expects are replaced."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch() -> dict:
        return {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": list(range(10))}

    first, last = batch(), batch()
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", write("data_batch_1", first)]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", last)]])
    names = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": names})
    data = cifar10(str(tmp_path))
    assert np.array_equal(np.round(np.asarray(data.images(range(10))) * 255).reshape(10, -1), last["data"])
    assert list(data.class_names) == list(CLASSES) and data.labels.tolist() == list(range(10))
    both = cifar10(str(tmp_path), "all")
    assert len(both) == 20
    assert np.array_equal(np.round(np.asarray(both.images([4])) * 255).reshape(-1), first["data"][4])
    (folder / "test_batch").write_bytes(b"tampered")
    with pytest.raises(DataProblem, match="not the official archive"):
        cifar10(str(tmp_path))
