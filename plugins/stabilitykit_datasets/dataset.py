"""The dataset component ``hf``: labelled images of a data set of the package datasets."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit import DataProblem, Dataset
from stabilitykit.base.errors import describe
from stabilitykit.base.progress import without_bar_threads
from stabilitykit_datasets.columns import classes_of, image_column, label_column
from stabilitykit_datasets.reading import opened, package

MODES = {"3": "RGB", "1": "L"}
EIGHT_BITS = {"1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr"}
"""Pillow's modes of pictures with at most 8 bits a channel."""


class HuggingFaceDataset(Dataset):
    """Images decoded when asked for, in the order of the rows; sizes may differ unless ``size`` is given.

    Arguments:
        path: the folder, or the hub's name.
        rows: a ``datasets.Dataset`` without a format.
        split: its name, empty where there are none.
        image, label: names of its columns; None: found by their types.
        size, channels: as of the component.

    Raises:
        UsageProblem: no such columns, or several.
        DataProblem: rows without a label.
    """

    def __init__(
        self,
        path: str,
        rows: Any,
        split: str = "",
        image: str | None = None,
        label: str | None = None,
        size: int | None = None,
        channels: str = "keep",
    ) -> None:
        datasets = package()
        self.path, self.split, self.size, self.channels = path, split, size, channels
        self.name = f"hf {Path(path).name}" + (f" {split}" if split else "")
        self._image = image_column(datasets, rows.features, image, path)
        self._label = label_column(datasets, rows.features, label, path)
        self._labels, self._names, self._given = classes_of(
            datasets, rows.features[self._label], rows[self._label][:], path
        )
        self._rows = rows.select_columns([self._image]).cast_column(self._image, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._names

    @property
    def class_names_given(self) -> bool:
        return self._given

    @property
    def transforms(self) -> Sequence[str]:
        colours = {"1": "grey", "3": "RGB"}.get(self.channels, "stored (grey or RGB)")
        resized = () if self.size is None else (f"resize to {self.size}x{self.size} (bilinear, antialiased)",)
        return ("turn by the EXIF orientation", f"decode as {colours}", *resized, "divide by 255")

    def describe(self) -> Mapping[str, Any]:
        return {
            "path": self.path,
            "split": self.split,
            "image": self._image,
            "label": self._label,
            "size": self.size,
            "channels": self.channels,
        }

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """(C, H, W) float32 in [0, 1] each; DataProblem naming the row that cannot be read."""
        return [self._decoded(int(i)) for i in indices]

    def fingerprint(self) -> str:
        """SHA-256 of the stored pictures' bytes, their labels, the class names and the transforms."""
        digest = hashlib.sha256(repr((self._names, self.transforms)).encode())
        digest.update(self._labels.tobytes())
        for i in range(len(self)):
            digest.update(hashlib.sha256(self._stored(i)).digest())
        return digest.hexdigest()

    def _stored(self, index: int) -> bytes:
        """The file of one picture. Only what lies in the data set itself, or in its own folder, is read."""
        cell = self._rows[index][self._image]
        if not isinstance(cell, Mapping):
            raise DataProblem(f"dataset {self.name}: row {index} has no image")
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        link = str(cell.get("path"))
        file, root = Path(self.path) / link, Path(self.path).resolve()
        if "://" in link or not file.resolve().is_relative_to(root) or not file.is_file():
            raise DataProblem(
                f"dataset {self.name}: the image of row {index} is not stored in the folder but at {link}; write it "
                "anew with the images inside (push_to_hub and to_parquet embed them)"
            )
        return file.read_bytes()

    def _decoded(self, index: int) -> np.ndarray:
        from PIL import Image, ImageOps

        stored = self._stored(index)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(stored)) as picture:
                    if picture.mode not in EIGHT_BITS:
                        raise DataProblem(
                            f"dataset {self.name}: row {index} has more than 8 bits a pixel ({picture.mode}); "
                            "imagefolder: and npz: read those"
                        )
                    made = ImageOps.exif_transpose(picture).convert(self._mode(picture.mode))
                    if self.size is not None and made.size != (self.size, self.size):
                        made = made.resize((self.size, self.size), Image.Resampling.BILINEAR)
                    pixels = np.asarray(made, dtype=np.float32) / 255
        except DataProblem:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds
            what = describe(error, 200)
            raise DataProblem(f"dataset {self.name}: the image of row {index} cannot be decoded: {what}") from None
        return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _mode(self, stored: str) -> str:
        return MODES.get(self.channels) or ("L" if stored in ("1", "L", "LA") else "RGB")


def huggingface(
    path: str,
    split: str | None = None,
    image: str | None = None,
    label: str | None = None,
    size: int | None = None,
    channels: str = "keep",
    download: bool = False,
) -> HuggingFaceDataset:
    """The labelled images of a data set. Options as listed in the plugin's schema."""
    with without_bar_threads():
        rows, name = opened(path, split, download)
        return HuggingFaceDataset(path, rows, name, image, label, size, channels)
