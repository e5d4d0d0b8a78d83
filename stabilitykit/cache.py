"""Trajectories on disk, keyed by content; an interrupted extraction goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import StabilityKitError
from .files import lock, read_json, remove_leftovers, write_json
from .results import to_plain

CACHE_VARIABLE = "STABILITYKIT_CACHE"
# How often progress is made durable: losing two seconds of work is cheaper than flushing after every batch.
FLUSH_SECONDS = 2.0


def default_cache_root() -> Path:
    """``$STABILITYKIT_CACHE``, else ``$XDG_CACHE_HOME/stabilitykit``, else ``~/.cache/stabilitykit``."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stabilitykit"


def content_key(record: Mapping[str, Any]) -> str:
    """SHA-256 of plain data in canonical form."""
    return hashlib.sha256(json.dumps(to_plain(record), sort_keys=True).encode()).hexdigest()


class TrajectoryCache:
    """One folder per key: ``logits.npy``, ``progress.json`` while growing, ``record.json`` when complete."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def get(
        self, record: Mapping[str, Any], shape: tuple[int, int, int],
        fill: Callable[[np.ndarray, int, Callable[[int], None]], None], dtype: str = "float32",
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The array for ``record``, read if complete, else filled by ``fill(out, start_row, on_batch)``.

        Args:
            record: everything the content depends on.
            shape: (T+1, N, K).
            dtype: of the array, float32 or float64.
            fill: fills rows ``start_row..N`` of ``out`` along axis 1 and reports rows done.

        Returns: a read-only memory map and {"key", "hit", "resumed_from", "path"}.
        """
        key = content_key(record)
        folder = self.root / "trajectories" / key[:2] / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StabilityKitError(f"cannot write in the cache {self.root}: {error.strerror or error}; "
                                    "use --cache DIR or --no-cache") from error
        data, done = folder / "logits.npy", folder / "record.json"
        with lock(folder / "lock", wait=True, what=f"cache entry {key[:12]}"):
            remove_leftovers(folder)
            if done.exists():
                array = self._read(data, done, shape, dtype)
                if array is not None:
                    return array, {"key": key, "hit": True, "resumed_from": None, "path": str(folder)}
            start = self._grow(folder, data, shape, fill, dtype)
            array = np.load(data, mmap_mode="r")
            write_json(done, {"record": record, "shape": shape, "sha256": _digest(array)})
            (folder / "progress.json").unlink(missing_ok=True)
        return array, {"key": key, "hit": False, "resumed_from": start or None, "path": str(folder)}

    def _read(self, data: Path, done: Path, shape: tuple[int, int, int], dtype: str) -> np.ndarray | None:
        """The finished array, or None when it is damaged (then it is made again)."""
        try:
            array = np.load(data, mmap_mode="r", allow_pickle=False)
            intact = array.shape == tuple(shape) and array.dtype == dtype and \
                read_json(done)["sha256"] == _digest(array)
        except (OSError, ValueError, KeyError, TypeError, StabilityKitError):
            intact = False
        if intact:
            return array
        done.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
        return None

    def _grow(
        self, folder: Path, data: Path, shape: tuple[int, int, int],
        fill: Callable[[np.ndarray, int, Callable[[int], None]], None], dtype: str,
    ) -> int:
        progress = folder / "progress.json"
        start = 0
        if progress.exists() and data.exists():
            try:
                start = int(read_json(progress)["rows"])
                out = np.lib.format.open_memmap(data, mode="r+")
                if out.shape != tuple(shape) or out.dtype != dtype or not 0 <= start <= shape[1]:
                    start = 0
            except (OSError, ValueError, KeyError, TypeError, StabilityKitError):
                start = 0
        if start == 0:
            progress.unlink(missing_ok=True)  # of an earlier array: it must never vouch for the rows of a new one
            self._reserve(data, shape, dtype)
            out = np.lib.format.open_memmap(data, mode="r+")
        last = time.monotonic()

        def on_batch(rows: int) -> None:
            nonlocal last
            if time.monotonic() - last >= FLUSH_SECONDS:
                out.flush()  # msync: rows must be on disk before the progress file says they are
                write_json(progress, {"rows": rows})
                last = time.monotonic()

        fill(out, start, on_batch)
        out.flush()
        return start

    def _reserve(self, data: Path, shape: tuple[int, int, int], dtype: str) -> None:
        """Take the disk space first: a full disk met through a memory map kills the process by SIGBUS."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False,
                  "shape": tuple(int(s) for s in shape)}
        data.unlink(missing_ok=True)
        try:
            with open(data, "wb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                end = stream.tell() + size
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, end)
                else:
                    stream.truncate(end)
        except OSError as error:
            data.unlink(missing_ok=True)
            raise StabilityKitError(f"the cache {self.root} has no room for {size / 1e6:.0f} MB of readouts "
                                    f"({error.strerror or error}); free space, or use --cache DIR or "
                                    "--no-cache") from error


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256()
    for depth in array:
        digest.update(np.ascontiguousarray(depth).data)
    return digest.hexdigest()
