"""Lines of JSON, appended whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

# Seconds to wait for another run that is appending to the same file.
PATIENCE = 30.0


def lines_of(cell: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """One line per measurement of a finished cell, one with ``error`` of a failed one; strict JSON."""
    whose = {key: cell[key] for key in ("model", "dataset", "property", "status", "seconds")}
    whose = {"run": run["folder"], "created": run["provenance"].get("created"), **whose}
    found = cell["result"]["measurements"] if cell["result"] else [{"error": cell["error"]}]
    return [json.dumps({**whose, **measurement}, allow_nan=False) for measurement in found]


def append(path: Path, lines: list[str]) -> None:
    """Append all ``lines`` to ``path``, or none: what a full disk took in part is cut off again.

    Several runs may append to one file. A line that some other program left without an end is ended first.

    Raises:
        OSError: the file cannot be written; filelock.Timeout, an OSError, when another process holds it.
    """
    data = "".join(f"{line}\n" for line in lines).encode()
    with FileLock(f"{path}.lock", timeout=PATIENCE):
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                while data:
                    data = data[os.write(file, data) :]
                os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise
        finally:
            os.close(file)
