"""Trajectories on disk, keyed by content; an interrupted extraction goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit.base.errors import StabilityKitError
from stabilitykit.base.files import lock, read_json, remove_leftovers, write_json
from stabilitykit.base.results import to_plain

CACHE_VARIABLE = "STABILITYKIT_CACHE"
# How often progress is made durable: losing two seconds of work is cheaper than flushing after every batch.
FLUSH_SECONDS = 2.0
# Without a cache, readouts up to this size are kept in memory.
SCRATCH_BYTES = 1 << 28


def default_cache_root() -> Path:
    """``$STABILITYKIT_CACHE``, else ``$XDG_CACHE_HOME/stabilitykit``, else ``~/.cache/stabilitykit``."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stabilitykit"


def usable_default_root() -> Path | None:
    """:func:`default_cache_root`, or None with a warning where it cannot be written and was not asked for by name."""
    try:
        root = default_cache_root()
    except (RuntimeError, KeyError) as error:  # no HOME, and the user is in no password database
        print(f"warning: no cache folder ({error}); trajectories are not kept", file=sys.stderr)
        return None
    if os.environ.get(CACHE_VARIABLE):
        return root
    try:
        root.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(root, os.W_OK | os.X_OK) else "no permission to write"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        print(
            f"warning: cache folder {root} cannot be written ({reason}); trajectories are not kept "
            f"(--cache DIR or ${CACHE_VARIABLE} choose another one)",
            file=sys.stderr,
        )
    return None if reason else root


def scratch_array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array that no crash leaves behind: in memory, or above SCRATCH_BYTES in a temporary file without a name.

    StabilityKitError when the temporary folder has no room.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= SCRATCH_BYTES:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="stabilitykit-") as file:
            if hasattr(os, "posix_fallocate"):  # a full disk met through a memory map kills the process by SIGBUS
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)  # type: ignore[call-overload]
    except OSError as error:
        raise StabilityKitError(
            f"no room for {size / 1e6:.0f} MB of readouts in the temporary folder "
            f"({error.strerror or error}); free space or set TMPDIR"
        ) from error


def content_key(record: Mapping[str, Any]) -> str:
    """SHA-256 of plain data in canonical form."""
    return hashlib.sha256(json.dumps(to_plain(record), sort_keys=True).encode()).hexdigest()


class TrajectoryCache:
    """One folder per key: ``logits.npy``, ``progress.json`` while growing, ``record.json`` when complete."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def get(
        self,
        record: Mapping[str, Any],
        shape: tuple[int, int, int],
        fill: Callable[[np.ndarray, int, Callable[[int], None]], None],
        dtype: str = "float32",
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
            raise StabilityKitError(
                f"cannot write in the cache {self.root}: {error.strerror or error}; use --cache DIR or --no-cache"
            ) from error
        data, done = folder / "logits.npy", folder / "record.json"
        with lock(folder / "lock", wait=True, what=f"cache entry {key[:12]}"):
            remove_leftovers(folder)
            if done.exists():
                array = self._read(data, done, shape, dtype)
                if array is not None:
                    return array, {"key": key, "hit": True, "resumed_from": None, "path": str(folder)}
            start, digest = self._grow(folder, data, shape, fill, dtype)
            array = np.load(data, mmap_mode="r")
            write_json(done, {"record": record, "shape": shape, "sha256": digest})
            (folder / "progress.json").unlink(missing_ok=True)
        return array, {"key": key, "hit": False, "resumed_from": start or None, "path": str(folder)}

    def _read(self, data: Path, done: Path, shape: tuple[int, int, int], dtype: str) -> np.ndarray | None:
        """The finished array, or None when it is damaged (then it is made again)."""
        try:
            array = np.load(data, mmap_mode="r", allow_pickle=False)
            intact = (
                array.shape == tuple(shape)
                and array.dtype == dtype
                and read_json(done)["sha256"] == _digest(array, 0, shape[1]).hexdigest()
            )
        except (OSError, ValueError, KeyError, TypeError, StabilityKitError):
            intact = False
        if intact:
            return array
        print(f"warning: {data} is damaged; its trajectories are extracted again", file=sys.stderr)
        done.unlink(missing_ok=True)
        data.unlink(missing_ok=True)
        return None

    def _grow(
        self,
        folder: Path,
        data: Path,
        shape: tuple[int, int, int],
        fill: Callable[[np.ndarray, int, Callable[[int], None]], None],
        dtype: str,
    ) -> tuple[int, str]:
        """(the row that extraction started from, SHA-256 of the finished array)."""
        progress = folder / "progress.json"
        start, digest = 0, hashlib.sha256()
        if progress.exists() and data.exists():
            try:
                before = read_json(progress)
                start = int(before["rows"])
                out = np.lib.format.open_memmap(data, mode="r+")
                if out.shape != tuple(shape) or out.dtype != dtype or not 0 <= start <= shape[1]:
                    start = 0
                digest = _digest(out, 0, start)
                if start and digest.hexdigest() != before["sha256"]:
                    print(f"warning: {data} is damaged; its trajectories are extracted again", file=sys.stderr)
                    start = 0
            except (OSError, ValueError, KeyError, TypeError, IndexError, StabilityKitError):
                start = 0
        if start == 0:
            progress.unlink(missing_ok=True)  # of an earlier array: it must never vouch for the rows of a new one
            self._reserve(data, shape, dtype)
            out = np.lib.format.open_memmap(data, mode="r+")
            digest = hashlib.sha256()
        last, digested = time.monotonic(), start

        def on_batch(rows: int) -> None:
            nonlocal last, digested
            if time.monotonic() - last >= FLUSH_SECONDS:
                out.flush()  # msync: rows must be on disk before the progress file says they are
                _digest(out, digested, rows, digest)
                digested = rows
                write_json(progress, {"rows": rows, "sha256": digest.copy().hexdigest()})
                last = time.monotonic()

        fill(out, start, on_batch)
        out.flush()
        return start, _digest(out, digested, shape[1], digest).hexdigest()

    def _reserve(self, data: Path, shape: tuple[int, int, int], dtype: str) -> None:
        """Take the disk space first: a full disk met through a memory map kills the process by SIGBUS."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": tuple(int(s) for s in shape),
        }
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
            raise StabilityKitError(
                f"the cache {self.root} has no room for {size / 1e6:.0f} MB of readouts "
                f"({error.strerror or error}); free space, or use --cache DIR or "
                "--no-cache"
            ) from error


def _digest(array: np.ndarray, start: int, stop: int, digest: Any = None) -> Any:
    """SHA-256 of rows ``start..stop`` of ``array`` (T+1, N, K), image by image: it can grow with the array."""
    digest = hashlib.sha256() if digest is None else digest
    for first in range(start, stop, 256):
        rows = array[:, first : min(first + 256, stop)]
        digest.update(np.ascontiguousarray(rows.swapaxes(0, 1)).data)
    return digest
