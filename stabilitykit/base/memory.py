"""How much memory there is, and archives that would unpack to more than they may."""

from __future__ import annotations

import os
from pathlib import Path

from stabilitykit.base.errors import DataProblem

SUSPICIOUS_BYTES = 2**30
"""Up to here an archive may expand as it likes."""

SUSPICIOUS_RATIO = 100
"""Real pictures hardly shrink below a hundredth; an archive beyond it is asked about."""

SHARE = 0.8
"""Of the available memory, how much one file may take."""


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, the limit of the container included; None when unknown."""
    found = [value for value in (_meminfo(), _cgroup()) if value is not None]
    return min(found) if found else None


def check_expansion(path: Path, declared: int, advice: str, *, asked_for: bool = False) -> None:
    """Refuse what unpacks to more than memory holds, or to a hundred times the file and more than a GiB.

    Arguments:
        path: the packed file.
        declared: bytes it says it unpacks to.
        advice: what to do when that is meant.
        asked_for: a limit was given by hand: only memory is checked.

    Raises:
        DataProblem: nothing has been allocated yet.
    """
    packed = max(path.stat().st_size, 1)
    gib = declared / 2**30
    room = available_memory()
    if room is not None and declared > room * SHARE:
        raise DataProblem(
            f"{path} unpacks to {gib:.2f} GiB, more than fits the {room / 2**30:.2f} GiB of memory available; "
            "use a part of it, or a machine with more memory"
        )
    if not asked_for and declared > SUSPICIOUS_BYTES and declared > SUSPICIOUS_RATIO * packed:
        raise DataProblem(
            f"{path} has {packed:,} bytes and unpacks to {gib:.2f} GiB ({declared // packed:,} times as much); {advice}"
        )


def _meminfo() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _cgroup() -> int | None:
    """What the control group of this process has left (version 2, else version 1)."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most = int(Path(limit).read_text(encoding="ascii"))
            return max(most - int(Path(used).read_text(encoding="ascii")), 0)
        except (OSError, ValueError):  # no such version, or "max": no limit
            continue
    return None
