"""What a run was asked for, brought to choices that can be measured again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import to_plain
from stabilitykit.evaluation.selection import Choice, Given, choose, choose_given, choose_recorded, order_properties
from stabilitykit.evaluation.settings import Settings
from stabilitykit.plugins.component import ComponentKind
from stabilitykit.plugins.registry import Registry, Spec
from stabilitykit.review.files import Key
from stabilitykit.runs.folder import Cell


@dataclass(frozen=True)
class Plan:
    """The request of a run as choices.

    Attributes:
        models, datasets: by the label they have in the run.
        properties: in the order they are measured, those included that another one needs.
        moved: labels of models and datasets read from another place than in the run.
    """

    settings: Settings
    device: str
    models: Mapping[str, Choice]
    datasets: Mapping[str, Choice]
    properties: Sequence[Choice]
    probe: Choice | None
    moved: frozenset[str]

    def keys(self) -> Iterator[Key]:
        """The cells asked for, in the order they are run."""
        for model in self.models:
            for dataset in self.datasets:
                for choice in self.properties:
                    yield model, dataset, choice.label


def plan_of(
    request: Any,
    registry: Registry,
    *,
    schema: int,
    checkpoint: Mapping[str, str],
    data: Mapping[str, str],
    trust: bool,
    objects: Mapping[str, Given] | None = None,
) -> Plan:
    """The plan behind ``request`` (of run.json).

    Arguments:
        schema: of run.json: what options meant that were left out.
        checkpoint: where the weights of a model are now, by label or name ("": of all).
        data: where the data of a dataset is now, likewise.
        trust: accept models and datasets that run code named in the run, or download.
        objects: by label, the models, datasets and properties that were handed over in Python.

    Raises:
        UsageProblem: the request is damaged, names what is not installed, needs trust, or objects that are not given.
    """
    if not isinstance(request, Mapping):
        raise UsageProblem("run.json holds no request; the run cannot be verified")
    try:
        settings = Settings.from_request(request)
        settings.check()
    except TypeError as error:
        raise UsageProblem(f"the request in run.json is damaged ({error})") from None
    models, datasets, properties = (_labels(request, kind) for kind in ("models", "datasets", "properties"))
    weights, places = _moved("model", checkpoint, models), _moved("dataset", data, datasets)
    probe = request.get("probe_dataset")
    handed = _handed_over(request, objects or {})

    def rebuilt(kind: ComponentKind, label: str, moved: Mapping[str, str] | None = None) -> Choice:
        if label in handed:
            return choose_given(registry, kind, label, handed[label])
        if kind == "property":
            return choose(registry, kind, label)
        return choose_recorded(registry, kind, label, moved, schema=schema, trust=trust)

    return Plan(
        settings,
        str(request.get("device", "auto")),
        {
            label: rebuilt("model", label, {"checkpoint": weights[label]} if label in weights else None)
            for label in models
        },
        {
            label: rebuilt(
                "dataset", label, {_path_option(registry, label): places[label]} if label in places else None
            )
            for label in datasets
        },
        order_properties(registry, [rebuilt("property", label) for label in properties]),
        rebuilt("dataset", probe) if probe else None,
        frozenset({*weights, *places}),
    )


def _handed_over(request: Mapping[str, Any], objects: Mapping[str, Given]) -> dict[str, Given]:
    """The objects in the places of those of the run, by label; UsageProblem where one is missing."""
    recorded = request.get("objects")
    labels = [str(label) for label in recorded] if isinstance(recorded, list) else []
    missing = [label for label in labels if label not in objects]
    if missing:
        raise UsageProblem(
            f"{', '.join(missing)} {'was' if len(missing) == 1 else 'were'} handed over as objects in Python, which no "
            "folder holds; give them again, as stabilitykit.Run.read(FOLDER).verify(model, data)"
        )
    return {label: objects[label] for label in labels}


def with_recorded_options(plan: Plan, cells: Iterable[Cell]) -> Plan:
    """``plan`` with properties as the finished ``cells`` of the run record them: a default may have been another then.

    What the label of a property says stands.

    Raises:
        UsageProblem: a recorded value is none that the option takes.
    """
    recorded: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        kept = cell.record.get("property")
        options = kept.get("options") if isinstance(kept, Mapping) else None
        if cell.ok and isinstance(options, Mapping):
            recorded.setdefault(cell.property, options)
    return replace(plan, properties=[_with_options(c, recorded.get(c.label, {})) for c in plan.properties])


def _with_options(choice: Choice, recorded: Mapping[str, Any]) -> Choice:
    former = {
        name: value
        for name, value in recorded.items()
        if name in choice.options and name not in choice.given and value != to_plain(choice.options[name])
    }
    if not former or choice.component is None:
        return choice
    spec = Spec(choice.component, {**choice.given, **former})
    return replace(choice, make=spec.build, options=spec.options)


def _labels(request: Mapping[str, Any], kind: str) -> list[str]:
    found = request.get(kind)
    if not isinstance(found, list) or not found or not all(isinstance(label, str) for label in found):
        raise UsageProblem(f"the request in run.json is damaged ({kind} is {found!r}, expected a list of names)")
    return found


def _moved(kind: str, given: Mapping[str, str], labels: Sequence[str]) -> dict[str, str]:
    """Label -> new path; ``given`` names labels, or components, or "" for all; UsageProblem for an unknown name."""
    found: dict[str, str] = {}
    for name, path in given.items():
        meant = [label for label in labels if name in ("", label, label.partition(":")[0])]
        if not meant:
            raise UsageProblem(f"the run has no {kind} {name}; it has {', '.join(dict.fromkeys(labels))}")
        found |= dict.fromkeys(meant, path)
    return found


def _path_option(registry: Registry, dataset: str) -> str:
    """Name of the option of a dataset that says where its files are."""
    component = choose(registry, "dataset", dataset).component
    name = next((o.name for o in component.options if o.type == "path"), None) if component else None
    if name is None:
        raise UsageProblem(f"dataset {dataset} is not read from a path")
    return name
