"""Find -> load -> register plugins, one by one. A plugin that fails is data (a record), not a crash.

pluggy's own entry-point loader stops at the first broken plugin and silently skips equal names; this one keeps
the failure with the distribution and version to blame, and goes on.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pluggy

from . import hookspecs
from .component import KINDS, Command, Component, ReportSection
from .errors import PluginProblem
from .shield import stdout_to_stderr

GROUP = hookspecs.PROJECT
TIMEOUT_VARIABLE = "STABILITYKIT_PLUGIN_TIMEOUT"
DEFAULT_TIMEOUT = 20.0
MAX_RINGS = 8


class _ImportTimeout(BaseException):
    """Raised by the alarm inside a hanging plugin; not an Exception, so the plugin's own handlers let it pass."""


@dataclass
class PluginRecord:
    """One entry point: who ships it, and how loading went."""

    name: str
    target: str
    distribution: str
    version: str
    status: str = "loaded"
    error: str = ""
    seconds: float = 0.0
    provides: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.status == "loaded"

    @property
    def owner(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass
class PluginHost:
    """Everything plugins offer, and a record of every plugin found."""

    records: list[PluginRecord] = field(default_factory=list)
    components: list[Component] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    sections: list[ReportSection] = field(default_factory=list)

    @property
    def failures(self) -> list[PluginRecord]:
        return [record for record in self.records if not record.ok]

    def require_healthy(self) -> None:
        """PluginProblem (exit 3) when any plugin failed: what ``--strict-plugins`` asks for."""
        if self.failures:
            lines = "; ".join(f"{r.name} of {r.owner}: {r.error}" for r in self.failures)
            raise PluginProblem(f"{len(self.failures)} plugin(s) failed to load: {lines}")


def find() -> list[importlib.metadata.EntryPoint]:
    """Entry points of the group, in a fixed order (name, then distribution)."""
    points = importlib.metadata.entry_points(group=GROUP)
    return sorted(points, key=lambda point: (point.name, _distribution(point)))


def load_plugins(points: Iterable[Any] | None = None, *, timeout: float | None = None) -> PluginHost:
    """Load every plugin in isolation.

    Args:
        points: entry points (anything with ``name``, ``value``, ``load()`` and ``dist``); default :func:`find`.
        timeout: seconds one plugin may take to import and answer its hooks; default
            ``STABILITYKIT_PLUGIN_TIMEOUT`` or 20. Enforced by an alarm in the main thread on POSIX.
    """
    if timeout is None:
        timeout = _timeout_from_environment()
    host = PluginHost()
    seen: set[tuple[str, str, str]] = set()
    for point in find() if points is None else points:
        record = PluginRecord(point.name, point.value, _distribution(point), _version(point))
        if (record.name, record.target, record.distribution) in seen:
            continue  # The same distribution found twice on sys.path (editable install run from its own folder).
        seen.add((record.name, record.target, record.distribution))
        start = time.perf_counter()
        try:
            with _alarm(timeout, f"plugin {record.name} of {record.owner}"), stdout_to_stderr():
                offers = _answers(point.load(), record)
        except _ImportTimeout:
            record.status = "failed"
            record.error = f"still loading after {timeout:g} s; raise {TIMEOUT_VARIABLE} if that is expected"
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or a BaseException of the plugin's own
            record.status = "failed"
            record.error = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        else:
            host.components += offers[0]
            host.commands += offers[1]
            host.sections += offers[2]
        record.seconds = time.perf_counter() - start
        host.records.append(record)
    return host


def _answers(plugin: Any, record: PluginRecord) -> tuple[list[Component], list[Command], list[ReportSection]]:
    """Register one plugin with a manager of its own (so that it can break no other) and call its hooks."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=record.name)
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        raise PluginProblem(f"{record.target} implements no stabilitykit hook; decorate its functions with "
                            "@stabilitykit.hookimpl")
    components: list[Component] = []
    for kind, hook in zip(KINDS, ("stabilitykit_models", "stabilitykit_datasets", "stabilitykit_properties")):
        for item in _flatten(getattr(manager.hook, hook)(), Component, hook):
            if item.kind != kind:
                raise PluginProblem(f"{hook} returned component {item.name!r} of kind {item.kind!r}")
            _check_component(item)
            components.append(item.owned_by(record.distribution, record.version))
    commands = [_owned(c, record) for c in _flatten(manager.hook.stabilitykit_commands(), Command,
                                                    "stabilitykit_commands")]
    sections = [_owned(s, record) for s in _flatten(manager.hook.stabilitykit_report_sections(), ReportSection,
                                                    "stabilitykit_report_sections")]
    record.provides = ([f"{c.kind} {c.name}" for c in components] + [f"command {c.name}" for c in commands]
                       + [f"report section {s.name}" for s in sections])
    return components, commands, sections


def _flatten(answers: list[Any], kind: type, hook: str) -> list[Any]:
    items = []
    for answer in answers:
        if not isinstance(answer, (list, tuple)):
            raise PluginProblem(f"{hook} returned {type(answer).__name__}, expected a list of {kind.__name__}")
        for item in answer:
            if not isinstance(item, kind):
                raise PluginProblem(f"{hook} returned an item of type {type(item).__name__}, expected {kind.__name__}")
            items.append(item)
    return items


def _check_component(component: Component) -> None:
    if not component.name or any(c in component.name for c in ":,= \t\n/\\"):
        raise PluginProblem(f"component name {component.name!r} is empty or holds one of  : , = / \\  or a blank")
    if ":" not in component.target:
        raise PluginProblem(f"component {component.name}: target {component.target!r} is not 'module:attribute'")
    names = [option.name for option in component.options]
    if len(set(names)) < len(names):
        raise PluginProblem(f"component {component.name}: an option name stands twice in {names}")
    if component.primary is not None and component.primary not in names:
        raise PluginProblem(f"component {component.name}: primary {component.primary!r} is not one of {names}")


def _owned(item: Any, record: PluginRecord) -> Any:
    from dataclasses import replace

    return replace(item, distribution=record.distribution, version=record.version)


def _distribution(point: Any) -> str:
    dist = getattr(point, "dist", None)
    try:
        return str(dist.name) if dist is not None else "unknown"
    except Exception:  # broken metadata must not stop the others
        return "unknown"


def _version(point: Any) -> str:
    dist = getattr(point, "dist", None)
    try:
        return str(dist.version) if dist is not None else ""
    except Exception:
        return ""


def _timeout_from_environment() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        return max(float(text), 0.1) if text else DEFAULT_TIMEOUT
    except ValueError:
        return DEFAULT_TIMEOUT


@contextlib.contextmanager
def _alarm(seconds: float, who: str) -> Iterator[None]:
    """Raise _ImportTimeout in the body after ``seconds``; does nothing off the main thread or without SIGALRM.

    A plugin that catches even that is asked again, then ends the process (exit 3) with a line that names it: there
    is no other way out of its loop.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable:
        yield
        return

    rings = 0

    def ring(signum: int, frame: Any) -> None:
        nonlocal rings
        rings += 1
        if rings > MAX_RINGS:
            os.write(2, f"error: {who} cannot be stopped from loading; uninstall it\n".encode())
            os._exit(PluginProblem.exit_code)
        raise _ImportTimeout

    previous: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, max(seconds / 4, 0.05))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
