"""Files that are either old or new, never half, and folders in which nothing is reached through a link."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.base.locks import try_lock
from stabilitykit.base.results import to_plain

# Neither follow a link in the last place of a path, nor wait for somebody at the other end of a pipe.
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_SPECIAL = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class Folder:
    """A run or cache folder. Nothing below its root is read, written or removed through a link, or waited for.

    The root is where the user said, through links if he likes. Every way to a file below it goes through
    :meth:`path`, which refuses links, pipes, sockets and devices (UsageProblem, exit 2).
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, *names: str) -> Path:
        """``root/names...``, once neither it nor a folder on the way is a link, pipe, socket or device.

        Raises:
            UsageProblem: one is, or a name is no plain name.
        """
        path = self.root
        for name in names:
            if name in ("", ".", "..") or "/" in name or os.sep in name or "\0" in name:
                raise UsageProblem(f"{name!r} names no file in {self.root}")
            path = path / name
            self._refuse_foreign(path)
        return path

    def _refuse_foreign(self, path: Path) -> None:
        try:
            mode = os.lstat(path).st_mode
        except OSError:  # not there: whoever opens it says so
            return
        if stat.S_ISLNK(mode):
            raise UsageProblem(f"{path} is a link; nothing in {self.root} may lead out of it: remove the link")
        if stat.S_IFMT(mode) in _SPECIAL:
            what = _SPECIAL[stat.S_IFMT(mode)]
            raise UsageProblem(f"{path} is {what}; {self.root} holds only files and folders: remove it")

    def check(self, *names: str) -> None:
        """UsageProblem when ``root/names...``, or anything below it, is a link, pipe, socket or device."""
        path = self.path(*names)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self.check(*names, entry.name)
                elif not entry.is_file(follow_symlinks=False):
                    self._refuse_foreign(Path(entry.path))

    def names(self, *names: str) -> list[str]:
        """What ``root/names...`` holds, in order; nothing where there is no such folder."""
        try:
            return sorted(os.listdir(self.path(*names)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def holds(self, *names: str) -> bool:
        """Is there a file ``root/names...``?"""
        return self.path(*names).is_file()

    def open(self, *names: str, write: bool = False) -> BinaryIO:
        """The file ``root/names...`` for reading, or for reading and writing in place; OSError when it is not there."""
        return open_plain(self.path(*names), write=write)

    def read(self, *names: str) -> bytes:
        """Content of the file ``root/names...``; OSError when it is not there."""
        with self.open(*names) as stream:
            return stream.read()

    def read_json(self, *names: str) -> Any:
        """Parsed JSON of ``root/names...``; UsageProblem when it is missing or not JSON."""
        return read_json(self.path(*names))

    def write(self, *names: str, data: bytes | str) -> Path:
        """:func:`write_atomic` to ``root/names...``, whose folders are made -> its path."""
        path = self.path(*names)
        write_atomic(path, data)
        return path

    def append(self, *names: str, data: str) -> None:
        """:func:`append` to ``root/names...``, whose folders are made."""
        append(self.path(*names), data)

    def write_json(self, *names: str, data: Any) -> None:
        """:func:`write_json` to ``root/names...``, whose folders are made."""
        write_json(self.path(*names), data)

    def make(self, *names: str) -> Path:
        """The folder ``root/names...``, made with those above it; OSError when that cannot be."""
        path = self.path(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def remove(self, *names: str) -> None:
        """Remove the file ``root/names...`` if it is there."""
        self.path(*names).unlink(missing_ok=True)

    def remove_leftovers(self, *names: str, of: tuple[str, ...] = ()) -> None:
        """:func:`remove_leftovers` in the folder ``root/names...``."""
        remove_leftovers(self.path(*names), *of)


def open_plain(path: Path, *, write: bool = False) -> BinaryIO:
    """Open the file ``path`` without following a link in its last place.

    Raises:
        UsageProblem: it is a pipe, socket, device or folder: reading those may never end.
        OSError: it is not there, a link, or may not be opened.
    """
    handle = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | _CAREFUL)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UsageProblem(f"{path} is a pipe, device or folder; expected a file")
    return os.fdopen(handle, "r+b" if write else "rb")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` through a temporary file in the same folder: write, fsync, rename, fsync folder.

    A crash at any moment leaves the old file or the new one; a link in the place of the file is replaced, not
    followed. The price is two disk flushes per file.

    Raises:
        StabilityKitError: the disk is full or the folder cannot be written; the path is named.
        UsageProblem: ``path`` is a pipe, socket or device.
    """
    # File names of the system may hold lone surrogates, which UTF-8 cannot; they are written as \\udcxx.
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    temporary = None
    try:
        _refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(path)
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


def append(path: Path, data: str) -> None:
    """Add ``data`` at the end of the file ``path``, which is made where there is none; a link is not followed.

    A crash may leave a part of ``data``; what was there before is intact. Nothing is flushed to the disk.

    Raises:
        StabilityKitError: the disk is full or the folder cannot be written; the path is named.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _CAREFUL, 0o644)
        with os.fdopen(handle, "ab", buffering=0) as stream:
            raw = data.encode("utf-8", "backslashreplace")
            if stream.write(raw) != len(raw):
                raise OSError("the disk is full")
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise StabilityKitError(f"cannot write {path}: {reason}; what was there before is intact") from error


def _refuse_special(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        what = _SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode))
        if what:
            raise UsageProblem(f"{path} is {what}; expected the name of a file")


def _temporary(path: Path) -> tuple[int, str]:
    """(descriptor, name) of a new file beside ``path``, locked: :func:`remove_leftovers` sees that its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        if try_lock(handle) is not False and os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # taken for a leftover in the moment before it was locked


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

    A living writer holds a lock on its temporary file; where no lock can be had, nothing is deleted.
    """
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if is_leftover(path) and path.name.startswith(tuple(f".{name}." for name in names) or "."):
                with contextlib.suppress(OSError, UsageProblem), open_plain(path, write=True) as stream:
                    if try_lock(stream.fileno()):
                        path.unlink()


def write_json(path: Path, data: Any) -> None:
    """Plain data as indented JSON, written atomically; Inf and NaN become strings, keys keep their order."""
    write_atomic(path, "".join(indented(to_plain(data))) + "\n")


def indented(data: Any, depth: int = 0) -> Iterator[str]:
    """Parts of plain data as JSON with one space of indentation, as ``json.dumps(data, indent=1)`` writes it.

    json indents in Python, a number at a time; here lists of numbers and texts are written by its compiled encoder.

    Examples:
        >>> "".join(indented({"a": [1, "b"], "c": {}}))
        '{\\n "a": [\\n  1,\\n  "b"\\n ],\\n "c": {}\\n}'
    """
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(data, dict) and data:
        for number, (key, value) in enumerate(data.items()):
            yield ("," if number else "{") + inner + json.dumps(key, ensure_ascii=False) + ": "
            yield from indented(value, depth + 1)
        yield outer + "}"
    elif isinstance(data, list) and not {dict, list}.isdisjoint(map(type, data)):
        for number, value in enumerate(data):
            yield ("," if number else "[") + inner
            yield from indented(value, depth + 1)
        yield outer + "]"
    elif isinstance(data, list) and data:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=("," + inner, ": "))
        yield "[" + inner + text[1:-1] + outer + "]"
    else:
        yield json.dumps(data, ensure_ascii=False, allow_nan=False)


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
