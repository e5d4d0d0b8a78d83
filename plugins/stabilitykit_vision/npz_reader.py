"""Arrays out of an .npz file without trusting it: no pickles, and no more memory than was allowed."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit import DataProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.memory import check_expansion

HEADERS: Mapping[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpzFile:
    """The arrays of ``path`` by key, read when asked for.

    The size that an array declares is checked before any of it is inflated: all arrays read so far together against
    ``limit`` bytes and the memory available, and without a limit against the size of the file, too. The archive must
    hold exactly what is declared.

    Raises:
        DataProblem: not an .npz file, truncated, corrupt, object arrays (pickles), over the limit.
    """

    def __init__(self, path: Path, limit: int | None) -> None:
        self.path, self.limit, self._declared = path, limit, 0
        if not path.is_file():
            raise DataProblem(f"npz: {path} is not a file")
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise DataProblem(f"npz: {path} is truncated or no .npz file: {error}") from None
        self._members = {
            info.filename.removesuffix(".npy"): info
            for info in self._archive.infolist()
            if info.filename.endswith(".npy")
        }

    @property
    def keys(self) -> list[str]:
        """Names of the arrays."""
        return sorted(self._members)

    def read(self, key: str) -> np.ndarray:
        """The array called ``key`` (KeyError when there is none)."""
        info = self._members[key]
        where = f"npz: {self.path}, array {key!r}"
        try:
            shape, dtype, header = self._header(key)
            if dtype.hasobject:
                raise DataProblem(f"{where} holds Python objects (a pickle, never loaded); store plain numbers")
            size = math.prod(shape) * dtype.itemsize
            self._declared += size
            if self.limit is not None and self._declared > self.limit:
                raise DataProblem(
                    f"{where} declares {size / 2**30:.2f} GiB, above the limit of "
                    f"{self.limit / 2**30:g} GiB; raise it with max_gib=... if that is meant"
                )
            if header + size != info.file_size:
                raise DataProblem(f"{where} declares {size:,} bytes, the archive holds {info.file_size - header:,}")
            check_expansion(
                self.path,
                self._declared,
                f"give max_gib={self._declared / 2**30 + 1:.0f} if that is meant",
                asked_for=self.limit is not None,
            )
            with self._archive.open(info) as stream:
                return np.lib.format.read_array(stream, allow_pickle=False)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            ValueError,
            OSError,
            NotImplementedError,
            SyntaxError,
            RuntimeError,
            MemoryError,
        ) as error:
            raise DataProblem(f"{where} is truncated or corrupt: {describe(error, 200)}") from None

    def describe(self, key: str) -> str:
        """Type and shape of the array called ``key``, from its header alone."""
        try:
            shape, dtype, _ = self._header(key)
        except Exception:  # only to be named in a message
            return "(unreadable)"
        return f"({dtype} {'x'.join(map(str, shape)) or 'scalar'})"

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype, int]:
        """(shape, dtype, bytes of the header) of the array called ``key``."""
        with self._archive.open(self._members[key]) as stream:
            version = np.lib.format.read_magic(stream)
            if version not in HEADERS:
                raise DataProblem(f"npz: {self.path}, array {key!r} has .npy version {version}, expected 1.0 or 2.0")
            shape, _, dtype = HEADERS[version](stream)
            return shape, dtype, stream.tell()

    def close(self) -> None:
        self._archive.close()
