"""Are model and dataset still what they were? Properties share them, and must not change them for each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model


class Snapshot:
    """What a freshly built model and dataset are, to compare with later.

    Attributes:
        fingerprint: of the model.
    """

    def __init__(self, model: Model, labels: np.ndarray) -> None:
        """Arguments:
        labels: integers (N,), one per image of the dataset.
        """
        self.fingerprint = model.fingerprint()
        self._structure = structure(model)
        self._wants_gradient = [p.requires_grad for p in model.module.parameters()]
        self._labels = labels

    def what_changed(self, model: Model, dataset: Dataset) -> str:
        """What a property changed in place although it is shared: text for a message, or nothing."""
        try:
            model.module.eval()  # modes are no damage: they are put back
            for parameter, wanted in zip(model.module.parameters(), self._wants_gradient):
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)
            if model.fingerprint() != self.fingerprint:
                return "the model (its weights or buffers changed)"
            if structure(model) != self._structure:
                return "the model (its modules or their hooks changed)"
        except (Exception, SystemExit) as error:
            return f"the model (it cannot be read any more: {type(error).__name__})"
        try:
            if not np.array_equal(dataset.labels, self._labels):
                return "the dataset (its labels changed)"
        except (Exception, SystemExit) as error:
            return f"the dataset (its labels cannot be read any more: {type(error).__name__})"
        return ""


def structure(model: Model) -> str:
    """What a fingerprint of weights does not see: which modules there are, their hooks, and methods put in place."""
    hooks = [
        (
            name,
            [len(getattr(part, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")],
            _replaced(part, ("forward",)),
        )
        for name, part in model.module.named_modules()
    ]
    methods = _replaced(model, ("preprocess", "initial_state", "block", "readout", "logits"))
    return f"{model.module!r} {hooks} {methods} {model.num_blocks} {model.num_classes}"


def _replaced(thing: Any, names: tuple[str, ...]) -> list[str]:
    """Methods of ``thing`` that its own dictionary hides, and by what."""
    found = [(name, vars(thing)[name]) for name in names if name in vars(thing)]
    return [f"{name}={getattr(what, '__module__', '')}.{getattr(what, '__qualname__', what)}" for name, what in found]
