"""Models and datasets made from choices, and refused where they are not what the core relies on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stabilitykit.base.errors import DataProblem, PluginProblem, UsageProblem
from stabilitykit.dynamics.classes import class_problem
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.renamed import Renamed
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.settings import Settings


def build_dataset(choice: Choice, class_names: Sequence[str] | None = None) -> Dataset:
    """The dataset of ``choice``, its classes under ``class_names`` if given. Prints its warnings.

    UsageProblem when it is no dataset or has another number of classes, and what its own check says.
    """
    made = choice.make()
    if not isinstance(made, Dataset):
        raise UsageProblem(
            f"dataset {choice.label} of {choice.plugin['distribution']} built a "
            f"{type(made).__name__}, expected a stabilitykit.Dataset"
        )
    made.check()
    warn_of_data(made)
    return made if class_names is None else Renamed(made, class_names)


def warn_of_data(dataset: Dataset) -> None:
    """Print what ``dataset`` warns of, a line each, on stderr."""
    for text in dataset.warnings:
        print(f"warning: {dataset.name}: {text}", file=sys.stderr)


def build_model(
    choice: Choice, dataset: Dataset, dataset_choice: Choice, settings: Settings, device: torch.device
) -> Model:
    """The model of ``choice`` in eval mode on ``device``, with as many classes as ``dataset`` where it can choose.

    Raises:
        DataProblem: weights that are NaN or infinite.
        PluginProblem: sizes that cannot be.
        UsageProblem: it is no model, or its classes are not those of ``dataset``.
    """
    extra: dict[str, Any] = {}
    classes = len(dataset.class_names)
    if (
        choice.has_option("num_classes")
        and choice.options.get("num_classes") is None
        and choice.options.get("checkpoint") is None
    ):
        extra["num_classes"] = classes
    if choice.has_option("expected_classes") and choice.options.get("expected_classes") is None:
        extra["expected_classes"] = classes
    if choice.has_option("expected_shape") and dataset.input_shape is not None:
        extra["expected_shape"] = dataset.input_shape
    torch.manual_seed(settings.seed)
    made = choice.make(**extra)
    if not isinstance(made, Model):
        raise UsageProblem(
            f"model {choice.label} of {choice.plugin['distribution']} built a "
            f"{type(made).__name__}, expected a stabilitykit.Model"
        )
    check_sizes(made)
    for name, tensor in made.module.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataProblem(f"model {choice.label}: {name} holds NaN or infinite values")
    problem = ""
    if settings.extraction.networks_classes:
        problem = class_problem(made, dataset, untrained="num_classes" in extra)
    if problem and not settings.any_classes:
        raise UsageProblem(
            f"model {choice.label} and dataset {dataset_choice.label}: {problem}; "
            "or --any-classes to use labels only for grouping images"
        )
    if problem and not made.replayed:
        told = f"{choice.label} on {dataset_choice.label}: {problem}"
        print(f"warning: {told} (--any-classes was given)", file=sys.stderr)
    if settings.extraction.dtype == "float64":
        made.module.double()
    made.module.to(device).eval()
    return made


def check_sizes(model: Model) -> None:
    """PluginProblem unless T, K and the state's shape are whole numbers that can be."""
    for what, value, least in (("num_blocks", model.num_blocks, 0), ("num_classes", model.num_classes, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise PluginProblem(f"model {model.name}: {what} is {value!r}, expected a whole number >= {least}")
    shape = model.state_shape
    if not isinstance(shape, (tuple, list)) or not all(isinstance(side, (int, np.integer)) for side in shape):
        raise PluginProblem(f"model {model.name}: state_shape is {shape!r}, expected a tuple of whole numbers")
