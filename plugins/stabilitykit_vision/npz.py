"""A dataset from an .npz file: images, labels, perhaps class names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stabilitykit import DataProblem, UsageProblem
from stabilitykit_vision.arrays import ArrayDataset
from stabilitykit_vision.labels import read_labels
from stabilitykit_vision.npz_reader import NpzFile
from stabilitykit_vision.ranges import parse_range, range_of

IMAGES, LABELS = ("X", "images", "x"), ("y", "labels")
AXES = {"nhwc": (0, 3, 1, 2), "nchw": (0, 1, 2, 3)}


def npz(
    path: str,
    layout: str = "auto",
    mask: str | None = None,
    pad: int = 0,
    channels: str = "3",
    max_gib: float | None = None,
    images: str | None = None,
    labels: str | None = None,
    range: str | None = None,
    labels_from: int = 0,
    num_classes: int | None = None,
    order: str = "natural",
) -> ArrayDataset:
    """The images and labels in ``path``.

    Arrays: ``X`` or ``images``, of shape NHWC, NCHW or NHW; ``y`` or ``labels``, (N,) or (N, 1) numbers or text, or
    one-hot (N, K); optionally ``class_names`` (K strings), else names are the labels' numbers or texts.

    Arguments:
        layout: axes of the images; ``auto`` takes the axis of length 1 or 3 for the channels; ``features`` takes
            vectors (N, D), seen as images of one row with one channel.
        mask: key of a bool array (N,) that picks the images to keep; indices count the kept ones.
        pad: zeros on each edge.
        channels: ``3`` repeats a single channel to three, ``1`` makes colour grey, ``keep`` leaves them.
        max_gib: declared size above which the file is refused before anything is inflated.
        images, labels: keys of the arrays, where they are called otherwise.
        range: the number that means white, or black..white; default: what the type of the pixels says (uint8 255,
            uint16 65535, floats 1).
        labels_from: number of the first class.
        num_classes: K; labels then stay the numbers they are, classes without images included.
        order: of classes given as text.

    Raises:
        DataProblem: missing keys, wrong shapes or dtypes, labels out of range, NaN or infinite pixels, pixels of
            unknown range, truncated or corrupt files, object arrays.
        UsageProblem: ``mask``, ``images`` or ``labels`` name no array.
    """
    pixel_range = parse_range(range, "npz")
    file = NpzFile(Path(path), None if max_gib is None else int(max_gib * 2**30))
    try:
        image_key = _key(file, images, IMAGES, "images")
        label_key = _key(file, labels, LABELS, "labels")
        pixels = _oriented(file.read(image_key), layout, path)
        stored = file.read(label_key)
        names = _class_names(file.read("class_names"), path) if "class_names" in file.keys else None
        keep = _mask(file, mask) if mask else None
    finally:
        file.close()
    read = read_labels(f"npz: {path}", stored, names, first=labels_from, num_classes=num_classes, order=order)
    values = read.values
    if keep is not None:
        if keep.dtype != np.bool_ or keep.shape != (len(pixels),) or values.shape != keep.shape:
            raise DataProblem(
                f"npz: {path}, mask {mask!r} is {keep.dtype} {keep.shape}, expected bool ({len(pixels)},)"
            )
        pixels, values = pixels[keep], values[keep]
    transforms = [f"keep where {mask}"] if mask else []
    if layout == "features":
        channels = "keep"
    if channels != "keep" and pixels.shape[1] == 4 and _opaque(pixels):
        pixels = pixels[:, :3]
        transforms.append("drop the fourth channel (opaque everywhere)")
    return ArrayDataset(
        f"npz {Path(path).name}",
        pixels,
        values,
        read.class_names,
        pad=pad,
        channels=channels,
        pixel_range=pixel_range,
        transforms=transforms,
        record={
            "path": str(path),
            "layout": layout,
            "mask": mask,
            "arrays": [image_key, label_key],
            "order": order,
            "class_ids": read.ids,
        },
        class_ids=read.ids,
        named=read.named,
        pictures=layout != "features",
        notes=read.notes,
    )


def _key(file: NpzFile, given: str | None, usual: tuple[str, ...], what: str) -> str:
    """The array that holds ``what``: the one named, else the one usual name that is there."""
    if given is not None:
        if given not in file.keys:
            raise UsageProblem(f"npz: {file.path} holds no array {given!r} for {what}; found {_listed(file)}")
        return given
    found = [key for key in usual if key in file.keys]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataProblem(
            f"npz: {file.path} holds {' and '.join(found)}: say which are the {what}, as {what}={found[0]}"
        )
    raise DataProblem(
        f"npz: {file.path} holds no {what} (expected {' or '.join(usual)}); say which array it is, as "
        f"images=KEY,labels=KEY; found {_listed(file)}"
    )


def _listed(file: NpzFile) -> str:
    return ", ".join(f"{key} {file.describe(key)}" for key in file.keys[:12]) or "no arrays"


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
        layout = _guessed_layout(shape, path)
    return pixels.transpose(AXES[layout])


def _guessed_layout(shape: tuple[int, ...], path: str) -> str:
    """By the axis of 1 or 3 channels, else of 2 or 4 (with alpha); DataProblem where both or neither may be it."""
    for usual in ((1, 3), (2, 4)):
        last, first = shape[3] in usual, shape[1] in usual
        if last != first:
            return "nhwc" if last else "nchw"
        if last:
            break
    raise DataProblem(
        f"npz: {path}, images have shape {shape}: cannot tell NHWC from NCHW; say which with layout=nhwc or layout=nchw"
    )


def _opaque(pixels: np.ndarray) -> bool:
    known = range_of(pixels.dtype)
    return known is not None and bool((pixels[:, 3] == known.high).all())


def _mask(file: NpzFile, key: str) -> np.ndarray:
    if key not in file.keys:
        raise UsageProblem(f"npz: {file.path} holds no mask {key!r}; found {', '.join(file.keys)}")
    return file.read(key)


def _class_names(names: np.ndarray, path: str) -> list[str]:
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataProblem(f"npz: {path}, class_names is {names.dtype} {names.shape}, expected K strings")
    return [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names.tolist()]
