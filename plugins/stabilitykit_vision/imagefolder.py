"""A folder with one folder of images per class; files below it in any depth, sorted by their text."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stabilitykit import DataProblem, Dataset
from stabilitykit_vision.arrays import constant_images
from stabilitykit_vision.channels import LUMA
from stabilitykit_vision.decoding import Header, Reading, Unreadable, finished, no_bombs, read_header, read_pixels
from stabilitykit_vision.listing import SUFFIXES, LeftOut, class_folders, image_files, printable
from stabilitykit_vision.ordering import ordered
from stabilitykit_vision.ranges import check_brightness, parse_range

T = TypeVar("T")
LOOKED_AT = 10_000
"""Images whose pixels are looked at before anything is computed; of larger sets as many, evenly spread."""


class ImageFolder(Dataset):
    """Images read from disk when asked for; sizes may differ unless ``size`` is given.

    Arguments:
        path: folder with a folder per class.
        reading: size, channels, alpha and range.
        order: of classes, ``"natural"`` or ``"text"``.
        skip: leave out images that cannot be decoded (every file is decoded for that).
        allow_empty: keep classes without an image.

    Raises:
        DataProblem: no such folder, fewer than two class folders, a class folder without an image; later an
            unreadable image, always with its path.
    """

    def __init__(
        self, path: str, reading: Reading, *, order: str = "natural", skip: bool = False, allow_empty: bool = False
    ) -> None:
        self.root, self.reading, self.order = Path(path), reading, order
        self.name = f"imagefolder {self.root.name}"
        self._looked: list[str] | None = None
        if not self.root.is_dir():
            raise DataProblem(f"imagefolder: {self.root} is not a folder; give one with a folder per class")
        self.left_out = LeftOut()
        try:
            folders = {
                printable(folder.relative_to(self.root)): folder for folder in class_folders(self.root, self.left_out)
            }
            self._class_names, self._order_warning = ordered(folders, order)
            found = [image_files(self.root, folders[name], self.left_out) for name in self._class_names]
        except OSError as error:
            raise DataProblem(f"imagefolder: cannot list {error.filename}: {error.strerror or error}") from None
        if len(folders) < 2:
            raise DataProblem(
                f"imagefolder: {self.root} holds {len(folders)} class folders"
                f"{f' ({self._class_names[0]})' if folders else ''}, expected at least 2"
            )
        if skip:
            found = [self._readable(files) for files in found]
        self._empty = [name for name, files in zip(self._class_names, found) if not files]
        if self._empty and not (allow_empty and len(self._empty) < len(folders)):
            left = self.left_out.text()
            raise DataProblem(
                f"imagefolder: class folder {folders[self._empty[0]]} holds no image ({' '.join(sorted(SUFFIXES))}); "
                "remove it, or allow_empty=true to keep its class" + (f"; {left}" if left else "")
            )
        self._files = [file for files in found for file in files]
        self._labels = np.repeat(np.arange(len(found), dtype=np.int64), [len(files) for files in found])

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
        """Steps that no file needs are not among them: equal pixels have equal transforms."""
        how, headers = self.reading, self._headers
        turned = any(header.turned for header in headers)
        deep = sorted({header.deep for header in headers} - {""})
        alpha = any(header.alpha for header in headers) and how.alpha != "drop"
        colours = {"1": "grey", "keep": "stored (grey or RGB)"}.get(how.channels, "RGB")
        behind = "alpha alone" if how.alpha == "only" else f"over {how.alpha}"
        scale = how.range.transform if how.range is not None else "divide by 255"
        return (
            *(("turn by the EXIF orientation",) if turned else ()),
            f"decode as {colours}",
            *((LUMA,) if how.channels == "1" else ()),
            *((f"transparent pixels: {behind}",) if alpha else ()),
            *(() if how.size is None else (f"resize to {how.size}x{how.size} (bilinear, antialiased)",)),
            scale,
            *((f"{', '.join(deep)} files by the range of their format",) if deep and how.range is None else ()),
        )

    @property
    def warnings(self) -> Sequence[str]:
        headers = self._headers
        moving = [self._below(i) for i, header in enumerate(headers) if header.frames > 1]
        found = [self._order_warning, self.left_out.text(), *self._look()]
        if self._empty:
            found.append(f"no image of class {', '.join(self._empty[:5])}{' and others' if self._empty[5:] else ''}")
        if moving:
            found.append(f"{len(moving)} files hold several pictures: the first is taken ({', '.join(moving[:2])})")
        return tuple(text for text in found if text)

    def describe(self) -> Mapping[str, Any]:
        return {
            "path": str(self.root),
            "size": self.reading.size,
            "order": self.order,
            "left_out": self.left_out.record(),
            "pixels_looked_at": min(len(self), LOOKED_AT),
        }

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        """(C, H, W) float32 in [0, 1] each; DataProblem naming the file that cannot be read."""
        with no_bombs():
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
        """As for any dataset; every header is read, and the pixels of up to 10,000 images are looked at."""
        super().check()
        for header in self._headers_or_errors:
            if isinstance(header, Exception):
                raise header
        self._look()

    @cached_property
    def _headers_or_errors(self) -> list[Header | Unreadable]:
        return _in_parallel(_caught(read_header), self._files)

    @property
    def _headers(self) -> list[Header]:
        """Of the files that can be opened: the others are refused as soon as they are needed."""
        nothing = Header(False, "", False, 1)
        return [nothing if isinstance(header, Exception) else header for header in self._headers_or_errors]

    def _readable(self, files: Sequence[Path]) -> list[Path]:
        kept = []
        for file, result in zip(files, _in_parallel(_caught(read_pixels), files)):
            if isinstance(result, Exception):
                self.left_out.add("cannot be decoded", printable(file.relative_to(self.root)))
            else:
                kept.append(file)
        return kept

    def _look(self) -> list[str]:
        """What the pixels of up to 10,000 images say: transparency, nothing to see, a wrong range.

        Raises:
            DataProblem: an image that cannot be read, numbers outside their range, a set that is black.
        """
        if self._looked is not None:
            return self._looked
        step = max(len(self) / LOOKED_AT, 1)
        chosen = [int(i * step) for i in range(min(len(self), LOOKED_AT))]
        seen = _in_parallel(self._glance, [self._files[i] for i in chosen])
        constant = [self._below(i) for i, glance in zip(chosen, seen) if glance.constant]
        clear = [self._below(i) for i, glance in zip(chosen, seen) if glance.transparent]
        hidden = [self._below(i) for i, glance in zip(chosen, seen) if glance.constant and glance.cut_out]
        if hidden and self.reading.alpha == "drop":
            raise DataProblem(
                f"imagefolder: {len(hidden)} images ({', '.join(hidden[:2])}) have their picture in the alpha channel "
                "alone: say what lies behind, alpha=white or alpha=black, or alpha=only to see alpha itself"
            )
        found = []
        if self.reading.alpha == "drop":
            # Of each depth by itself: bright 8-bit files must not hide that 16-bit files hold 12 bits.
            for kind in sorted({glance.kind for glance in seen}):
                top = max((glance for glance in seen if glance.kind == kind), key=lambda glance: glance.brightest)
                given = self.reading.range is not None
                found.append(check_brightness(f"{self.name} ({kind} files)", top.brightest, top.stored, given))
        if constant:
            found.append(constant_images(constant, len(chosen)))
        if clear and self.reading.alpha == "drop":
            found.append(
                f"{len(clear)} images have transparent pixels ({', '.join(clear[:2])}), whose colour is taken as it is "
                "(as torchvision and timm do); alpha=white or alpha=black puts something behind them"
            )
        self._looked = [text for text in found if text]
        return self._looked

    def _glance(self, file: Path) -> _Glance:
        pixels = read_pixels(file)
        image = finished(file, pixels, Reading(None, "keep", self.reading.alpha, self.reading.range))
        flat = image.reshape(len(image), -1)
        return _Glance(
            bool((flat.min(axis=1) == flat.max(axis=1)).all()),
            pixels.alpha is not None,
            pixels.alpha is not None and bool(pixels.alpha.min() < pixels.alpha.max()),
            str(pixels.stored.dtype),
            float(image.max()),
            float(pixels.stored.max()),
        )

    def _read(self, file: Path) -> np.ndarray:
        return finished(file, read_pixels(file), self.reading)

    def _below(self, index: int) -> str:
        return printable(self._files[index].relative_to(self.root))


@dataclass(frozen=True)
class _Glance:
    """Of one image: are all pixels equal, are some transparent (and not all alike), how are they stored, the brightest
    one (scaled, and as stored)."""

    constant: bool
    transparent: bool
    cut_out: bool
    kind: str
    brightest: float
    stored: float


def imagefolder(
    path: str,
    size: int | None = None,
    order: str = "natural",
    channels: str = "3",
    range: str | None = None,
    alpha: str = "drop",
    unreadable: str = "refuse",
    allow_empty: bool = False,
) -> ImageFolder:
    """The images below ``path``, one folder per class. Options as listed in the plugin's schema."""
    reading = Reading(size, channels, alpha, parse_range(range, "imagefolder"))
    return ImageFolder(path, reading, order=order, skip=unreadable == "skip", allow_empty=allow_empty)


def _in_parallel(function: Callable[[Path], T], files: Sequence[Path]) -> list[T]:
    """``function`` of every file, in their order. Pillow decodes outside the interpreter's lock."""
    with no_bombs(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, files))


def _caught(function: Callable[[Path], T]) -> Callable[[Path], T | Unreadable]:
    def result(file: Path) -> T | Unreadable:
        try:
            return function(file)
        except Unreadable as error:
            return error

    return result
