"""Which files of a folder are images of which class, and why the others are left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}

SYSTEM_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
"""What operating systems and archives leave beside the class folders (names in small letters)."""

NAMED = 20
"""Files of each reason that the record names."""


@dataclass
class LeftOut:
    """Files that are no images of the set: reason -> paths below the root, in the order they were met."""

    files: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: str) -> None:
        """Count ``path`` (below the root) under ``reason``."""
        self.files.setdefault(reason, []).append(path)

    def text(self) -> str:
        """One line: how many files, why, and the first of each reason; empty when there are none."""
        if not self.files:
            return ""
        reasons = [
            f"{len(paths)} {reason} ({', '.join(paths[:2])}{f' and {len(paths) - 2} more' if len(paths) > 2 else ''})"
            for reason, paths in self.files.items()
        ]
        count = sum(map(len, self.files.values()))
        return f"{count} {'entry is' if count == 1 else 'entries are'} left out: {'; '.join(reasons)}"

    def record(self) -> dict[str, Any]:
        """Plain data: for every reason the count and the first files."""
        return {reason: {"count": len(paths), "first": paths[:NAMED]} for reason, paths in self.files.items()}


def class_folders(root: Path, left_out: LeftOut) -> list[Path]:
    """The folders directly below ``root`` that are classes; everything else there is counted in ``left_out``."""
    found = []
    top = _identity(root)
    for entry in _entries(root):
        name = printable(entry.relative_to(root))
        if entry.name.lower() in SYSTEM_FOLDERS:
            left_out.add("left by an operating system or archive", f"{name}/")
        elif entry.name.startswith("."):
            left_out.add("hidden", name)
        elif entry.is_dir():
            if _identity(entry) == top:
                left_out.add("link back to a folder above", f"{name}/")
            else:
                found.append(entry)
        elif entry.is_symlink() and not entry.exists():
            left_out.add("dangling link", name)
        else:
            left_out.add("outside the class folders", name)
    return found


def image_files(root: Path, folder: Path, left_out: LeftOut) -> list[Path]:
    """All images in ``folder`` and the folders below it, links followed as torchvision does.

    Returns:
        paths sorted by their text. A folder that links back to one it lies in is not entered again.
    """
    return sorted(_descend(root, folder, left_out, (_identity(root), _identity(folder))))


def _descend(root: Path, folder: Path, left_out: LeftOut, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    for entry in _entries(folder):
        below = printable(entry.relative_to(root))
        if entry.name.startswith("."):
            left_out.add("hidden", below)
        elif entry.is_symlink() and not entry.exists():
            left_out.add("dangling link", below)
        elif entry.is_dir():
            identity = _identity(entry)
            if entry.name.lower() in SYSTEM_FOLDERS:
                left_out.add("left by an operating system or archive", f"{below}/")
            elif identity in above:
                left_out.add("link back to a folder above", f"{below}/")
            else:
                yield from _descend(root, entry, left_out, (*above, identity))
        elif entry.suffix.lower() not in SUFFIXES:
            left_out.add("not called like an image", below)
        elif not entry.is_file():
            left_out.add("no regular file", below)
        else:
            yield entry


def printable(path: Path) -> str:
    """``path`` with slashes; bytes of file names that are no UTF-8 as escapes, so that it can be recorded."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _entries(folder: Path) -> Iterable[Path]:
    return sorted(Path(entry) for entry in os.scandir(folder))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
