"""Probes against a plain training loop written down from the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabilitykit.base.errors import CellProblem
from stabilitykit.dynamics import probe
from stabilitykit.dynamics.probe import fit_probes
from stabilitykit.dynamics.readout import kept_logits
from stabilitykit.dynamics.states import StateBatches, in_memory
from stabilitykit.testing.fixtures import TinyDataset, TinyModel
from tests.core.courses import CourseModel

INDICES = np.array([1, 2, 5, 7, 8, 9, 12, 13, 18, 20])


@torch.no_grad()
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


def random_batches(indices, batch_size, seed):
    """Batches of sizes that differ by at most one, and the generator that their orders come from."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(indices)
    parts = -(-len(order) // batch_size)
    return np.split(order, np.arange(1, parts) * len(order) // parts), generator


def by_hand(model, dataset, indices, epochs, batch_size, seed, rate=1e-3, part=1.0, steps=None):
    """One linear map per depth on states of norm 1 times sqrt(n), from zero, by Adam; folded into the weights."""
    maps = []
    for t in range(model.num_blocks + 1):
        batches, generator = random_batches(indices, batch_size, seed)
        first = states(model, dataset, batches[0])[t]
        scale, size = first.norm(dim=1).mean(), first.shape[1]
        weight, bias = torch.zeros(3, size, requires_grad=True), torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.Adam([weight, bias], lr=rate)
        order = [number for _ in range(epochs) for number in generator.permutation(len(batches))]
        for number in order[:steps]:
            chosen = batches[number][: len(batches[number]) - int(len(batches[number]) * (1 - part))]
            inputs = states(model, dataset, chosen)[t] / scale * size**0.5
            optimizer.zero_grad()
            labels = torch.as_tensor(dataset.labels[chosen])
            nn.functional.cross_entropy(inputs @ weight.T + bias, labels).backward()
            optimizer.step()
        maps.append((weight.detach() * size**0.5 / scale, bias.detach()))
    return maps


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("kind", [TinyModel, CourseModel])
def test_probes_are_the_definition(kind, seed):
    model, dataset = kind(), TinyDataset()
    found = fitted(model, dataset, seed=seed)
    expected = by_hand(model, dataset, INDICES, epochs=2, batch_size=4, seed=seed)
    for t, state in enumerate(states(model, dataset, INDICES)):
        weight, bias = expected[t]
        np.testing.assert_allclose(
            found.logits(t, state).numpy(), (state @ weight.T + bias).numpy(), rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("steps", [1, 4])
def test_so_many_steps_are_the_first_of_a_longer_training(steps):
    model, dataset = TinyModel(), TinyDataset()  # 3 batches: 4 steps end within the second pass
    found = fitted(model, dataset, epochs=1, steps=steps, batch_size=4)
    expected = by_hand(model, dataset, INDICES, epochs=2, batch_size=4, seed=5, steps=steps)
    for one, (weight, bias) in zip(found.probes, expected):
        np.testing.assert_allclose(one.weight.numpy(), weight.numpy(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.bias.numpy(), bias.numpy(), rtol=1e-3, atol=1e-6)
    assert fitted(model, dataset, epochs=9, steps=6).fingerprint() == fitted(model, dataset, epochs=2).fingerprint()


def test_equal_seeds_give_equal_bits_whatever_was_drawn_before():
    model, dataset = TinyModel(), TinyDataset()
    prints = []
    for before, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(before)
        np.random.seed(before)
        prints.append(fitted(model, dataset, seed=seed).fingerprint())
    assert prints[0] == prints[1] != prints[2]


@given(seed=st.integers(0, 99), batch=st.sampled_from([3, 8, 20]), held_out=st.booleans())
@settings(max_examples=8, deadline=None)
def test_kept_states_and_states_computed_anew_train_the_same_probes_bit_for_bit(seed, batch, held_out):
    indices, rooms = np.arange(20), (in_memory, lambda shape, dtype: None)
    for kind in (TinyModel, CourseModel):
        given_options = {"seed": seed, "batch_size": batch, "epochs": 3, "held_out": held_out}
        one, other = (fitted(kind(), TinyDataset(), indices, allocate=room, **given_options) for room in rooms)
        assert one.fingerprint() == other.fingerprint() and one.fit.depths == other.fit.depths
        assert (one.fit.passes, other.fit.passes) == (1, 4)


def test_the_network_runs_once_where_there_is_room():
    class Counting(TinyModel):
        images = 0

        def initial_state(self, inputs):
            self.images += len(inputs)
            return super().initial_state(inputs)

    for allocate, expected in ((in_memory, 20 + 5), (lambda shape, dtype: None, 4 * 20 + 5)):
        model = Counting()
        fitted(model, TinyDataset(), np.arange(20), batch_size=5, epochs=3, allocate=allocate)
        assert model.images == expected  # the first batch tells the sizes


def test_accuracies_are_those_of_the_probes_and_held_out_of_images_never_trained_on():
    model, dataset, indices = TinyModel(), TinyDataset(), np.arange(24)
    found = fitted(model, dataset, indices, batch_size=9, held_out=True)
    rows = states(model, dataset, indices)
    right = [(found.logits(t, h).argmax(1).numpy() == dataset.labels[indices]).mean() for t, h in enumerate(rows)]
    assert [depth.accuracy for depth in found.fit.depths] == pytest.approx(right)
    drawn, _ = random_batches(indices, 9, seed=5)
    unseen = np.concatenate([batch[len(batch) - int(len(batch) * 0.2) :] for batch in drawn])
    assert found.fit.n_held_out == len(unseen) == 3
    maps = by_hand(model, dataset, indices, epochs=2, batch_size=9, seed=5, part=0.8)
    expected = [
        ((h @ weight.T + bias).argmax(1).numpy() == dataset.labels[unseen]).mean()
        for h, (weight, bias) in zip(states(model, dataset, unseen), maps)
    ]
    assert [depth.held_out for depth in found.fit.depths] == pytest.approx(expected)
    alone = fitted(model, dataset, indices, batch_size=9)
    assert alone.fingerprint() == found.fingerprint() and alone.fit.depths[0].held_out is None


@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_every_image_is_in_one_batch_and_batches_are_of_one_size(count, size, seed):
    made = StateBatches(TinyModel(), TinyDataset(70), np.arange(5, 5 + count), [], batch_size=size, seed=seed)
    sizes = [rows.stop - rows.start for rows in made.bounds]
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
    assert sorted(made.indices) == list(range(5, 5 + count))
    assert sorted(batch.number for batch in made.visits(len(sizes))) == list(range(len(sizes)))


def test_there_must_be_an_image_to_train_on():
    with pytest.raises(CellProblem, match="no image"):
        fitted(TinyModel(), TinyDataset(), np.array([], dtype=int))


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
