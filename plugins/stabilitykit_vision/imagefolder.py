"""A folder with one folder of images per class: classes are the sorted folder names, images the sorted files."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit import DataProblem, Dataset

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}


class ImageFolder(Dataset):
    """Images read from disk when asked for, as RGB; sizes may differ unless ``size`` is given.

    Raises:
        DataProblem: no such folder, fewer than two class folders, a class folder without an image; later an
            unreadable image, always with its path.
    """

    def __init__(self, path: str, size: int | None = None) -> None:
        self.root, self.size = Path(path), size
        self.name = f"imagefolder {self.root.name}"
        if not self.root.is_dir():
            raise DataProblem(f"imagefolder: {self.root} is not a folder; give one with a folder per class")
        folders = sorted(f for f in self.root.iterdir() if f.is_dir() and not f.name.startswith("."))
        if len(folders) < 2:
            raise DataProblem(
                f"imagefolder: {self.root} holds {len(folders)} class folders"
                f"{f' ({folders[0].name})' if folders else ''}, expected at least 2"
            )
        self._files: list[Path] = []
        labels: list[int] = []
        for label, folder in enumerate(folders):
            files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
            if not files:
                raise DataProblem(f"imagefolder: class folder {folder} holds no image ({' '.join(sorted(SUFFIXES))})")
            self._files += files
            labels += [label] * len(files)
        self._labels = np.asarray(labels, dtype=np.int64)
        self._class_names = [folder.name for folder in folders]

    def __len__(self) -> int:
        return len(self._files)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return self._class_names

    @property
    def files(self) -> Sequence[Path]:
        """The image files, in index order."""
        return self._files

    @property
    def transforms(self) -> Sequence[str]:
        resize = () if self.size is None else (f"resize to {self.size}x{self.size} (bilinear, antialiased)",)
        return ("decode as RGB", *resize, "divide by 255")

    def describe(self) -> Mapping[str, Any]:
        return {"path": str(self.root), "size": self.size}

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """(3, H, W) float32 in [0, 1] each; DataProblem naming the file that cannot be read."""
        return [self._read(self._files[int(i)]) for i in indices]

    def fingerprint(self) -> str:
        """SHA-256 of the files' bytes, their class and name below the root, and the transforms."""
        digest = hashlib.sha256(repr((self._class_names, self.transforms)).encode())
        for file in self._files:
            digest.update(os.fsencode(file.relative_to(self.root).as_posix()) + b"\0")
            try:
                digest.update(hashlib.sha256(file.read_bytes()).digest())
            except OSError as error:
                raise DataProblem(f"imagefolder: cannot read {file}: {error.strerror or error}") from None
        return digest.hexdigest()

    def check(self) -> None:
        """As for any dataset, and every file opens as an image (headers only: pixels are decoded when used)."""
        from PIL import Image

        super().check()
        for file in self._files:
            try:
                with Image.open(file):
                    pass
            except Exception as error:
                raise _unreadable(file, error) from None

    def _read(self, file: Path) -> np.ndarray:
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file) as image:
                    rgb = image.convert("RGB")
            if self.size is not None:
                rgb = rgb.resize((self.size, self.size), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error...
            raise _unreadable(file, error) from None
        return np.asarray(rgb, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def imagefolder(path: str, size: int | None = None) -> ImageFolder:
    """The images below ``path``, one folder per class, resized to ``size`` x ``size`` if given."""
    return ImageFolder(path, size)


def _unreadable(file: Path, error: Exception) -> DataProblem:
    return DataProblem(f"imagefolder: cannot read image {file}: {error or type(error).__name__}; remove or replace it")
