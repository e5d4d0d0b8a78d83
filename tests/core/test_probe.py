"""Probes against a plain training loop written down from the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stabilitykit.base.errors import CellProblem
from stabilitykit.dynamics import probe
from stabilitykit.dynamics.probe import fit_probes
from stabilitykit.dynamics.readout import kept_logits
from stabilitykit.testing.fixtures import TinyDataset, TinyModel

INDICES = np.array([1, 2, 5, 7, 8, 9, 12, 13, 18, 20])


def states(model, dataset, indices):
    state = model.initial_state(model.preprocess(dataset.images(indices)))
    found = [state.flatten(1)]
    for t in range(model.num_blocks):
        state = model.block(t, state)
        found.append(state.flatten(1))
    return found


def fitted(model, dataset, indices=INDICES, **more):
    given = {"num_classes": 3, "epochs": 2, "batch_size": 4, "seed": 5, **more}
    return fit_probes(model, dataset, indices, **given)


def by_hand(model, dataset, indices, epochs, batch_size, seed, rate=1e-3):
    """One linear map per depth on states of norm 1 times sqrt(n), from zero, by Adam; folded into the weights."""
    labels = torch.as_tensor(dataset.labels[indices])
    first = states(model, dataset, indices[:batch_size])
    maps, size = [], first[0].shape[1]
    for t in range(model.num_blocks + 1):
        scale = first[t].norm(dim=1).mean()
        weight, bias = torch.zeros(3, size, requires_grad=True), torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.Adam([weight, bias], lr=rate)
        generator = np.random.default_rng(seed)
        for _ in range(epochs):
            order = generator.permutation(len(indices))
            for start in range(0, len(indices), batch_size):
                rows = order[start : start + batch_size]
                inputs = states(model, dataset, indices[rows])[t] / scale * size**0.5
                optimizer.zero_grad()
                nn.functional.cross_entropy(inputs @ weight.T + bias, labels[rows]).backward()
                optimizer.step()
        maps.append((weight.detach() * size**0.5 / scale, bias.detach()))
    return maps


@pytest.mark.parametrize("seed", [0, 5])
def test_probes_are_the_definition(seed):
    model, dataset = TinyModel(), TinyDataset()
    found = fitted(model, dataset, seed=seed)
    expected = by_hand(model, dataset, INDICES, epochs=2, batch_size=4, seed=seed)
    for t, state in enumerate(states(model, dataset, INDICES)):
        weight, bias = expected[t]
        np.testing.assert_allclose(
            found.logits(t, state).numpy(), (state @ weight.T + bias).numpy(), rtol=1e-3, atol=1e-5
        )


def test_equal_seeds_give_equal_bits_whatever_was_drawn_before():
    model, dataset = TinyModel(), TinyDataset()
    prints = []
    for before, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(before)
        np.random.seed(before)
        prints.append(fitted(model, dataset, seed=seed).fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_dropout_is_off_while_probes_are_trained():
    class Dropping(TinyModel):
        def __init__(self):
            super().__init__()
            self._module["drop"] = nn.Dropout(0.9)

        def initial_state(self, inputs):
            return self._module["drop"](super().initial_state(inputs))

    model = Dropping()
    model.module.train()
    assert fitted(model, TinyDataset()).fingerprint() == fitted(TinyModel(), TinyDataset()).fingerprint()
    assert not model.module.training


def test_probes_too_large_for_memory_are_refused(monkeypatch):
    monkeypatch.setattr(probe, "MAX_WEIGHTS", 4 * 16 * 3 - 1)
    with pytest.raises(CellProblem, match="--readout head"):
        fitted(TinyModel(), TinyDataset())


def test_logits_are_kept_in_the_precision_of_the_network():
    values = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    assert kept_logits(TinyModel(double=True), values).tolist() == values.tolist()
    assert kept_logits(TinyModel(), values).dtype == np.float32


def test_each_depth_has_its_own_probe():
    model, dataset = TinyModel(), TinyDataset()
    found = fitted(model, dataset)
    for t, state in enumerate(states(model, dataset, INDICES)):
        assert torch.equal(found.logits(t, state), found.head(t)(state))
    assert len({found.probes[t].weight.sum().item() for t in range(4)}) == 4
