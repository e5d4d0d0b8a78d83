"""Find -> load -> register plugins, one by one. A plugin that fails is data (a record), not a crash.

pluggy's own entry-point loader stops at the first broken plugin and silently skips equal names; this one keeps
the failure with the distribution and version to blame, and goes on.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pluggy

from stabilitykit.base.errors import PluginProblem, describe
from stabilitykit.base.watch import task, watch
from stabilitykit.machine.process_state import Functions, ProcessState
from stabilitykit.plugins import hookspecs
from stabilitykit.plugins.component import KINDS, Adapter, Command, Component, ReportSection
from stabilitykit.plugins.contract import check_adapter, check_command, check_component, check_section
from stabilitykit.plugins.listening import CELL_FINISHED, LOADING_VARIABLE, RUN_FINISHED, Listener

GROUP = hookspecs.PROJECT
DEFAULT_TIMEOUT = 20.0


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
    listeners: list[Listener] = field(default_factory=list)
    adapters: list[Adapter] = field(default_factory=list)

    @property
    def failures(self) -> list[PluginRecord]:
        return [record for record in self.records if not record.ok]

    def require_healthy(self) -> None:
        """PluginProblem (exit 3) when any plugin failed: what ``--strict-plugins`` asks for."""
        if self.failures:
            lines = "; ".join(f"{r.name} of {r.owner}: {r.error}" for r in self.failures)
            raise PluginProblem(f"{len(self.failures)} plugin(s) failed to load: {lines}")


@dataclass(frozen=True)
class _Unreadable:
    """Stands for the entry points of a distribution whose metadata cannot be read."""

    dist: Any
    error: Exception
    name: str = "entry_points.txt"
    value: str = ""

    def load(self) -> Any:
        raise PluginProblem(f"its entry_points.txt cannot be read ({type(self.error).__name__}: {self.error})")


def find() -> list[Any]:
    """Entry points of the group, in a fixed order (name, then distribution)."""
    try:
        points: list[Any] = list(importlib.metadata.entry_points(group=GROUP))
    except Exception:  # one broken file among all that are installed, which must not hide the others
        points = _find_one_by_one()
    return sorted(points, key=lambda point: (str(point.name), _distribution(point)))


def _find_one_by_one() -> list[Any]:
    points: list[Any] = []
    seen: set[str] = set()
    for dist in importlib.metadata.distributions():
        # As importlib does: the first distribution of a name on sys.path hides those behind it.
        place = Path(str(getattr(dist, "_path", "")))
        name = place.name.partition("-")[0].lower().replace("-", "_") or _name(dist)
        if name in seen:
            continue
        seen.add(name)
        try:
            points += [point for point in dist.entry_points if point.group == GROUP]
        except Exception as error:
            try:
                ours = GROUP.encode() in (place / "entry_points.txt").read_bytes()
            except OSError:
                ours = False
            if ours:  # somebody else's broken package is no plugin of ours
                points.append(_Unreadable(dist, error))
    return points


def key_of(point: Any) -> str:
    """An entry point on one line, by which processes of a run speak of it."""
    return f"{point.name} = {point.value} ({_distribution(point)})"


def load_plugins(points: Iterable[Any] | None = None) -> PluginHost:
    """Load every plugin; one that fails is a record with its reason.

    Under the command line this runs in a worker process. A plugin whose import ends or hangs the process costs that
    worker; the next worker is told its name (:attr:`Watch.broken`) and leaves it out.

    Arguments:
        points: entry points (anything with ``name``, ``value``, ``load()`` and ``dist``); default :func:`find`.

    Where the process is supervised, one plugin may take ``STABILITYKIT_PLUGIN_TIMEOUT`` seconds (20 by default) to
    import and answer its hooks.
    """
    limit = _timeout_from_environment()
    host, listener, functions = PluginHost(), watch(), Functions()
    seen: set[tuple[str, str, str]] = set()
    for point in find() if points is None else points:
        record = PluginRecord(point.name, point.value, _distribution(point), _version(point))
        if (record.name, record.target, record.distribution) in seen:
            continue  # The same distribution found twice on sys.path (editable install run from its own folder).
        seen.add((record.name, record.target, record.distribution))
        start = time.perf_counter()
        key = key_of(point)
        try:
            if key in listener.broken:
                raise PluginProblem(listener.broken[key])
            with task("plugin", key, f"plugin {record.name} of {record.owner}", limit):
                offers = _untampered(point, record, functions)
        except BaseException as error:  # SystemExit, or a BaseException of the plugin's own
            record.status = "failed"
            record.error = describe(error)
            if isinstance(error, KeyboardInterrupt):
                if not listener.supervised:
                    raise
                record.error = "raised KeyboardInterrupt, and nobody pressed Ctrl-C"
            if isinstance(error, _Tampered):
                listener.give_up(f"plugin {record.name} of {record.owner}", str(error), plugin=key)
        else:
            host.components += offers.components
            host.commands += offers.commands
            host.sections += offers.sections
            host.listeners += offers.listeners
            host.adapters += offers.adapters
        record.seconds = time.perf_counter() - start
        host.records.append(record)
    return host


class _Tampered(PluginProblem):
    """Importing a plugin changed what all share."""


def _untampered(point: Any, record: PluginRecord, functions: Functions) -> PluginHost:
    """What the plugin offers; _Tampered when loading it changed the process or replaced somebody else's function."""
    if record.target.partition(":")[0] in sys.modules:
        return _answers(point, record)  # imported before, and looked at then
    before, modules = ProcessState.now(), set(sys.modules)
    offers, failure = PluginHost(), None
    try:
        offers = _answers(point, record)
    except BaseException as error:  # what it changed before it failed is changed all the same
        failure = error
    changed = ProcessState.now().changed_since(before)
    root = record.target.partition(":")[0].partition(".")[0]
    own = {
        str(getattr(module, "__file__", None))
        for name, module in list(sys.modules.items())
        if name not in modules and name.partition(".")[0] == root
    }
    replaced = functions.replaced() or functions.written_in(own)
    if replaced:
        changed = [f"the function {replaced}", *changed]
    if changed:
        raise _Tampered(f"importing it changed {', '.join(changed)}; plugins register names, nothing else") from failure
    if failure is not None:
        raise failure
    return offers


def _answers(point: Any, record: PluginRecord) -> PluginHost:
    """Register one plugin with a manager of its own (so that it can break no other) and call its hooks."""
    plugin = point.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=record.name)
    manager.check_pending()
    hooks = [caller.name for caller in manager.get_hookcallers(plugin) or ()]
    if not hooks:
        raise PluginProblem(
            f"{record.target} implements no stabilitykit hook; decorate its functions with @stabilitykit.hookimpl"
        )
    components: list[Component] = []
    for kind, hook in zip(KINDS, ("stabilitykit_models", "stabilitykit_datasets", "stabilitykit_properties")):
        for item in _flatten(getattr(manager.hook, hook)(), Component, hook):
            if item.kind != kind:
                raise PluginProblem(f"{hook} returned component {item.name!r} of kind {item.kind!r}")
            check_component(item)
            components.append(item.owned_by(record.distribution, record.version))
    commands = [
        _owned(c, record) for c in _flatten(manager.hook.stabilitykit_commands(), Command, "stabilitykit_commands")
    ]
    sections = [
        _owned(s, record)
        for s in _flatten(manager.hook.stabilitykit_report_sections(), ReportSection, "stabilitykit_report_sections")
    ]
    for command in commands:
        check_command(command)
    for section in sections:
        check_section(section)
    told = tuple(hook for hook in (CELL_FINISHED, RUN_FINISHED) if hook in hooks)
    listener = Listener(key_of(point), f"plugin {record.name} of {record.owner}", told, manager)
    adapters = _flatten(manager.hook.stabilitykit_adapters(), Adapter, "stabilitykit_adapters")
    for adapter in adapters:
        check_adapter(adapter)
    adapters = [replace(a, component=a.component.owned_by(record.distribution, record.version)) for a in adapters]
    record.provides = (
        [f"{c.kind} {c.name}" for c in components]
        + [f"command {c.name}" for c in commands]
        + [f"report section {s.name}" for s in sections]
        + [f"hook {hook}" for hook in told]
        + [f"adapter of {a.accepts}" for a in adapters]
    )
    return PluginHost([], components, commands, sections, [listener] if told else [], adapters)


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


def _owned(item: Any, record: PluginRecord) -> Any:
    return replace(item, distribution=record.distribution, version=record.version)


def _name(dist: Any) -> str:
    try:
        return str(dist.name) if dist is not None and dist.name else "unknown"
    except Exception:  # broken metadata must not stop the others
        return "unknown"


def _distribution(point: Any) -> str:
    return _name(getattr(point, "dist", None))


def _version(point: Any) -> str:
    dist = getattr(point, "dist", None)
    try:
        return str(dist.version or "") if dist is not None else ""
    except Exception:
        return ""


def _timeout_from_environment() -> float:
    text = os.environ.get(LOADING_VARIABLE, "")
    try:
        return max(float(text), 0.1) if text else DEFAULT_TIMEOUT
    except ValueError:
        return DEFAULT_TIMEOUT
