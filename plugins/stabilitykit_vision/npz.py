"""A dataset from an .npz file: images, integer labels, perhaps class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stabilitykit import DataProblem, UsageProblem
from stabilitykit_vision.arrays import ArrayDataset
from stabilitykit_vision.npz_reader import NpzFile

IMAGES, LABELS = ("X", "images", "x"), ("y", "labels")
AXES = {"nhwc": (0, 3, 1, 2), "nchw": (0, 1, 2, 3)}


def npz(
    path: str, layout: str = "auto", mask: str | None = None, pad: int = 0, channels: str = "rgb", max_gib: float = 8.0
) -> ArrayDataset:
    """The images and labels in ``path``.

    Arrays: ``X`` or ``images``, uint8 of 0..255 or float in [0, 1], of shape NHWC, NCHW or NHW; ``y`` or ``labels``,
    integers (N,) or (N, 1); optionally ``class_names`` (K strings), else names are "0", "1"...

    Arguments:
        layout: axes of the images; ``auto`` takes the axis of length 1 or 3 for the channels; ``features`` takes
            vectors (N, D), seen as images of one row with one channel.
        mask: key of a bool array (N,) that picks the images to keep; indices count the kept ones.
        pad: zeros on each edge.
        channels: ``rgb`` repeats a single channel to three.
        max_gib: declared size above which the file is refused before anything is inflated.

    Raises:
        DataProblem: missing keys, wrong shapes or dtypes, labels out of range, a class without an image,
            NaN or infinite pixels, truncated or corrupt files, object arrays.
        UsageProblem: ``mask`` names no array.
    """
    file = NpzFile(Path(path), int(max_gib * 2**30))
    try:
        pixels = _oriented(_image_array(file), layout, path)
        labels = _first_of(file, LABELS, "labels")
        names = file.read("class_names") if "class_names" in file.keys else None
        keep = _mask(file, mask) if mask else None
    finally:
        file.close()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if keep is not None:
        if keep.dtype != np.bool_ or keep.shape != (len(pixels),) or labels.shape != keep.shape:
            raise DataProblem(
                f"npz: {path}, mask {mask!r} is {keep.dtype} {keep.shape}, expected bool ({len(pixels)},)"
            )
        pixels, labels = pixels[keep], labels[keep]
    transforms = [f"keep where {mask}"] if mask else []
    if layout == "features":
        channels = "keep"
    return ArrayDataset(
        f"npz {Path(path).name}",
        pixels,
        labels,
        _class_names(names, labels, path),
        pad=pad,
        channels=channels,
        transforms=transforms,
        record={"path": str(path), "layout": layout, "mask": mask},
    )


def _first_of(file: NpzFile, keys: tuple[str, ...], what: str) -> np.ndarray:
    for key in keys:
        if key in file.keys:
            return file.read(key)
    raise DataProblem(
        f"npz: {file.path} holds no {what} (expected {' or '.join(keys)}; found {', '.join(file.keys) or 'no arrays'})"
    )


def _image_array(file: NpzFile) -> np.ndarray:
    pixels = _first_of(file, IMAGES, "images")
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise DataProblem(f"npz: {file.path}, images are {pixels.dtype}, expected uint8 or float")
    return pixels


def _oriented(pixels: np.ndarray, layout: str, path: str) -> np.ndarray:
    """A view (N, C, H, W)."""
    shape = pixels.shape
    if layout == "features" and pixels.ndim == 2 and shape[1]:
        return pixels[:, None, None]
    if pixels.ndim not in (3, 4) or 0 in shape[1:]:
        raise DataProblem(
            f"npz: {path}, images have shape {shape}, expected (N, H, W, C), (N, C, H, W) or (N, H, W),"
            " or (N, D) with layout=features"
        )
    if ((pixels.ndim == 3) != (layout == "nhw") or layout == "features") and layout != "auto":
        raise DataProblem(f"npz: {path}, images have shape {shape}, which is not {layout.upper()}")
    if pixels.ndim == 3:
        return pixels[:, None]
    if layout == "auto":
        last, first = shape[3] in (1, 3), shape[1] in (1, 3)
        if last == first:
            raise DataProblem(
                f"npz: {path}, images have shape {shape}: cannot tell NHWC from NCHW; "
                "say which with layout=nhwc or layout=nchw"
            )
        layout = "nhwc" if last else "nchw"
    return pixels.transpose(AXES[layout])


def _mask(file: NpzFile, key: str) -> np.ndarray:
    if key not in file.keys:
        raise UsageProblem(f"npz: {file.path} holds no mask {key!r}; found {', '.join(file.keys)}")
    return file.read(key)


def _class_names(names: np.ndarray | None, labels: np.ndarray, path: str) -> list[str]:
    if names is None:
        if labels.dtype.kind not in "iu" or labels.size == 0:
            return []
        high = int(labels.max())
        if high >= 1 << 20:
            raise DataProblem(f"npz: {path}, labels reach {high}; expected 0..K-1")
        return [str(c) for c in range(high + 1)]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataProblem(f"npz: {path}, class_names is {names.dtype} {names.shape}, expected K strings")
    return [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names.tolist()]
