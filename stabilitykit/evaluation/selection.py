"""What to run: specs and objects become choices, needs are added, cells are ordered by dependency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import SCHEMA_VERSION, to_plain
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.component import Component, ComponentKind
from stabilitykit.plugins.registry import Registry, Spec

_CLASSES: dict[ComponentKind, type] = {"model": Model, "dataset": Dataset, "property": Property}


@dataclass(frozen=True)
class Choice:
    """A model, dataset or property to use, from a spec or handed over as an object."""

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
    if isinstance(what, _CLASSES[kind]):
        name = str(getattr(what, "name", type(what).__name__))
        return Choice(
            kind,
            name,
            name,
            lambda **_: what,
            needs=tuple(getattr(what, "needs", ())),
            wants=tuple(getattr(what, "wants", ())),
            requested=requested,
        )
    if not isinstance(what, (str, Mapping, Spec)):
        raise UsageProblem(
            f"a {kind} is a name, a mapping or a stabilitykit.{_CLASSES[kind].__name__}; got {type(what).__name__}"
        )
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
