"""npz arrays: layouts, masks, and files that must be refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_vision.npz import npz

from stabilitykit import DataProblem, StabilityKitError
from stabilitykit.testing import check_dataset, failures

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def save(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)
    return str(path)


@settings(deadline=None, max_examples=30)
@given(
    layout=st.sampled_from(["nhwc", "nchw", "nhw"]),
    floats=st.booleans(),
    explicit=st.booleans(),
    keys=st.sampled_from([("X", "y"), ("images", "labels")]),
    pad=st.integers(0, 3),
)
def test_layouts_and_dtypes_give_the_same_images(tmp_path_factory, layout, floats, explicit, keys, pad) -> None:
    stored = {"nhwc": PIXELS, "nchw": PIXELS.transpose(0, 3, 1, 2), "nhw": PIXELS[..., 0]}[layout]
    if floats:
        stored = stored.astype(np.float32) / 255
    path = save(tmp_path_factory.mktemp("npz") / "a.npz", **{keys[0]: stored, keys[1]: LABELS})
    data = npz(path, layout=layout if explicit else "auto", pad=pad)
    images = np.asarray(data.images([3, 0, 3]))
    assert images.shape == (3, 3, 6 + 2 * pad, 5 + 2 * pad) and images.dtype == np.float32
    expected = PIXELS[[3, 0, 3]].transpose(0, 3, 1, 2).astype(np.float32) / 255
    if layout == "nhw":
        expected = np.repeat(expected[:, :1], 3, axis=1)
    assert np.array_equal(images[:, :, pad : pad + 6, pad : pad + 5], expected)
    assert images.sum(dtype=np.float64) == pytest.approx(expected.sum(dtype=np.float64))


def test_contract_and_class_names(tmp_path: Path) -> None:
    data = npz(save(tmp_path / "a.npz", X=PIXELS, y=LABELS[:, None], class_names=np.array(["a", "b", "c"])))
    assert not failures(check_dataset(data))
    assert list(data.class_names) == ["a", "b", "c"]


def test_channels_can_be_kept(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", X=PIXELS[..., :1], y=LABELS)
    assert npz(path).images([0])[0].shape == (3, 6, 5)
    assert npz(path, channels="keep").images([0])[0].shape == (1, 6, 5)


def test_mask_keeps_order(tmp_path: Path) -> None:
    keep = np.ones(12, bool)
    keep[[2, 7]] = False
    path = save(tmp_path / "a.npz", X=PIXELS, y=LABELS, lossless=keep)
    data, full = npz(path, mask="lossless"), npz(path)
    assert len(data) == 10 and np.array_equal(data.labels, LABELS[keep])
    assert np.array_equal(np.asarray(data.images(range(10))), np.asarray(full.images(np.flatnonzero(keep))))
    assert data.fingerprint() != full.fingerprint() and "keep where lossless" in data.transforms
    with pytest.raises(StabilityKitError, match="no mask 'lost'"):
        npz(path, mask="lost")
    with pytest.raises(DataProblem, match="expected bool"):
        npz(path, mask="y")


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = npz(save(tmp_path / "a.npz", X=PIXELS, y=LABELS))
    turned = npz(save(tmp_path / "b.npz", images=PIXELS.transpose(0, 3, 1, 2), labels=LABELS.astype(np.uint8)))
    assert first.fingerprint() == turned.fingerprint()
    changed = PIXELS.copy()
    changed[11, 5, 4, 2] ^= 1
    others = [
        npz(save(tmp_path / "c.npz", X=changed, y=LABELS)),
        npz(save(tmp_path / "d.npz", X=PIXELS, y=LABELS[::-1].copy())),
        npz(str(tmp_path / "a.npz"), pad=1),
    ]
    assert len({first.fingerprint(), *(o.fingerprint() for o in others)}) == 4


NAN, WIDE = PIXELS / 255.0, PIXELS / 100.0
NAN[4, 0, 0, 0] = np.nan
BAD = {
    "no images": ({"y": LABELS}, "no images"),
    "no labels": ({"X": PIXELS}, "no labels"),
    "objects": ({"X": PIXELS, "y": np.array([{}] * 12, dtype=object)}, "never loaded"),
    "NaN": ({"X": NAN, "y": LABELS}, "image 4 holds NaN"),
    "range": ({"X": WIDE, "y": LABELS}, r"in \[0, 1\]"),
    "integers": ({"X": PIXELS.astype(np.int32), "y": LABELS}, "expected uint8 or float.*range=255"),
    "fewer labels": ({"X": PIXELS, "y": LABELS[:-1]}, "one per image"),
    "float labels": ({"X": PIXELS, "y": LABELS / 2}, "expected integers"),
    "negative": ({"X": PIXELS, "y": LABELS - 1}, r"range over -1\.\.1"),
    "above names": ({"X": PIXELS, "y": LABELS, "class_names": np.array(["a", "b"])}, r"0\.\.2, expected 0\.\.1"),
    "half a class": ({"X": PIXELS, "y": np.eye(3)[LABELS] / 2}, "not one-hot"),
    "two classes at once": ({"X": PIXELS, "y": np.ones((12, 3))}, "row 0 is not one-hot"),
    "NaN labels": ({"X": PIXELS, "y": np.where(LABELS > 1, np.nan, LABELS)}, "expected integers"),
    "text without a class": (
        {"X": PIXELS, "y": np.array(["a", "b", "c"])[LABELS], "class_names": np.array(["a", "b"])},
        "'c' is none of its 2 class_names",
    ),
    "two arrays of images": ({"X": PIXELS, "images": PIXELS, "y": LABELS}, "say which are the images"),
    "four channels": ({"X": PIXELS[..., [0, 1, 2, 0]], "y": LABELS}, "4 channels, expected 1 or 3"),
    "nearly black": ({"X": PIXELS // 16, "y": LABELS}, "range=15"),
    "zeros and ones": ({"X": PIXELS // 128, "y": LABELS}, "range=1 "),
    "divided twice": ({"X": PIXELS / 255**2, "y": LABELS}, "of white"),
    "black": ({"X": PIXELS * 0, "y": LABELS}, "every image is black"),
    "symmetric": ({"X": PIXELS / 127.5 - 1, "y": LABELS}, r"range=-1\.\.1"),
    "huge label": ({"X": PIXELS, "y": np.where(LABELS > 1, 2**40, LABELS)}, "labels reach"),
    "single class": ({"X": PIXELS, "y": LABELS * 0}, "single class"),
    "no image at all": ({"X": PIXELS[:0], "y": LABELS[:0]}, "no images"),
    "shape": ({"X": PIXELS[0], "y": LABELS}, "one per image"),
    "two axes": ({"X": PIXELS[..., 0, 0], "y": LABELS}, "shape"),
    "ambiguous": ({"X": PIXELS[:, :3], "y": LABELS}, "layout=nhwc"),
}


def test_feature_vectors(tmp_path: Path) -> None:
    data = npz(save(tmp_path / "a.npz", X=PIXELS[..., 0, 0], y=LABELS), layout="features")
    assert data.images([2, 0])[0].shape == (1, 1, PIXELS.shape[1])
    with pytest.raises(DataProblem, match="not FEATURES"):
        npz(save(tmp_path / "b.npz", X=PIXELS, y=LABELS), layout="features")


@pytest.mark.parametrize("case", BAD)
def test_bad_content(tmp_path: Path, case: str) -> None:
    arrays, words = BAD[case]
    with pytest.raises(DataProblem, match=words) as caught:
        npz(save(tmp_path / "bad.npz", **arrays))
    assert "bad.npz" in str(caught.value) and "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(cut=st.floats(0, 1), flip=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=3))
def test_damaged_files_end_in_one_line(tmp_path_factory, cut: float, flip: list[tuple[float, int]]) -> None:
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, X=PIXELS, y=LABELS)
    data = bytearray(buffer.getvalue())
    for where, bits in flip:
        data[int(where * len(data))] ^= bits
    path.write_bytes(data if cut > 0.7 else data[: int(cut * len(data))])
    try:
        npz(str(path))
    except DataProblem as error:
        assert str(path) in str(error) or "a.npz" in str(error)
        assert "\n" not in str(error)


def test_declared_size_is_refused_before_reading(tmp_path: Path) -> None:
    """An archive of a few kilobytes that inflates to 4 GiB, and a header that lies about its size."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**12, 1024, 1024, 1)}
    )
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", header.getvalue() + bytes(1 << 20))
        member = io.BytesIO()
        np.save(member, LABELS)
        archive.writestr("y.npy", member.getvalue())
    with pytest.raises(DataProblem, match=r"declares 4\.00 GiB, above the limit of 1 GiB"):
        npz(str(path), max_gib=1)
    with pytest.raises(DataProblem, match="the archive holds"):
        npz(str(path))


def test_the_real_arrays(shared_data: Path) -> None:
    data = npz(str(shared_data / "cifar10" / "test.npz"), mask="lossless")
    assert len(data) == 9_980 and len(data.class_names) == 10
    assert data.images([0])[0].shape == (3, 32, 32)
