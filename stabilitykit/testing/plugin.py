"""Contract checks of everything an installed plugin offers."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.base.results import PropertyResult
from stabilitykit.base.watch import task
from stabilitykit.evaluation.context import Context
from stabilitykit.plugins.component import Command, Component, ReportSection
from stabilitykit.plugins.loading import PluginHost, PluginRecord
from stabilitykit.plugins.registry import Registry, Spec
from stabilitykit.testing.checks import Check, Checklist, require
from stabilitykit.testing.command import check_command
from stabilitykit.testing.dataset import check_dataset
from stabilitykit.testing.inputs import Inputs, own_context, spread
from stabilitykit.testing.model import check_model
from stabilitykit.testing.property import check_property
from stabilitykit.testing.section import check_section

IMPORT_TIMEOUT = 60


def check_plugin(name: str, registry: Registry | None = None, inputs: Inputs | None = None) -> list[Check]:
    """All checks of one installed plugin; each name starts with the thing it is about.

    Arguments:
        name: of the plugin's entry point, of a distribution (then all its plugins are checked), or of one component,
            command or report section (then it alone and the loading of its plugin).
        registry: over all installed plugins (a property may need another one's results); default: load them.
        inputs: what things are checked with.

    Raises:
        UsageProblem: no such plugin, or inputs that do not fit it.
    """
    registry, inputs = registry or Registry.load(), inputs or Inputs()
    host = registry.host
    records = [r for r in host.records if name in (r.name, r.distribution)]
    whole = bool(records)
    records = records or [r for r in host.records if name in _offered(r)]
    if not records:
        known = {word for r in host.records for word in (r.name, r.distribution, *_offered(r))}
        hint = did_you_mean(name, sorted(known), "see `stabilitykit plugins list`")
        raise UsageProblem(f"no plugin {name!r} is installed{hint}")
    mine = {(r.distribution, what) for r in records for what in r.provides}

    def chosen(kind: str, thing: Component | Command | ReportSection) -> bool:
        return (thing.distribution, f"{kind} {thing.name}") in mine and (whole or thing.name == name)

    components = [c for c in host.components if chosen(c.kind, c)]
    inputs.require_used(components)
    inputs.require_readable(registry)
    found: list[Check] = []
    for record in records:
        found += _about(f"plugin {record.name}", record.owner, partial(_check_loading, record, host))
    for component in components:
        given = inputs.options_of(component)
        check = partial(check_component, component, registry, given, inputs)
        found += _about(f"{component.kind} {component.name}", component.owner, check)
    for command in filter(partial(chosen, "command"), host.commands):
        found += _about(f"command {command.name}", command.distribution, partial(check_command, command))
    for section in filter(partial(chosen, "report section"), host.sections):
        owner = section.distribution
        of_its_own = [c for c in components if c.kind == "property"]
        check = partial(_check_section, section, registry, of_its_own, inputs)
        found += _about(f"report section {section.name}", owner, check)
    return found


def _offered(record: PluginRecord) -> list[str]:
    """Names of the components, commands, report sections and hooks that the plugin offers."""
    return [what.removeprefix("report ").partition(" ")[2] for what in record.provides]


def _about(label: str, owner: str, check: Callable[[], list[Check]]) -> list[Check]:
    """The checks with ``label`` before their names; a death in them is ``owner``'s."""
    with task("command", label, f"{label} of {owner}"):
        return [replace(done, name=f"{label}: {done.name}") for done in check()]


def check_component(
    component: Component,
    registry: Registry | None = None,
    options: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
) -> list[Check]:
    """Build ``component`` with ``options`` over its defaults and run the checks of its kind.

    Arguments:
        registry: finds the properties it needs, and what ``inputs`` name.
        inputs: its ``model``, ``dataset`` and ``limit`` count.
    """
    inputs = inputs or Inputs()
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
            require(not options, f"with the options given: {problem}")
            unbuilt = f"not built, so not checked further: {problem}; --option NAME=VALUE gives it what it needs"
    if not built:
        return [replace(c, message=unbuilt) if c.ok and c is found.checks[-1] else c for c in found.checks]
    if component.kind == "model":
        return found.checks + check_model(built[0], _images(registry, inputs))
    if component.kind == "dataset":
        return found.checks + check_dataset(built[0])
    results: dict[str, PropertyResult] = {}
    with found.check("the properties it needs give results"):
        make_context = own_context(registry, inputs)
        for name in (*component.needs, *component.wants):
            require(registry is not None, f"it needs {name}; pass a registry")
            assert registry is not None
            results[name] = _result_of(registry, name, make_context)
    if found.failed:
        return found.checks
    return found.checks + check_property(spec.build, options=spec.options, results=results, make_context=make_context)


def _images(registry: Registry | None, inputs: Inputs) -> Sequence[Any] | None:
    """Images of the dataset that is named, for a model to run."""
    if inputs.dataset is None:
        return None
    assert registry is not None
    dataset = registry.create("dataset", inputs.dataset)
    return list(dataset.images(spread(len(dataset), inputs.limit)))


def _check_section(
    section: ReportSection, registry: Registry, properties: Sequence[Component], inputs: Inputs
) -> list[Check]:
    """The checks of a section on results of the properties that its plugin measures."""
    make_context = own_context(registry, inputs)
    results = {}
    for component in properties:
        with contextlib.suppress(StabilityKitError):  # it has checks of its own that say so
            results[component.name] = _result_of(registry, component.name, make_context)
    return check_section(section, inputs.run, results)


def _result_of(registry: Registry, name: str, make_context: Callable[..., Context]) -> PropertyResult:
    spec = registry.resolve("property", name)
    names = (*spec.component.needs, *spec.component.wants)
    needed = {need: _result_of(registry, need, make_context) for need in names}
    result: PropertyResult = spec.build().evaluate(make_context(options=spec.options, results=needed))
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
