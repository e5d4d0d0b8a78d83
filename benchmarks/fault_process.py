"""A command line in a forked child, with a hand on the trigger at every file operation."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 1200.0
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.truncate"}


@dataclass(frozen=True)
class Site:
    """Which folder's file operations are watched; ``kill_at``: SIGKILL at that one; ``log``: write them down."""

    folder: Path
    kill_at: int = 0
    log: Path | None = None
    file_limit: int = 0


class Child:
    """A forked process running the command line."""

    def __init__(self, pid: int, out: Path, pipe: int | None = None) -> None:
        self.pid, self.out, self.pipe, self.started = pid, out, pipe, time.monotonic()

    @staticmethod
    def preload() -> None:
        """Import what every workload imports, so that children are forked with it."""
        import torch

        torch.set_num_threads(1)
        import stabilitykit_vision.digits  # noqa: F401

        from stabilitykit import evaluate

        # Compiled kernels are loaded once here, and not in every child.
        evaluate("resnet18-digits", "digits", ["expansivity", "expansivity:pairs=predictions"], limit=12, cache=False)

    def wait(self, kill_after: float | None = None, kill: int = signal.SIGKILL) -> tuple[int, float]:
        """(exit code, or minus the signal that ended it; seconds), sending ``kill`` after ``kill_after`` seconds."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            age = time.monotonic() - self.started
            if pid:
                return os.waitstatus_to_exitcode(status), age
            if kill_after is not None and age >= kill_after:
                os.kill(self.pid, kill)
                kill_after = None
            if age > TIMEOUT:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.001)

    def alive(self) -> bool:
        """Still running? (Does not collect the exit code.)"""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def output(self) -> str:
        """stdout and stderr so far."""
        if self.pipe is not None:
            with os.fdopen(self.pipe, "rb", closefd=False) as stream:
                self.out.write_bytes((self.out.read_bytes() if self.out.exists() else b"") + (stream.read() or b""))
        return self.out.read_text(errors="replace")


def start(arguments: list[str], out: Path, site: Site) -> Child:
    """Fork a child that runs ``stabilitykit`` with ``arguments``, its output in the file ``out``."""
    sys.stdout.flush()
    reading = writing = None
    if site.file_limit:  # which binds the child's output too, were it a file
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(reading, False)
    out.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        if writing is not None:
            os.close(writing)
        return Child(pid, out, reading)
    code = 70
    try:
        handle = writing if writing is not None else os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        # Fresh streams: the parent's remember whether its own output could seek.
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
        _arm(site)
        sys.argv = ["stabilitykit", *arguments]
        from stabilitykit.__main__ import main

        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _arm(site: Site) -> None:
    """Watch the child's file operations below the site's folder."""
    from stabilitykit.base import files
    from stabilitykit.evaluation import cache

    cache.FLUSH_SECONDS = 0.0  # progress after every batch: more moments to be killed at
    if site.file_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (site.file_limit, site.file_limit))
    count = 0
    prefix, command = str(site.folder), os.getpid()
    log = os.open(site.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if site.log else None

    def note(**event: Any) -> None:
        if log is not None:
            os.write(log, (json.dumps(event) + "\n").encode())

    def operation(what: str) -> None:
        nonlocal count
        count += 1
        note(event="operation", what=what)
        if count == site.kill_at:
            os.kill(command, signal.SIGKILL)  # the supervisor first: it would go on with a fresh worker
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writing or event in EVENTS) and str(arguments[0]).startswith(prefix):
            operation(event)

    sys.addaudithook(hook)
    for name in ("fsync", "posix_fallocate", "replace"):
        setattr(os, name, _then(getattr(os, name), operation, name))
    if log is not None:
        plain = files.write_atomic

        def noted(path: Path, data: bytes | str) -> None:
            plain(path, data)
            note(event="version", name=path.name, digest=digest(path))

        for module in [m for m in list(sys.modules.values()) if getattr(m, "write_atomic", None) is plain]:
            module.write_atomic = noted  # type: ignore[attr-defined]


def digest(path: Path) -> str:
    """What must be equal: of a cell its result, of run.json its status, of a training's state its values, else bytes.

    (Times in cells, dates in run.json and the layout of torch's zip files differ between equal runs.)
    """
    if path.parent.name == "cells":
        cell = json.loads(path.read_text())
        return json.dumps([cell["status"], cell["result"]], sort_keys=True)
    if path.name == "run.json":
        return str(json.loads(path.read_text())["status"])
    if path.suffix == ".html":
        return str(path.read_text().rstrip().endswith("</html>"))
    if path.suffix == ".pt":
        import torch

        values = hashlib.sha256()
        _feed(values, torch.load(path, weights_only=True))
        return values.hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _feed(values: Any, content: Any) -> None:
    import torch

    if isinstance(content, dict):
        for key in content:
            values.update(f"{key!r}:".encode())
            _feed(values, content[key])
    elif isinstance(content, (list, tuple)):
        values.update(f"[{len(content)}".encode())
        for item in content:
            _feed(values, item)
    elif isinstance(content, torch.Tensor):
        values.update(f"{content.dtype}{tuple(content.shape)}".encode() + content.numpy().tobytes())
    else:
        values.update(repr(content).encode())


def _then(function: Any, operation: Any, name: str) -> Any:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        operation(f"before {name}")
        result = function(*arguments, **options)
        operation(f"after {name}")
        return result

    return wrapped
