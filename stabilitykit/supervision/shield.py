"""What plugin code may do to the process is undone after it: output, folder, environment, signals, torch's modes."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stabilitykit.supervision.stops import own_stops_only


class _Borrowed:
    """A stream that its borrower cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Nothing: others write to it, too."""


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what the body writes to stdout to stderr, also from C code and child processes (file descriptor 1).

    Machine-readable output stays clean whatever a plugin prints. Streams and descriptors 1 and 2 are put back after
    it, even if it closed them.
    """
    saved: dict[int, int] = {}
    streams = sys.stdout, sys.stderr
    try:
        sys.stdout.flush()
        for number in (1, 2):
            saved[number] = os.dup(number)
        os.dup2(2, 1)
    except (OSError, AttributeError, ValueError):
        pass  # closed or captured: replacing sys.stdout below is what can be done
    borrowed: Any = _Borrowed(sys.stderr) if sys.stderr is not None else None
    try:
        sys.stdout = sys.stderr = borrowed
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for number, handle in saved.items():
            os.dup2(handle, number)
            os.close(handle)


@contextlib.contextmanager
def shielded(seed: int | None = None) -> Iterator[None]:
    """Run plugin code: its prints go to stderr, and the process is put back as it was after it.

    With ``seed``, every generator is seeded before and after: the result of a property then depends neither on the
    properties before it nor on which of them ``--resume`` skipped.

    Raises:
        StoppedItself: the body raised KeyboardInterrupt without a signal.
    """
    from stabilitykit.machine.determinism import make_deterministic

    before = _Process.now()
    if seed is not None:
        make_deterministic(seed)
    try:
        with own_stops_only(), stdout_to_stderr():
            yield
    finally:
        before.restore()
        if seed is not None:
            make_deterministic(seed)


@dataclass
class _Process:
    """What one part of a process can change for all others."""

    folder: str | None
    environment: dict[str, str]
    umask: int
    recursion: int
    path: list[str]
    collecting: bool
    filters: list[Any]
    numpy_errors: dict[str, Any] | None
    torch: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def now(cls) -> _Process:
        folder = None
        with contextlib.suppress(OSError):
            folder = os.getcwd()
        umask = os.umask(0o022)
        os.umask(umask)
        numpy = sys.modules.get("numpy")
        return cls(
            folder,
            dict(os.environ),
            umask,
            sys.getrecursionlimit(),
            list(sys.path),
            gc.isenabled(),
            list(warnings.filters),
            numpy.geterr() if numpy is not None else None,
            _torch_modes(),
        )

    def restore(self) -> None:
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(self.folder)
        # Variables that a library adds when it is first imported are left: it may be loaded only once.
        for name, value in self.environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        for name in [n for n in os.environ if n.startswith("STABILITYKIT_") and n not in self.environment]:
            del os.environ[name]
        os.umask(self.umask)
        if sys.getrecursionlimit() != self.recursion:
            with contextlib.suppress(RecursionError):
                sys.setrecursionlimit(self.recursion)
        if sys.path[: len(self.path)] != self.path:  # what it added stays behind what was there
            sys.path[:] = self.path + [entry for entry in sys.path if entry not in self.path]
        (gc.enable if self.collecting else gc.disable)()
        known = {id(entry) for entry in self.filters}
        # Filters that make an error of every warning would make others fail; libraries may add the other kinds.
        if any(entry[0] == "error" and id(entry) not in known for entry in warnings.filters):
            with contextlib.suppress(AttributeError, TypeError):
                warnings.filters[:] = self.filters  # type: ignore[index]
                warnings._filters_mutated()  # type: ignore[attr-defined]
        numpy = sys.modules.get("numpy")
        if numpy is not None and self.numpy_errors is not None:
            numpy.seterr(**self.numpy_errors)
        _restore_torch(self.torch)


def _torch_modes() -> dict[str, Any]:
    """torch's process-wide modes; empty where torch is not imported (yet)."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_dtype"):
        return {}
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "mkldnn": torch.backends.mkldnn.enabled,
    }


def _restore_torch(before: dict[str, Any]) -> None:
    """Modes as they were; those torch starts with when it was first imported since."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_dtype"):
        return
    torch.set_grad_enabled(True)
    if torch.get_default_dtype() != before.get("dtype", torch.float32):
        torch.set_default_dtype(before.get("dtype", torch.float32))
    device = before.get("device", torch.device("cpu"))
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)
    if before and torch.get_num_threads() != before["threads"]:
        torch.set_num_threads(before["threads"])
    if before and torch.backends.mkldnn.enabled != before["mkldnn"]:
        torch.backends.mkldnn.set_flags(before["mkldnn"])
    torch.set_flush_denormal(False)
