"""Look components up by name: specs, clashes, did-you-mean, and building the thing itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stabilitykit.base.errors import PluginProblem, StabilityKitError, UsageProblem, describe
from stabilitykit.base.names import did_you_mean
from stabilitykit.plugins.component import Component, ComponentKind
from stabilitykit.plugins.loading import PluginHost, load_plugins


@dataclass(frozen=True)
class Spec:
    """A component chosen by a user, with the options given: ``resnet18:stem=patch,grouping=all``."""

    component: Component
    given: Mapping[str, Any] = field(default_factory=dict)
    # "DISTRIBUTION:" where the user said which of two equal names; part of the label, so that it resolves again.
    prefix: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """All option values, parsed and checked."""
        return self.component.option_values(self.given)

    @property
    def label(self) -> str:
        """Short text that names the choice: name plus the options given."""
        name = self.prefix + self.component.name
        if not self.given:
            return name
        return name + ":" + ",".join(f"{k}={v}" for k, v in self.given.items())

    def build(self, **overrides: Any) -> Any:
        """Import the target and call it with the options. PluginProblem when the plugin raises its own errors."""
        options = self.options | overrides
        try:
            return self.component.load()(**options)
        except (StabilityKitError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginProblem(
                f"{self.component.kind} {self.component.name} of {self.component.owner} failed to build: "
                f"{describe(error)}"
            ) from error


class Registry:
    """All components of one :class:`PluginHost`."""

    def __init__(self, host: PluginHost) -> None:
        self.host = host

    @classmethod
    def load(cls, *, strict: bool = False) -> Registry:
        """Load the installed plugins; with ``strict`` any plugin failure is a PluginProblem (exit 3)."""
        host = load_plugins()
        if strict:
            host.require_healthy()
        return cls(host)

    def components(self, kind: ComponentKind) -> list[Component]:
        """Components of ``kind`` sorted by name, then distribution; clashing ones all included."""
        found = [c for c in self.host.components if c.kind == kind]
        return sorted(found, key=lambda c: (c.name, c.distribution))

    def clashes(self) -> list[tuple[ComponentKind, str, list[str]]]:
        """(kind, name, distributions) of every name that more than one plugin registers."""
        owners: dict[tuple[ComponentKind, str], list[str]] = {}
        for component in self.host.components:
            owners.setdefault((component.kind, component.name), []).append(component.owner)
        return [(kind, name, who) for (kind, name), who in sorted(owners.items()) if len(who) > 1]

    def find(self, kind: ComponentKind, name: str, distribution: str | None = None) -> Component:
        """The component called ``name``; UsageProblem when unknown, PluginProblem when the name clashes."""
        known = self.components(kind)
        found = [c for c in known if c.name == name and distribution in (None, c.distribution)]
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(c.owner for c in found)
            choices = " or ".join(f"{c.distribution}:{name}" for c in found)
            raise PluginProblem(f"{kind} {name!r} is registered by {owners}; say which: {choices}")
        hint = did_you_mean(name, {c.name for c in known}, f"see `stabilitykit {_plural(kind)} list`")
        failed = self.host.failures
        broken = f" ({len(failed)} plugin(s) failed to load; see `stabilitykit plugins list`)" if failed else ""
        raise UsageProblem(f"unknown {kind} {name!r}{hint}{broken}")

    def adapter(self, kind: ComponentKind, thing: object) -> Component | None:
        """What makes a model, dataset or property of ``thing``: the adapter of the nearest of its classes, or None.

        Raises:
            PluginProblem: two plugins adapt that class.
        """
        for cls in type(thing).__mro__:
            name = f"{cls.__module__}.{cls.__qualname__}"
            found = [a.component for a in self.host.adapters if a.kind == kind and a.accepts == name]
            if len(found) > 1:
                raise PluginProblem(f"objects of {name} are adapted by {' and '.join(c.owner for c in found)}")
            if found:
                return found[0]
        return None

    def resolve_component(self, kind: ComponentKind, name: str) -> Component:
        """The component of ``NAME`` or ``DISTRIBUTION:NAME``, without asking for its required options."""
        return self._parse(kind, name).component

    def resolve(
        self, kind: ComponentKind, spec: str | Mapping[str, Any] | Spec, overrides: Mapping[str, Any] | None = None
    ) -> Spec:
        """Parse a spec.

        ``NAME``, ``NAME:VALUE`` (VALUE feeds the primary option), ``NAME:key=value,key=value``, any of them with
        ``DISTRIBUTION:`` in front to settle a clash, or a mapping ``{"name": ..., "options": {...}}``.

        Raises:
            UsageProblem: an unknown or ambiguous name, a mapping of another form, or options that do not fit.
        """
        if isinstance(spec, Spec):
            return spec
        if isinstance(spec, Mapping):
            unknown = set(spec) - {"name", "options"}
            if "name" not in spec or unknown:
                raise UsageProblem(
                    f"a {kind} in a config file is a name or {{name: ..., options: {{...}}}}; got {dict(spec)!r}"
                )
            base = self._parse(kind, str(spec["name"]))
            options = spec.get("options") or {}
            if not isinstance(options, Mapping):
                raise UsageProblem(f"{kind} {spec['name']}: options is a mapping, got {options!r}")
            chosen = Spec(base.component, dict(base.given) | {str(k): v for k, v in options.items()}, base.prefix)
        else:
            chosen = self._parse(kind, str(spec))
        if overrides:
            chosen = Spec(chosen.component, dict(chosen.given) | dict(overrides), chosen.prefix)
        chosen.component.option_values(chosen.given)
        return chosen

    def create(
        self, kind: ComponentKind, spec: str | Mapping[str, Any] | Spec, overrides: Mapping[str, Any] | None = None
    ) -> Any:
        """Resolve a spec and build the thing."""
        return self.resolve(kind, spec, overrides).build()

    def _parse(self, kind: ComponentKind, text: str) -> Spec:
        head, _, rest = text.strip().partition(":")
        names = {c.name for c in self.components(kind)}
        distribution = None
        if head not in names and rest:
            name, _, after = rest.partition(":")
            if any(c.distribution == head and c.name == name for c in self.components(kind)):
                distribution, head, rest = head, name, after
        component = self.find(kind, head, distribution)
        return Spec(component, parse_options(component, rest), f"{distribution}:" if distribution else "")


def parse_options(component: Component, text: str) -> dict[str, Any]:
    """``VALUE,key=value,...`` -> mapping. A piece without '=' continues the value before it (paths hold commas).

    Raises:
        UsageProblem: a piece that belongs to no option.
    """
    given: dict[str, Any] = {}
    if not text:
        return given
    known = {option.name for option in component.options}
    last: str | None = None
    if component.free and component.primary is not None:  # VALUE:key=value as well as VALUE,key=value
        text = re.sub(r"^([^,=]*):([A-Za-z_]\w*=)", r"\1,\2", text)
    for number, piece in enumerate(text.split(",")):
        key, equals, value = piece.partition("=")
        key = key.strip()
        if equals and (key in known or component.primary is None):
            given[key], last = value.strip(), key
        elif number == 0 and component.primary is not None and not (equals and key.isidentifier()):
            given[component.primary], last = piece.strip(), component.primary
        elif equals and key.isidentifier() and last != component.primary:
            given[key], last = value.strip(), key  # unknown: option_values says so with a did-you-mean
        elif last is not None and not equals:
            given[last] = f"{given[last]},{piece}"
        elif equals and key.isidentifier():
            given[key], last = value.strip(), key
        else:
            raise UsageProblem(
                f"{component.kind} {component.name}: cannot read option {piece!r}; "
                f"write {component.name}:name=value,name=value"
            )
    return given


def _plural(kind: str) -> str:
    return "properties" if kind == "property" else kind + "s"


def warn_failures(host: PluginHost, stream: Any = None) -> None:
    """One line on stderr per failed plugin, naming distribution and version."""
    for record in host.failures:
        print(
            f"warning: plugin {record.name} of {record.owner} failed to load: {record.error}", file=stream or sys.stderr
        )
