"""MNIST and Fashion-MNIST from idx files, plain and compressed, whole and damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from stabilitykit_vision.mnist import FILES, fashion_mnist, mnist

from stabilitykit import DataProblem
from stabilitykit.testing import check_dataset, failures


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(root: Path, folder: str = "MNIST", compress: bool = True, count: int = 40) -> dict[str, np.ndarray]:
    raw = root / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    made = {}
    for seed, (part, names) in enumerate(FILES.items()):
        rng = np.random.default_rng(seed)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in zip(names, (rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), labels)):
            data = idx(array)
            (raw / (name + (".gz" if compress else ""))).write_bytes(gzip.compress(data) if compress else data)
            made[f"{part} {array.ndim}"] = array
    return made


@pytest.mark.parametrize("compress", [True, False])
def test_pixels_and_order(tmp_path: Path, compress: bool) -> None:
    made = write(tmp_path, compress=compress)
    data = mnist(str(tmp_path), "test")
    images = np.asarray(data.images(range(len(data))))
    assert images.shape == (40, 3, 32, 32)
    for channel in range(3):
        assert np.array_equal(np.round(images[:, channel, 2:-2, 2:-2] * 255).astype(np.uint8), made["test 3"])
    assert images[:, :, :2].max() == images[:, :, -2:].max() == images[..., :2].max() == images[..., -2:].max() == 0
    assert np.array_equal(data.labels, made["test 1"])
    assert not failures(check_dataset(data))
    assert len(mnist(str(tmp_path), "all")) == 80
    assert sorted(p.name for p in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(
        name + (".gz" if compress else "") for names in FILES.values() for name in names
    )  # nothing was unpacked


def test_compression_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "a", compress=True)
    write(tmp_path / "b", compress=False)
    first, second = (mnist(str(tmp_path / d)).fingerprint() for d in "ab")
    assert first == second != mnist(str(tmp_path / "a"), "train").fingerprint()


def test_agrees_with_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import MNIST, FashionMNIST

    for kind, folder, ours in ((MNIST, "MNIST", mnist), (FashionMNIST, "FashionMNIST", fashion_mnist)):
        write(tmp_path, folder, compress=False)
        theirs, data = kind(str(tmp_path), train=True), ours(str(tmp_path), "train")
        assert np.array_equal(theirs.targets.numpy(), data.labels)
        stored = np.round(np.asarray(data.images(range(40)))[:, 0, 2:-2, 2:-2] * 255).astype(np.uint8)
        assert np.array_equal(theirs.data.numpy(), stored)
    assert list(data.class_names) == FashionMNIST.classes


def damaged(tmp_path: Path, how: str) -> Path:
    write(tmp_path)
    path = tmp_path / "MNIST" / "raw" / (FILES["test"][0] + ".gz")
    data = path.read_bytes()
    raw = gzip.decompress(data)
    path.write_bytes(
        {
            "truncated gzip": data[: len(data) // 2],
            "truncated inside": gzip.compress(raw[:-5]),
            "longer": gzip.compress(raw + b"x"),
            "not gzip": b"hello",
            "other magic": gzip.compress(b"\1" + raw[1:]),
            "bomb": gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 28, 28)),
            "fewer images": gzip.compress(idx(np.zeros((39, 28, 28), np.uint8))),
            "other size": gzip.compress(idx(np.zeros((40, 20, 28), np.uint8))),
            "empty": b"",
        }[how]
    )
    return path


@pytest.mark.parametrize(
    "how",
    [
        "truncated gzip",
        "truncated inside",
        "longer",
        "not gzip",
        "other magic",
        "bomb",
        "fewer images",
        "other size",
        "empty",
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path: Path, how: str) -> None:
    path = damaged(tmp_path, how)
    with pytest.raises(DataProblem) as caught:
        mnist(str(tmp_path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match="mnist:download=true"):
        mnist(str(tmp_path))


def test_labels_out_of_range(tmp_path: Path) -> None:
    write(tmp_path)
    labels = tmp_path / "MNIST" / "raw" / (FILES["test"][1] + ".gz")
    labels.write_bytes(gzip.compress(idx(np.full(40, 11, np.uint8))))
    with pytest.raises(DataProblem, match=r"11\.\.11, expected 0\.\.9"):
        mnist(str(tmp_path))


def test_the_real_files(shared_data: Path) -> None:
    test, train = mnist(str(shared_data)), mnist(str(shared_data), "train50k")
    assert len(test) == 10_000 and len(train) == 50_000
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    rest = mnist(str(shared_data), "validation10k")
    full = mnist(str(shared_data), "train")
    assert np.array_equal(np.concatenate([train.labels, rest.labels]), full.labels)
