"""What one plugin can change for all others in a process, and whether it did.

Nothing is put back: a process in which something changed is given up for a fresh one.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any

# Packages whose functions every number passes through.
_NUMERICAL = {"builtins", "math", "cmath", "random", "numpy", "scipy", "torch", "torchvision", "timm", "stabilitykit"}
# Modules whose classes' methods are looked at, too; those of all modules would take a quarter of a second.
_CLASSES = ("torch.nn.modules.", "torch._tensor", "torch._C", "torch.autograd.function", "stabilitykit.", "builtins")
_CALLABLES = (types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
# torch.set_default_dtype sets it; the changed mode is seen as such.
_FOLLOWS_A_MODE = {("torch", "Storage")}
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE")


class Functions:
    """The functions of numerical packages and of plugins, as they are now."""

    def __init__(self) -> None:
        self._known: dict[str, _Seen] = {}
        self._changed: list[_Seen] = []  # of these the modules that were new or changed when last asked
        for name, members in _modules():
            self._known[name] = _Seen(name, members)

    def replaced(self) -> str:
        """Name of a function that is not the one it was when this was made or last asked; empty when all are.

        Modules imported since are added. What a library puts in the place of its own functions (torch does, when its
        compiler is first imported) replaces nothing. Only modules that changed are looked at closely.
        """
        before = self._known
        self._known, self._changed, changed = {}, [], []
        for name, members in _modules():
            known = before.get(name)
            if known is not None and known.is_still(members):
                self._known[name] = known
                continue
            self._known[name] = _Seen(name, members)
            self._changed.append(self._known[name])
            if known is not None and known.functions:
                changed.append((known.functions, self._known[name].functions))
        suspects = [
            (key, was.get(key), now.get(key))
            for was, now in changed
            for key in was.keys() | now.keys()
            if was.get(key) is not now.get(key) and key not in _FOLLOWS_A_MODE
        ]
        if not suspects:
            return ""
        familiar = {id(function) for seen in before.values() for function in seen.functions.values()}
        found: list[str] = []
        for key, old, new in suspects:
            if old is None and not (len(key) == 3 and _inherited(key)):
                continue  # a name that a module gained, as packages gain their parts
            if new is None or id(new) in familiar or not _written_in(new, key[0].partition(".")[0]):
                found.append(".".join(key))
        return min(found, key=lambda name: (name.count("."), name), default="")  # torch.relu rather than its aliases

    def written_in(self, files: set[str]) -> str:
        """Name of a function whose code stands in one of ``files`` (paths), in a module outside of them that was new or
        changed when :meth:`replaced` was last asked; or empty."""
        found = []
        for key, function in itertools.chain.from_iterable(seen.functions.items() for seen in self._changed):
            code = getattr(function, "__code__", None)
            elsewhere = getattr(sys.modules.get(key[0]), "__file__", None) not in files
            if isinstance(code, types.CodeType) and code.co_filename in files and elsewhere:
                found.append(".".join(key))
        return min(found, key=lambda name: (name.count("."), name), default="")


class _Seen:
    """One module at one moment.

    Attributes:
        functions: (module, name) or (module, class, name) -> function or class.
    """

    def __init__(self, name: str, members: dict[str, Any]) -> None:
        root = name.partition(".")[0]
        methods = name.startswith(_CLASSES)
        self.functions: dict[tuple[str, ...], Any] = {}
        self._members = members.copy()  # in one step: another thread may import
        self._classes: list[tuple[type, dict[str, Any]]] = []
        for key, value in self._members.items():
            if not callable(value):
                continue
            self.functions[name, key] = value
            if not methods or not issubclass(type(value), type) or str(value.__module__).partition(".")[0] != root:
                continue
            own = vars(value).copy()  # of a mappingproxy: a dict
            self._classes.append((value, own))
            for method, function in own.items():
                if type(function) in _CALLABLES:
                    self.functions[name, key, method] = function

    def is_still(self, members: dict[str, Any]) -> bool:
        """Are these the same objects under the same names, in its classes too? False also where that cannot be told."""
        return _same(self._members, members) and all(_same(own, vars(kind)) for kind, own in self._classes)


def _same(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Are names and objects of both the very same, in one order? Of tens of thousands this is asked at every cell."""
    try:
        return len(was) == len(now) and all(map(is_, was.values(), now.values())) and all(map(is_, was, now))
    except RuntimeError:  # another thread imports
        return False


def _modules() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and members of the modules whose functions are looked at."""
    for name, module in list(sys.modules.items()):
        root = name.partition(".")[0]
        if root in _NUMERICAL or root.startswith("stabilitykit_"):
            members = getattr(module, "__dict__", None)
            if isinstance(members, dict):
                yield name, members


def _inherited(key: tuple[str, ...]) -> bool:
    """Does the class of ``key`` inherit a method of that name, which its own now hides?"""
    kind = getattr(sys.modules.get(key[0]), key[1], None)
    return isinstance(kind, type) and any(key[2] in vars(base) for base in kind.__mro__[1:-1])


def _written_in(function: Any, package: str) -> bool:
    """Does the code of ``function`` (or the class of a callable object) stand in a file of ``package``?"""
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType) and type(function) not in _CALLABLES and not isinstance(function, type):
        return type(function).__module__.partition(".")[0] == package
    folder = os.path.dirname(getattr(sys.modules.get(package), "__file__", None) or "")
    return isinstance(code, types.CodeType) and bool(folder) and code.co_filename.startswith(folder + os.sep)


@dataclass(frozen=True)
class ProcessState:
    """Folder, environment, streams, threads, signal handlers and modes of this process at one moment."""

    values: dict[str, Any]

    @classmethod
    def now(cls) -> ProcessState:
        folder = None
        with contextlib.suppress(OSError):
            folder = os.getcwd()
        umask = os.umask(0o022)
        os.umask(umask)
        numpy = sys.modules.get("numpy")
        values = {
            "the current folder": folder,
            "the umask": umask,
            "the recursion limit": sys.getrecursionlimit(),
            "garbage collection": gc.isenabled(),
            "the streams": (id(sys.stdout), id(sys.stderr), *map(_is_open, (0, 1, 2))),
            "the import path": tuple(sys.path),
            "warning filters that raise": tuple(str(f) for f in warnings.filters if f[0] == "error"),
            "signal handlers": tuple(
                signal.getsignal(getattr(signal, name)) for name in _SIGNALS if hasattr(signal, name)
            ),
            "the alarm clock": signal.getitimer(signal.ITIMER_REAL)[0] > 0 if hasattr(signal, "getitimer") else False,
            "numpy's error modes": tuple(numpy.geterr().items()) if numpy is not None else None,
            **_torch_modes(),
        }
        values["environment variables"] = dict(os.environ)
        values["threads"] = {t.ident: t.name for t in threading.enumerate() if t.is_alive()}
        return cls(values)

    def changed_since(self, before: ProcessState) -> list[str]:
        """What is not as it was, in words; things that a library sets up when it is first imported do not count."""
        found = []
        for name, was in before.values.items():
            now: Any = self.values.get(name)
            if name == "environment variables":
                # New variables are set by libraries when they are first imported, and read by nobody else.
                gone = [key for key, value in was.items() if now.get(key) != value]
                gone += [key for key in now if key.startswith("STABILITYKIT_") and key not in was]
                found += [f"environment variable {gone[0]}"] if gone else []
            elif name == "threads":
                new = [now[ident] for ident in now if ident not in was]
                found += [f"a thread left running ({new[0]})"] if new else []
            elif name == "the import path":
                if now[: len(was)] != was and tuple(p for p in now if p in was) != was:
                    found.append(name)
            elif was is None:
                if now is not None and now != _AT_FIRST.get(name, now):
                    found.append(name)
            elif now != was:
                found.append(name)
        return found


# What torch starts with, where it was first imported meanwhile.
_AT_FIRST = {"torch's default dtype": "torch.float32", "torch's default device": "cpu"}


def _is_open(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _torch_modes() -> dict[str, Any]:
    """torch's process-wide modes; None where torch is not imported (yet)."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_dtype"):
        return dict.fromkeys(("torch's threads", "torch's default dtype", "torch's default device", "torch's modes"))
    return {
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's default device": str(torch.get_default_device()),
        "torch's modes": (
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.mkldnn.enabled,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
            bool(torch.tensor(1e-310, dtype=torch.float64) * 1.0 == 0.0),  # denormals flushed to zero
        ),
    }
