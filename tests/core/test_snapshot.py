"""Whatever a property does to a shared model or dataset is seen; modes and gradient flags are put back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stabilitykit.base.errors import CellProblem, PluginProblem
from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.settings import Settings
from stabilitykit.evaluation.snapshot import Snapshot
from stabilitykit.evaluation.subject import Subject
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


def add_weight(model):
    next(model.module.parameters()).add_(1e-7)


def add_buffer(model):
    model.module.register_buffer("counter", torch.zeros(1))


def replace_block(model):
    model.module["blocks"][1][1] = torch.nn.ReLU()


DAMAGE = {
    "a weight": add_weight,
    "a buffer": add_buffer,
    "a module": replace_block,
    "a hook": lambda model: model.module["stem"].register_forward_hook(lambda *a: None),
    "a hook before": lambda model: model.module["stem"].register_forward_pre_hook(lambda *a: None),
    "a hook of gradients": lambda model: model.module["stem"].register_full_backward_hook(lambda *a: None),
    "a module's forward": lambda model: setattr(model.module["stem"], "forward", lambda x: x),
    "the readout": lambda model: setattr(model, "readout", lambda state: state),
    "a block": lambda model: setattr(model, "block", lambda t, state: state),
    "the logits": lambda model: setattr(model, "logits", lambda inputs: inputs),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_to_the_model_is_seen(what):
    model, dataset = TinyModel(), TinyDataset()
    snapshot = Snapshot(model, np.array(dataset.labels))
    assert snapshot.what_changed(model, dataset) == ""
    with torch.no_grad():
        DAMAGE[what](model)
    assert snapshot.what_changed(model, dataset).startswith("the model")


def test_damage_to_the_labels_is_seen():
    model, dataset = TinyModel(), TinyDataset()
    snapshot = Snapshot(model, np.array(dataset.labels))
    dataset.labels[3] = 0 if dataset.labels[3] else 1
    assert snapshot.what_changed(model, dataset).startswith("the dataset")


def test_modes_and_gradients_are_put_back():
    model, dataset = TinyModel(), TinyDataset()
    snapshot = Snapshot(model, np.array(dataset.labels))
    model.module.train().requires_grad_(True)
    assert snapshot.what_changed(model, dataset) == ""
    assert not any(part.training for part in model.module.modules())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def choice(kind, thing, **more):
    return Choice(kind, thing.name, thing.name, lambda **_: thing, **more)


def subject(**things):
    model, dataset = things.get("model") or TinyModel(), things.get("dataset") or TinyDataset()
    settings = Settings.from_request({"batch_size": 8})
    return Subject(choice("model", model), choice("dataset", dataset), settings, torch.device("cpu"), None)


def test_a_subject_sees_labels_changed_in_place():
    pair = subject()
    pair.dataset.labels[:] = 0
    assert "labels" in pair.what_changed()


def test_readouts_of_a_changed_model_are_not_extracted():
    pair = subject()
    with torch.no_grad():
        next(pair.model.module.parameters()).add_(1.0)
    with pytest.raises(PluginProblem, match="before it asked for the trajectory"):
        pair.trajectory()


def test_what_cannot_be_repaired_is_refused():
    """The object handed over is the only copy there is: building it anew gives the spoiled one."""
    pair = subject()
    pair.require_intact()
    with torch.no_grad():
        next(pair.model.module.parameters()).add_(1.0)
    pair.repair("property p")
    with pytest.raises(CellProblem, match="property p modified"):
        pair.require_intact()


def test_results_are_lent_as_copies_and_indices_read_only():
    pair = subject()
    results = {"p": PropertyResult([Measurement("x", 1.0, Kind.EXACT, 1)], notes=["as it was"])}
    context = pair.context(Choice("property", "q", "q", lambda **_: None, needs=("p",)), results)
    context.results["p"].notes.append("spoiled")
    context.results["p"].measurements.clear()
    assert results["p"].notes == ["as it was"] and len(results["p"].measurements) == 1
    with pytest.raises(ValueError, match="read-only"):
        context.indices[0] = 5
