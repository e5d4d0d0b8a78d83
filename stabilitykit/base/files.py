"""Files that are either old or new, never half: atomic writes and locks that die with their process."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.base.results import to_plain


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` through a temporary file in the same folder: write, fsync, rename, fsync folder.

    A crash at any moment leaves the old file or the new one. The price is two disk flushes per file.
    StabilityKitError naming the path when the disk is full or the folder cannot be written.
    """
    # File names of the system may hold lone surrogates, which UTF-8 cannot; they are written as \\udcxx.
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
        fsync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise StabilityKitError(f"cannot write {path}: {reason}; what was there before is intact") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def fsync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (a no-op where folders cannot be opened)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_leftover(path: Path) -> bool:
    """Is ``path`` named like a temporary file of :func:`write_atomic`?"""
    return path.name.startswith(".") and path.suffix == ".tmp"


def remove_leftovers(folder: Path, *names: str) -> None:
    """Delete the temporary files that killed writers of ``names`` (all files, if none is given) left in ``folder``.

    Only for a process that holds the lock of ``folder``: nobody else may be writing there.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if is_leftover(path) and path.name.startswith(tuple(f".{name}." for name in names) or "."):
                path.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Plain data as indented JSON, written atomically; Inf and NaN become strings, keys keep their order."""
    write_atomic(path, json.dumps(to_plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def require_regular(path: Path) -> None:
    """UsageProblem for a pipe, device or folder: reading those may never end."""
    if path.exists() and not path.is_file():
        raise UsageProblem(f"{path} is {'a folder' if path.is_dir() else 'a pipe or device'}; expected a file")


def read_json(path: Path) -> Any:
    """Parsed JSON; UsageProblem when the file is missing or not JSON."""
    try:
        require_regular(path)
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        # An escaped lone surrogate is valid JSON but cannot be printed or written again.
        return to_plain(data) if "\\ud" in text.lower() else data
    except FileNotFoundError:
        raise UsageProblem(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageProblem(f"cannot read {path} as JSON: {error}") from None


@contextlib.contextmanager
def lock(path: Path, *, wait: bool, what: str) -> Iterator[bool]:
    """Hold an advisory lock on ``path`` while in the body; the kernel drops it when the process dies, even by -9.

    With ``wait`` another holder is waited for; without, UsageProblem says that ``what`` is in use.
    Yields whether a lock is really held (not on systems without flock).
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+")  # noqa: SIM115 - closed by the with below; opening has an error of its own
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageProblem(f"cannot write in {path.parent}: {reason}") from error
    with stream:
        try:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise UsageProblem(
                        f"{what} is in use by another process; wait for it or choose another one"
                    ) from None
                print(f"waiting for another process: {what} is in use", file=sys.stderr, flush=True)
                fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:
            yield False  # a file system without locks: go on, atomic renames still keep files whole
            return
        try:
            yield True
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)
