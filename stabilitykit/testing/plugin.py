"""Contract checks of everything an installed plugin offers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.base.results import PropertyResult
from stabilitykit.plugins.component import Component
from stabilitykit.plugins.loading import PluginHost, PluginRecord
from stabilitykit.plugins.registry import Registry, Spec
from stabilitykit.testing.checks import Check, Checklist, require
from stabilitykit.testing.dataset import check_dataset
from stabilitykit.testing.fixtures import tiny_context
from stabilitykit.testing.model import check_model
from stabilitykit.testing.property import check_property

IMPORT_TIMEOUT = 60


def check_plugin(
    name: str, registry: Registry | None = None, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Check]:
    """All checks of one installed plugin; each name starts with the component it is about.

    Arguments:
        name: of the plugin's entry point, or of a distribution (then all its plugins are checked).
        registry: over all installed plugins (a property may need another one's results); default: load them.
        options: options by component name, for components that cannot be built from their defaults.

    Raises:
        UsageProblem: no such plugin.
    """
    registry = registry or Registry.load()
    records = [r for r in registry.host.records if name in (r.name, r.distribution)]
    if not records:
        known = {r.name for r in registry.host.records} | {r.distribution for r in registry.host.records}
        hint = did_you_mean(name, sorted(known), "see `stabilitykit plugins list`")
        raise UsageProblem(f"no plugin {name!r} is installed{hint}")
    found: list[Check] = []
    for record in records:
        found += _about(f"plugin {record.name}", _check_loading(record, registry.host))
        for component in registry.host.components if record.ok else ():
            label = f"{component.kind} {component.name}"
            if component.distribution == record.distribution and label in record.provides:
                given = (options or {}).get(component.name, {})
                found += _about(label, check_component(component, registry, given))
    return found


def _about(label: str, checks: list[Check]) -> list[Check]:
    return [replace(check, name=f"{label}: {check.name}") for check in checks]


def check_component(
    component: Component, registry: Registry | None = None, options: Mapping[str, Any] | None = None
) -> list[Check]:
    """Build ``component`` with ``options`` over its defaults and run the checks of its kind."""
    found = Checklist()
    built: list[Any] = []
    unbuilt = ""
    spec = Spec(component, dict(options or {}))
    with found.check("says what it is"):
        require(bool(component.summary), "no summary; one line for `list`")
        require(component.kind != "property" or bool(component.reference), "no reference; where is it defined?")
        unhelpful = [option.name for option in component.options if not option.help]
        require(not unhelpful, f"options without help: {', '.join(unhelpful)}")
    with found.check("defaults fit their own options"):
        for option in component.options:
            if option.default is not None:
                option.parse(option.default, f"{component.kind} {component.name}")
    with found.check("builds, or says in one line what is missing"):
        try:
            built.append(spec.build())
        except UsageProblem as problem:
            # Data that is not on this machine or an option without a default is no broken contract.
            require(bool(str(problem)) and "\n" not in str(problem), "the error message is not one line")
            unbuilt = f"not built, so not checked further: {problem}"
    if not built:
        return [replace(c, message=unbuilt) if c.ok and c is found.checks[-1] else c for c in found.checks]
    if component.kind == "model":
        return found.checks + check_model(built[0])
    if component.kind == "dataset":
        return found.checks + check_dataset(built[0])
    results: dict[str, PropertyResult] = {}
    with found.check("the properties it needs give results"):
        for name in (*component.needs, *component.wants):
            require(registry is not None, f"it needs {name}; pass a registry")
            assert registry is not None
            results[name] = _result_of(registry, name)
    if found.failed:
        return found.checks
    return found.checks + check_property(spec.build, options=spec.options, results=results)


def _result_of(registry: Registry, name: str) -> PropertyResult:
    spec = registry.resolve("property", name)
    needed = {need: _result_of(registry, need) for need in (*spec.component.needs, *spec.component.wants)}
    result: PropertyResult = spec.build().evaluate(tiny_context(options=spec.options, results=needed))
    return result


def _check_loading(record: PluginRecord, host: PluginHost) -> list[Check]:
    found = Checklist()
    with found.check("loads"):
        require(record.ok, record.error)
    if found.failed:
        return found.checks
    with found.check("offers something"):
        require(bool(record.provides), "its hooks return empty lists")
    with found.check("importing it imports no torch"):
        module = record.target.partition(":")[0]
        code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=IMPORT_TIMEOUT, check=False)
        require(
            done.returncode == 0,
            f"`import {module}` imports torch, which takes seconds in every `list`; name "
            "the implementation as 'module:Class' and import torch there",
        )
    with found.check("no name is taken by another plugin"):
        names = {(c.kind, c.name) for c in host.components if c.distribution == record.distribution}
        others = {(c.kind, c.name): c.owner for c in host.components if c.distribution != record.distribution}
        for kind, name in sorted(names & set(others)):
            require(False, f"{kind} {name!r} is also registered by {others[kind, name]}; choose another name")
    return found.checks
