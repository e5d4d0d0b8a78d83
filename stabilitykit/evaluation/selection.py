"""What to run: specs and objects become choices, needs are added, cells are ordered by dependency."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import SCHEMA_VERSION, to_plain
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.component import Component, ComponentKind
from stabilitykit.plugins.registry import Registry, Spec, parse_options

_CLASSES: dict[ComponentKind, type] = {"model": Model, "dataset": Dataset, "property": Property}


@dataclass(frozen=True)
class Given:
    """An object handed over in Python, with what its adapter is told about it.

    Attributes:
        thing: a Model, Dataset or Property, or anything a plugin adapts to one.
        options: options of the adapter; they become part of the label, as those of a spec.
        name: what results call it; None: the name it has itself, or its class.
        beside: keyword arguments of the adapter that are no options: what cannot be written into a label.
    """

    thing: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A model, dataset or property to use, from a spec or handed over as an object.

    Attributes:
        as_object: it was handed over, so nobody can build it from its label.
    """

    kind: ComponentKind
    label: str
    name: str
    make: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    component: Component | None = None
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    requested: bool = True
    as_object: bool = False

    @property
    def plugin(self) -> dict[str, str]:
        """Distribution and version to name when it fails."""
        if self.component is None:
            return {"distribution": "given as an object", "version": ""}
        return {"distribution": self.component.distribution, "version": self.component.version}

    @property
    def culprit(self) -> str:
        """``property expansivity of stabilitykit 0.1.0``."""
        plugin = self.plugin
        return f"{self.kind} {self.name} of {plugin['distribution']} {plugin['version']}".strip()

    def record(self) -> dict[str, Any]:
        """What a cell's record says of its property: name, options and plugin, as plain data."""
        return {"name": self.name, "options": to_plain(dict(self.options)), "plugin": self.plugin}

    def has_option(self, name: str) -> bool:
        return self.component is not None and any(o.name == name for o in self.component.options)


def choose(
    registry: Registry,
    kind: ComponentKind,
    what: Any,
    overrides: Mapping[str, Any] | None = None,
    *,
    requested: bool = True,
) -> Choice:
    """One choice from a spec string, a mapping of a config file, or an object of the right class.

    Raises:
        UsageProblem: ``what`` is none of these, its name or an option is unknown, or an override does not apply.
    """
    given = what if isinstance(what, Given) else Given(what)
    if isinstance(given.thing, _CLASSES[kind]):
        thing = given.thing
        name = str(given.name or getattr(thing, "name", type(thing).__name__))
        if given.options or overrides:
            raise UsageProblem(
                f"{kind} {name} is an object and takes no {', '.join({**given.options, **(overrides or {})})}"
            )
        return Choice(
            kind,
            name,
            name,
            lambda **_: thing,
            needs=tuple(getattr(thing, "needs", ())),
            wants=tuple(getattr(thing, "wants", ())),
            requested=requested,
            as_object=True,
        )
    if isinstance(what, Given) or not isinstance(what, (str, Mapping, Spec)):
        return _adapted(registry, kind, given, overrides or {})
    spec = registry.resolve(kind, what)
    if overrides:
        known = {option.name for option in spec.component.options}
        for key in overrides:
            if key not in known:
                raise UsageProblem(f"{kind} {spec.component.name} takes no {key}")
        spec = Spec(spec.component, dict(spec.given) | dict(overrides), spec.prefix)
    return Choice(
        kind,
        spec.label,
        spec.component.name,
        spec.build,
        spec.options,
        dict(spec.given),
        spec.component,
        tuple(spec.component.needs),
        tuple(spec.component.wants),
        requested,
    )


def _adapted(registry: Registry, kind: ComponentKind, given: Given, overrides: Mapping[str, Any]) -> Choice:
    """The choice an object becomes through the adapter of a plugin; UsageProblem where none takes it."""
    component = registry.adapter(kind, given.thing)
    if component is None:
        taken = [a.accepts.removeprefix("builtins.") for a in registry.host.adapters if a.kind == kind]
        raise UsageProblem(
            f"a {kind} is a name, a mapping or a stabilitykit.{_CLASSES[kind].__name__}"
            f"{''.join(f', a {name}' for name in taken)}; got {type(given.thing).__name__}"
        )
    own = component.name if type(given.thing).__module__ == "builtins" else type(given.thing).__name__
    name = re.sub(r"[:,=\s/\\]+", "_", given.name or own)
    told = {key: as_text(value, component.option_type(key)) for key, value in {**given.options, **overrides}.items()}
    spec = Spec(replace(component, name=name), told)
    options, build = spec.options, component.load()

    def make(**more: Any) -> Any:
        return build(given.thing, name=name, **{**options, **given.beside, **more})

    return Choice(
        kind, spec.label, name, make, options, dict(spec.given), spec.component, requested=True, as_object=True
    )


def as_text(value: Any, type_: str) -> Any:
    """The value of an option of type ``type_`` as people write it in a spec; what is no sequence stays what it is.

    Examples:
        >>> as_text((3, 32, 32), "ints"), as_text([0.5, 0.25], "floats"), as_text("auto", "str")
        ('3-32-32', '(0.5, 0.25)', 'auto')
    """
    if not isinstance(value, (list, tuple)):
        return value
    return "-".join(map(str, value)) if type_ == "ints" else f"({', '.join(map(str, value))})"


def choose_given(registry: Registry, kind: ComponentKind, label: str, given: Given) -> Choice:
    """The object ``given`` in the place of the one that a run recorded under ``label``, with the options of then."""
    name, _, _ = label.partition(":")
    component = registry.adapter(kind, given.thing)
    if component is not None and not isinstance(given.thing, _CLASSES[kind]):
        given = replace(given, name=name, options={**parse_options(component, label[len(name) + 1 :]), **given.options})
    return replace(choose(registry, kind, given), label=label)


def without_required_options(registry: Registry) -> list[str]:
    """Names of all installed properties that need no option: what an audit measures where nothing is said."""
    return [c.name for c in registry.components("property") if not any(option.required for option in c.options)]


def choose_recorded(
    registry: Registry,
    kind: ComponentKind,
    label: str,
    overrides: Mapping[str, Any] | None = None,
    *,
    schema: int = SCHEMA_VERSION,
    trust: bool = False,
) -> Choice:
    """The choice a run folder of that ``schema`` names by its label. The folder may be a stranger's.

    Without ``trust``, UsageProblem when building it would run code that the label names, or download.
    """
    choice = choose(registry, kind, label, overrides)
    former = _formerly(choice, schema)
    if former:
        choice = replace(choose(registry, kind, label, {**former, **(overrides or {})}), label=choice.label)
    asks = (
        "runs code it names"
        if choice.component is not None and choice.component.runs_code
        else "downloads"
        if choice.options.get("download")
        else ""
    )
    if asks and not trust:
        raise UsageProblem(f"{kind} {label} of the run {asks}; add --trust-run if you trust who made the run")
    return choice


def _formerly(choice: Choice, schema: int) -> dict[str, Any]:
    """Options that were left out when a run of that ``schema`` was made and meant something else than they do now."""
    options = () if choice.component is None else choice.component.options
    return {
        option.name: option.formerly[1]
        for option in options
        if option.formerly is not None and schema <= option.formerly[0] and option.name not in choice.given
    }


def order_properties(registry: Registry, chosen: Sequence[Choice]) -> list[Choice]:
    """``chosen`` with the properties they need in front; UsageProblem for a cycle or an unknown need."""
    by_name: dict[str, Choice] = {}
    for choice in chosen:
        by_name.setdefault(choice.name, choice)
    ordered: list[Choice] = []
    placed: set[int] = set()

    def place(choice: Choice, path: tuple[str, ...]) -> None:
        if choice.name in path:
            raise UsageProblem(f"properties need each other in a circle: {' -> '.join((*path, choice.name))}")
        if id(choice) in placed:
            return
        for need in (*choice.needs, *choice.wants):
            if need not in by_name:
                by_name[need] = choose(registry, "property", need, requested=False)
            place(by_name[need], (*path, choice.name))
        placed.add(id(choice))
        ordered.append(choice)

    labels: set[str] = set()
    for choice in chosen:
        if choice.label in labels:
            raise UsageProblem(f"property {choice.label} is asked for twice")
        labels.add(choice.label)
        place(choice, ())
    return ordered
