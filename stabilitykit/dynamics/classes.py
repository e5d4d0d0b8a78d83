"""Do the classes of two things agree? Compared by name where both know names, else by number."""

from __future__ import annotations

from collections.abc import Sequence

from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model

SHOWN = 6


def class_problem(model: Model, dataset: Dataset, *, untrained: bool = False) -> str:
    """Why the outputs of ``model`` are not the classes of ``dataset``, and what to do; empty when they are.

    Arguments:
        untrained: the outputs stand for nothing yet: only their number has to fit.
    """
    known, ids = model.class_names, dataset.class_ids
    names = [str(name) for name in dataset.class_names]
    if model.num_classes != len(names):
        text = f"the model tells {model.num_classes} classes apart, the dataset has {len(names)} ({_some(names)})"
        if ids is not None and min(ids) >= 0 and max(ids) < model.num_classes and model.class_ids is None:
            return (
                f"{text}; name the outputs they are, as --classes {'-'.join(map(str, ids))}, or give the dataset "
                f"num_classes={model.num_classes} to keep labels as numbers of outputs"
            )
        if len(names) < model.num_classes and model.class_ids is None:
            return f"{text}; give a matching checkpoint or num_classes, name its outputs as --classes 3-17-250"
        return f"{text}; give a matching checkpoint or num_classes"
    if untrained:
        return ""
    if known is not None and dataset.class_names_given:
        return _difference([str(name) for name in known], names, "the model was trained on", "the dataset has")
    if known is None and ids is not None:
        outputs = list(model.class_ids) if model.class_ids is not None else list(range(model.num_classes))
        if outputs != list(ids):
            text = (
                f"the model's outputs stand for {_some(outputs)}, the dataset's labels are the numbers {_some(ids)}; "
            )
            if model.class_ids is not None:
                return f"{text}give them in this order, as --classes {'-'.join(map(str, ids))}"
            if list(ids) == [n + 1 for n in outputs]:
                return f"{text}if labels count from 1, say labels_from=1 (an option of the dataset)"
            return f"{text}give labels 0..{model.num_classes - 1}"
    return ""


def datasets_differ(first: Dataset, second: Dataset) -> str:
    """Why ``second`` has other classes than ``first``; empty when it has the same, or when names are not known."""
    ours, theirs = ([str(name) for name in data.class_names] for data in (first, second))
    if len(ours) != len(theirs):
        return (
            f"{second.name} has {len(theirs)} classes ({_some(theirs)}), {first.name} has {len(ours)} ({_some(ours)})"
        )
    if first.class_names_given and second.class_names_given:
        return _difference(ours, theirs, f"{first.name} has", f"{second.name} has")
    if (first.class_ids is None) != (second.class_ids is None):
        return f"labels of {first.name} are {_some(ours)}, of {second.name} {_some(theirs)}"
    return ""


def _difference(ours: Sequence[str], theirs: Sequence[str], we: str, they: str) -> str:
    """Where two lists of names of equal length first differ, as text; empty when they do not."""
    for number, (a, b) in enumerate(zip(ours, theirs)):
        if a != b:
            kind = "the same classes in another order" if sorted(ours) == sorted(theirs) else "other classes"
            return (
                f"{we} {_some(ours)}, {they} {_some(theirs)}: {kind} (class {number} is {a!r} there, {b!r} here); "
                "give data of the same classes in the same order"
            )
    return ""


def _some(names: Sequence[object]) -> str:
    shown = ", ".join(map(str, names[:SHOWN]))
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
