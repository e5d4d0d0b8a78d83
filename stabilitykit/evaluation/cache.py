"""Trajectories on disk: addressed by content, used once proven; an interrupted extraction goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stabilitykit.base.errors import StabilityKitError
from stabilitykit.base.files import Folder
from stabilitykit.base.locks import lock
from stabilitykit.base.results import to_plain
from stabilitykit.evaluation.proof import Proof

CACHE_VARIABLE = "STABILITYKIT_CACHE"
# How often progress is made durable: losing two seconds of work is cheaper than flushing after every batch.
FLUSH_SECONDS = 2.0
# Without a cache, readouts up to this size are kept in memory.
SCRATCH_BYTES = 1 << 28
# Networks of one address (equal weights and code, other function) whose trajectories are kept beside each other.
MOST_NETWORKS = 8
LOGITS, PROGRESS, RECORD = "logits.npy", "progress.json", "record.json"


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


def scratch_array(shape: tuple[int, ...], dtype: str, folder: Path | None = None) -> np.ndarray:
    """An array of ``shape`` and ``dtype`` that no crash leaves behind.

    It is in memory, or above SCRATCH_BYTES in a temporary file without a name in ``folder`` (None: the temporary
    folder). ``shape`` may be any shape.

    Raises:
        StabilityKitError: the folder has no room.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= SCRATCH_BYTES:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="stabilitykit-", dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk met through a memory map kills the process by SIGBUS
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
    except OSError as error:
        raise StabilityKitError(
            f"no room for {size / 1e6:.0f} MB in {folder or 'the temporary folder'} "
            f"({error.strerror or error}); free space or set TMPDIR"
        ) from error


Fill = Callable[[np.ndarray, int, Callable[[int], None]], None]


def checked_root(root: Path) -> Path:
    """``root``; UsageProblem when something kept in it is a link, pipe, socket or device."""
    Folder(root).check("trajectories")
    return root


def content_key(record: Mapping[str, Any]) -> str:
    """SHA-256 of plain data in canonical form."""
    return hashlib.sha256(json.dumps(to_plain(record), sort_keys=True).encode()).hexdigest()


class TrajectoryCache:
    """A folder ``trajectories/KE/KEY`` per address, with ``KEY.1``, ``KEY.2`` beside it for other networks of it.

    Each holds ``logits.npy``, ``progress.json`` while growing, and ``record.json`` once complete. Weights, data and
    settings are the address, never the proof: what is kept is used only after its digests fit and the network given
    now has reproduced some of its rows. Where no lock can be had, a process fills a folder of its own, and sees those
    of others only when they are complete.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.files = Folder(root)

    def get(
        self,
        record: Mapping[str, Any],
        shape: tuple[int, int, int],
        fill: Fill,
        dtype: str = "float32",
        proof: Proof | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The array for ``record``, read if it is complete and proven, else filled.

        Arguments:
            record: everything the content depends on, as far as it can be named.
            shape: (T+1, N, K).
            fill: ``fill(out, start, on_batch)`` fills rows ``start..N`` of ``out`` along axis 1, reports rows done.
            dtype: of the array, float32 or float64.
            proof: computes some rows anew; None takes what is kept on its address alone.

        Returns:
            A read-only memory map and {"key", "hit", "resumed_from", "path"}.

        Raises:
            StabilityKitError: the cache cannot be written, or has no room.
            UsageProblem: something in it is a link, pipe, socket or device.
        """
        key = content_key(record)
        place = ("trajectories", key[:2])
        try:
            self.files.make(*place, key)
        except OSError as error:
            raise StabilityKitError(
                f"cannot write in the cache {self.root}: {error.strerror or error}; use --cache DIR or --no-cache"
            ) from error
        with lock(self.files.path(*place, key, "lock"), wait=True, what=f"cache entry {key[:12]}") as held:
            entries = self._entries(place, key, shape, dtype)
            strangers = 0
            for entry in entries:
                array, drift = entry.complete()
                if array is not None and (proof is None or proof.reproduces(array, shape[1], drift)):
                    return array, {"key": key, "hit": True, "resumed_from": None, "path": str(entry.path)}
                strangers += array is not None
            for entry in entries if held else ():
                start, digest = entry.partial(proof)
                strangers += start < 0
                if start > 0:
                    break
            else:
                entry, start, digest = self._new(entries, place, key, shape, dtype, held), 0, hashlib.sha256()
            if strangers and start == 0:
                print(
                    f"warning: cache entry {key[:12]}: the network given now does not reproduce the trajectories kept "
                    "there (they are of another one with these weights); its own are extracted",
                    file=sys.stderr,
                )
            array = entry.grow(record, fill, start, digest, proof, progress=held)
        return array, {"key": key, "hit": False, "resumed_from": start or None, "path": str(entry.path)}

    def _entries(self, place: tuple[str, str], key: str, shape: tuple[int, int, int], dtype: str) -> list[_Entry]:
        """What is kept under ``key``; UsageProblem when something there is a link, pipe, socket or device."""
        names = [name for name in self.files.names(*place) if name.partition(".")[0] == key]
        for name in names:
            self.files.check(*place, name)
            self.files.remove_leftovers(*place, name)
        return [_Entry(self.files, (*place, name), key, shape, dtype) for name in names]

    def _new(
        self,
        entries: list[_Entry],
        place: tuple[str, str],
        key: str,
        shape: tuple[int, int, int],
        dtype: str,
        held: bool,
    ) -> _Entry:
        """An entry nobody else fills: unused or, above MOST_NETWORKS, the one made first. Without a lock, a new one."""
        if not held:
            return _Entry(self.files, (*place, f"{key}.{secrets.token_hex(8)}"), key, shape, dtype)
        numbered = [key, *(f"{key}.{number}" for number in range(1, MOST_NETWORKS))]
        used = {entry.names[-1]: entry for entry in entries if entry.used}
        free = next((name for name in numbered if name not in used), None)
        return (
            _Entry(self.files, (*place, free), key, shape, dtype)
            if free is not None
            else min((used[name] for name in numbered), key=lambda entry: entry.path.stat().st_mtime)
        )


class _Entry:
    """The trajectory of one network: a folder of the cache."""

    def __init__(
        self, files: Folder, names: tuple[str, ...], key: str, shape: tuple[int, int, int], dtype: str
    ) -> None:
        self.files, self.names, self.key, self.shape, self.dtype = files, names, key, tuple(shape), np.dtype(dtype)

    @property
    def path(self) -> Path:
        return self.files.path(*self.names)

    @property
    def used(self) -> bool:
        """Does it hold a trajectory, whole or in part?"""
        return self.files.holds(*self.names, RECORD) or self.files.holds(*self.names, PROGRESS)

    def complete(self) -> tuple[np.ndarray | None, float]:
        """(whole array, drift recorded with it); (None, 0) when it is not complete, or damaged and now removed."""
        if not self.files.holds(*self.names, RECORD):
            return None, 0.0
        try:
            kept = self.files.read_json(*self.names, RECORD)
            array = self._mapped()
            if content_key(kept["record"]) != self.key:
                raise ValueError("of another address")
            if kept["sha256"] != _digest(array, 0, self.shape[1]).hexdigest():
                raise ValueError("damaged")
            return array, float(kept["drift"])
        except Exception:  # a damaged file may raise anything
            self._say_damaged()
            for name in (RECORD, PROGRESS, LOGITS):
                self.files.remove(*self.names, name)
        return None, 0.0

    def partial(self, proof: Proof | None) -> tuple[int, Any]:
        """(rows of an interrupted extraction that ``proof`` reproduces, their digest); -1 rows: of another network."""
        if not self.files.holds(*self.names, PROGRESS) or self.files.holds(*self.names, RECORD):
            return 0, None
        try:
            before = self.files.read_json(*self.names, PROGRESS)
            rows, array = int(before["rows"]), self._mapped()
            digest = _digest(array, 0, rows)
            if not 0 < rows <= self.shape[1] or digest.hexdigest() != before["sha256"]:
                raise ValueError("damaged")
        except Exception:  # a damaged file may raise anything
            self._say_damaged()
            self.files.remove(*self.names, PROGRESS)  # it must never vouch for the rows of a new array
            return 0, None
        return (rows, digest) if proof is None or proof.reproduces(array, rows, 0.0) else (-1, None)

    def grow(
        self, record: Mapping[str, Any], fill: Fill, start: int, digest: Any, proof: Proof | None, *, progress: bool
    ) -> np.ndarray:
        """Fill rows from ``start``, whose digest so far is ``digest`` -> the whole array, read-only.

        ``progress``: note now and then what is done, for the process that goes on after an interruption.
        """
        if start == 0:
            self.files.make(*self.names)
            self.files.remove(*self.names, RECORD)
            self.files.remove(*self.names, PROGRESS)
            self._reserve()
        out = self._mapped(write=True)
        last, digested = time.monotonic(), start

        def on_batch(rows: int) -> None:
            nonlocal last, digested
            if progress and time.monotonic() - last >= FLUSH_SECONDS:
                out.flush()  # msync: rows must be on disk before the progress file says they are
                _digest(out, digested, rows, digest)
                digested = rows
                self.files.write_json(*self.names, PROGRESS, data={"rows": rows, "sha256": digest.copy().hexdigest()})
                last = time.monotonic()

        fill(out, start, on_batch)
        out.flush()
        _digest(out, digested, self.shape[1], digest)
        drift = 0.0 if proof is None else proof.drift(out)
        kept = {"record": record, "shape": self.shape, "sha256": digest.hexdigest(), "drift": drift}
        array = self._mapped()
        self.files.write_json(*self.names, RECORD, data=kept)
        self.files.remove(*self.names, PROGRESS)
        return array

    def _mapped(self, *, write: bool = False) -> np.memmap:
        """The array of ``logits.npy`` as a memory map; ValueError when it has another shape or dtype."""
        with self.files.open(*self.names, LOGITS, write=write) as stream:
            return _mapped(stream, self.shape, self.dtype, "r+" if write else "r")

    def _say_damaged(self) -> None:
        print(
            f"warning: cache entry {self.names[-1][:12]} is damaged or not what its address says; its trajectories "
            "are extracted again",
            file=sys.stderr,
        )

    def _reserve(self) -> None:
        """Take the disk space first: a full disk met through a memory map kills the process by SIGBUS."""
        size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": tuple(int(s) for s in self.shape),
        }
        # A new file, not the old one emptied: others may still have that in memory.
        self.files.remove(*self.names, LOGITS)
        try:
            with open(self.files.path(*self.names, LOGITS), "xb") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                end = stream.tell() + size
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, end)
                else:
                    stream.truncate(end)
        except OSError as error:
            self.files.remove(*self.names, LOGITS)
            raise StabilityKitError(
                f"the cache {self.files.root} has no room for {size / 1e6:.0f} MB of readouts "
                f"({error.strerror or error}); free space, or use --cache DIR or "
                "--no-cache"
            ) from error


def _mapped(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], mode: str) -> np.memmap:
    """The array in an open .npy file; ValueError when it is another than expected."""
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not the .npy version that was written")
    found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    if found != shape or fortran or kind != dtype:
        raise ValueError(f"holds {kind} {found}, expected {dtype} {shape}")
    return np.memmap(stream, dtype=kind, mode=mode, offset=stream.tell(), shape=found)  # type: ignore[call-overload,no-any-return]


def _digest(array: np.ndarray, start: int, stop: int, digest: Any = None) -> Any:
    """SHA-256 of rows ``start..stop`` of ``array`` (T+1, N, K), image by image: it can grow with the array."""
    digest = hashlib.sha256() if digest is None else digest
    for first in range(start, stop, 256):
        rows = array[:, first : min(first + 256, stop)]
        digest.update(np.ascontiguousarray(rows.swapaxes(0, 1)).data)
    return digest
