"""What a plugin's author wants things checked with: options, and a model, a dataset and a run of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.evaluation.context import Context
from stabilitykit.plugins.component import Component
from stabilitykit.plugins.registry import Registry
from stabilitykit.runs.folder import load_run
from stabilitykit.testing.fixtures import tiny_context


@dataclass(frozen=True)
class Inputs:
    """What of the author's own things are checked with; where nothing is given, tiny ones are made.

    Attributes:
        options: ``NAME=VALUE`` or ``COMPONENT:NAME=VALUE``, for every component that has such an option.
        model, dataset: specs: properties measure this model on this dataset, and models run this dataset's images.
        limit: images of the dataset that are looked at.
        run: a run folder that report sections show.
    """

    options: tuple[str, ...] = ()
    model: str | None = None
    dataset: str | None = None
    limit: int = 24
    run: Path | None = None

    def options_of(self, component: Component) -> dict[str, str]:
        """The options given for ``component``."""
        names = {option.name for option in component.options}
        found = {}
        for whose, name, value in map(_parsed_option, self.options):
            if whose == component.name or (not whose and (name in names or component.free)):
                found[name] = value
        return found

    def require_readable(self, registry: Registry) -> None:
        """UsageProblem where the model, the dataset or the run cannot be had."""
        if self.model is not None:
            registry.create("model", self.model)
        if self.dataset is not None:
            registry.create("dataset", self.dataset)
        if self.run is not None:
            load_run(self.run)

    def require_used(self, components: Sequence[Component]) -> None:
        """UsageProblem where an option is of no component, or a property would lack a model or a dataset."""
        names = {component.name for component in components}
        options = {option.name for component in components for option in component.options}
        for whose, name, _ in map(_parsed_option, self.options):
            if whose and whose not in names:
                raise UsageProblem(f"--option {whose}:{name}: no component {whose!r}{did_you_mean(whose, names)}")
            if not whose and name not in options and not any(component.free for component in components):
                raise UsageProblem(f"--option {name}: no component has it{did_you_mean(name, options)}")
        measures = any(component.kind == "property" for component in components)
        if measures and (self.model is None) != (self.dataset is None):
            raise UsageProblem("a property measures a model on a dataset: give both --model and --dataset, or neither")


def _parsed_option(text: str) -> tuple[str, str, str]:
    """``[COMPONENT:]NAME=VALUE`` -> (component or "", name, value)."""
    name, equals, value = text.partition("=")
    whose, _, name = name.rpartition(":")
    if not equals or not name:
        raise UsageProblem(f"--option {text}: expected NAME=VALUE or COMPONENT:NAME=VALUE")
    return whose.strip(), name.strip(), value


class _OneClass(Dataset):
    """At most 4 images, all of the class of a dataset's first image, as a dataset of that class alone."""

    def __init__(self, whole: Dataset) -> None:
        labels = np.asarray(whole.labels)
        self.name, self._whole, self._label = whole.name, whole, int(labels[0])
        self._places = np.flatnonzero(labels == labels[0])[:4]

    def __len__(self) -> int:
        return len(self._places)

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self), dtype=np.int64)

    @property
    def class_names(self) -> Sequence[str]:
        return [self._whole.class_names[self._label]]

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        return self._whole.images([int(self._places[i]) for i in indices])

    def fingerprint(self) -> str:
        return f"{self._whole.fingerprint()}{self._label:x}"


def own_context(registry: Registry | None, inputs: Inputs) -> Callable[..., Context]:
    """What makes contexts of the model and dataset in ``inputs``; of tiny ones where none are given.

    Arguments:
        registry: finds them by their specs.
    """
    if inputs.model is None or inputs.dataset is None:
        return tiny_context
    assert registry is not None
    model, dataset = registry.create("model", inputs.model), registry.create("dataset", inputs.dataset)
    return partial(_context, model, dataset, inputs.limit)


def _context(model: Model, own: Dataset, limit: int, dataset: Dataset | None = None, **given: Any) -> Context:
    """``dataset``, tiny images of one class, stands for such images of ``own``."""
    if dataset is not None:
        return tiny_context(model, _OneClass(own), **given)
    return tiny_context(model, own, indices=spread(len(own), limit), **given)


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of 0 .. count - 1, ascending and evenly spread: files are often sorted by class."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(limit, count)).astype(np.int64))]
