"""The idx files of MNIST and its relatives, plain or gzip-compressed, read strictly."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from stabilitykit import DataProblem

UNSIGNED_BYTE = 8
LIMIT = 1 << 31  # bytes of one file's array; MNIST's largest has 47 MB


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An idx file of unsigned bytes -> uint8 array of ``dimensions`` axes.

    Raises:
        DataProblem: wrong magic number, truncated, longer than declared, corrupt gzip data. The name of the
            file is in the message.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)):
                raise DataProblem(
                    f"{path} is no idx file of {dimensions}-dimensional bytes "
                    f"(starts with {header[:4].hex(' ') or 'nothing'})"
                )
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
            size = int(np.prod([float(n) for n in shape]))
            if size > LIMIT:
                raise DataProblem(f"{path} declares {size:,} bytes; refused above {LIMIT:,}")
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataProblem(f"{path} is truncated or corrupt: {error}") from None
    if len(data) != size:
        what = "truncated" if len(data) < size else "longer than declared"
        raise DataProblem(f"{path} is {what}: {size:,} bytes declared, {len(data):,} found")
    return np.frombuffer(data, np.uint8).reshape(shape)


def find_idx(root: Path, folder: str, stem: str) -> Path | None:
    """``stem`` or ``stem.gz`` in ``root/folder/raw`` (torchvision's layout), ``root/raw`` or ``root``; else None."""
    for place in (root / folder / "raw", root / "raw", root):
        for name in (stem, f"{stem}.gz"):
            if (place / name).is_file():
                return place / name
    return None
