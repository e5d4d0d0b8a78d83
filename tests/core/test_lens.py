"""The tuned lens: laws of its translators, of its training, and of what may go wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabilitykit.base.errors import CellProblem
from stabilitykit.dynamics import lens as lens_module
from stabilitykit.dynamics.lens import fit_lens
from stabilitykit.dynamics.readout import HeadReadout, LensReadout
from stabilitykit.dynamics.states import in_memory
from stabilitykit.dynamics.trajectory import batch_logits, batches
from stabilitykit.dynamics.translator import identity_translator, jump_translator
from stabilitykit.testing.fixtures import TinyDataset, TinyModel
from tests.core.courses import STAGES, CourseModel

DATA = TinyDataset(40)
INDICES = np.arange(1, 38)


def fitted(model, **more):
    return fit_lens(model, DATA, INDICES, **{"epochs": 3, "batch_size": 8, "seed": 2, **more})


def inputs_of(model, indices=INDICES):
    return next(batches(model, DATA, indices, len(indices), "cpu"))[1]


def divergences(model, readout, indices=INDICES):
    """KL(network || readout) at every depth, float64, as the definition has it."""
    found = torch.from_numpy(batch_logits(model, readout, inputs_of(model, indices))).double().log_softmax(-1)
    return (found[-1].exp() * (found[-1] - found)).sum(-1).mean(-1).numpy()


MODELS = {
    "equal": lambda: TinyModel(),
    "course": lambda: CourseModel(),
    "channels last": lambda: CourseModel(channels_last=True),
}


@pytest.mark.parametrize("kind", MODELS)
def test_it_says_more_of_the_network_than_the_head_and_is_the_network_at_the_end(kind):
    model = MODELS[kind]()
    lens = fitted(model)
    inputs = inputs_of(model)
    with torch.inference_mode():
        assert np.array_equal(batch_logits(model, lens, inputs)[-1], model.logits(inputs).numpy())
    before, after = divergences(model, HeadReadout(model)), divergences(model, lens)
    assert (after[:-1] < before[:-1]).all() and after[-1] == 0
    np.testing.assert_allclose([depth.loss for depth in lens.fit.depths], after, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose([depth.before for depth in lens.fit.depths], before, rtol=1e-4, atol=1e-7)
    with torch.inference_mode():
        right = batch_logits(model, lens, inputs).argmax(-1) == DATA.labels[INDICES]
    np.testing.assert_allclose([depth.accuracy for depth in lens.fit.depths], right.mean(1))


def by_hand(model, t, epochs, batch_size, seed, rate):
    """A weight and a bias per channel of h_t trained on the definition of the divergence, in float64."""
    generator = np.random.default_rng(seed)
    order, parts = generator.permutation(INDICES), -(-len(INDICES) // batch_size)
    drawn = np.split(order, np.arange(1, parts) * len(order) // parts)
    states, finals = [], []
    for batch in drawn:
        state = model.initial_state(inputs_of(model, batch))
        for block in range(model.num_blocks):
            states += [state] if block == t else []
            state = model.block(block, state)
        finals.append(model.readout(state).softmax(1))
    channels = states[0].shape[1]
    weight = torch.eye(channels, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(channels, dtype=torch.float64, requires_grad=True)
    typical = float(states[0].square().mean().sqrt())
    optimizer = torch.optim.Adam([{"params": [weight], "lr": 0.0}, {"params": [bias], "lr": 0.0}])
    step, steps = 0, epochs * parts
    for _ in range(epochs):
        for number in generator.permutation(parts):
            falling = rate * (1 - 0.95 * step / steps)
            for group, size in zip(optimizer.param_groups, (1 / channels, typical)):
                group["lr"] = falling * size
            optimizer.zero_grad()
            translated = torch.einsum("oc,bchw->bohw", weight, states[number]) + bias[:, None, None]
            said = model.readout_at(t, translated).log_softmax(1)
            (finals[number] * (finals[number].log() - said)).sum(1).mean().backward()
            optimizer.step()
            step += 1
    return weight.detach(), bias.detach()


def test_it_is_the_definition():
    model = CourseModel()
    model.module.double().requires_grad_(False)
    lens = fitted(model, epochs=2, seed=4, learning_rate=0.3)
    for t in range(model.num_blocks):
        weight, bias = by_hand(model, t, epochs=2, batch_size=8, seed=4, rate=0.3)
        found = lens.translators[t]
        torch.testing.assert_close(found.weight.flatten(1), weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.bias, bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_untrained_it_is_the_head_bit_for_bit(kind):
    model = MODELS[kind]()
    shapes = [model.shape_at(t) for t in range(model.num_blocks)]
    lens = LensReadout(model, [identity_translator(s, model.feature_axis(t)) for t, s in enumerate(shapes)])
    inputs = inputs_of(model)
    assert np.array_equal(batch_logits(model, lens, inputs), batch_logits(model, HeadReadout(model), inputs))


def test_a_depth_that_training_makes_worse_keeps_its_head():
    model = CourseModel()
    lens = fitted(model, learning_rate=1e4)
    kept = [t for t, depth in enumerate(lens.fit.depths[:-1]) if depth.remark]
    assert kept and all(lens.fit.depths[t].loss == lens.fit.depths[t].before for t in kept)
    head = batch_logits(model, HeadReadout(model), inputs_of(model))
    assert np.array_equal(batch_logits(model, lens, inputs_of(model))[kept], head[kept])


@given(seed=st.integers(0, 99), batch=st.sampled_from([7, 8, 37, 50]), residual=st.booleans())
@settings(max_examples=6, deadline=None)
def test_kept_states_and_states_computed_anew_train_the_same_lens_bit_for_bit(seed, batch, residual):
    given_options = {"seed": seed, "batch_size": batch, "epochs": 2}
    rooms = (in_memory, lambda shape, dtype: None)
    one, other = (fitted(CourseModel(residual), allocate=room, **given_options) for room in rooms)
    assert one.fingerprint() == other.fingerprint() and one.fit.depths == other.fit.depths
    assert (one.fit.passes, other.fit.passes) == (1, 3)


def test_equal_seeds_give_equal_bits_whatever_was_drawn_before():
    prints = []
    for before, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(before)
        prints.append(fitted(CourseModel(), seed=seed, epochs=1).fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_without_heads_it_leads_into_the_last_state():
    model = CourseModel(residual=False)
    lens = fitted(model, epochs=20)
    losses = divergences(model, lens)
    assert lens.jumps and losses[-1] == 0
    assert all(depth.loss < depth.before for depth in lens.fit.depths[:-1])
    with torch.inference_mode():
        state = model.initial_state(inputs_of(model))
        pooled = nn.functional.adaptive_avg_pool2d(state, STAGES[-1][1])
        layer = lens.translators[0][-1]
        expected = model.readout(
            torch.einsum("oc,bchw->bohw", layer.weight[..., 0, 0], pooled) + layer.bias[:, None, None]
        )
        torch.testing.assert_close(lens.logits(0, state), expected)


def test_the_network_is_left_as_it_was():
    model = CourseModel()
    wanting = list(model.module.parameters())[::2]
    for parameter in model.module.parameters():
        parameter.requires_grad_(False)
    for parameter in wanting:
        parameter.requires_grad_(True)
    print_ = model.fingerprint()
    fitted(model)
    assert model.fingerprint() == print_
    assert [p for p in model.module.parameters() if p.requires_grad] == wanting
    assert all(p.grad is None for p in model.module.parameters())
    with pytest.raises(CellProblem, match="weights"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(lens_module, "MAX_WEIGHTS", 3)
        fitted(model)
    assert [p for p in model.module.parameters() if p.requires_grad] == wanting


def test_one_module_where_the_head_is_one():
    model = CourseModel()
    lens = fitted(model)
    with torch.inference_mode():
        state = model.initial_state(inputs_of(model))
        for t in range(model.num_blocks + 1):
            head = lens.head(t)
            assert (head is None) == (model.head_at(t) is None)
            if head is not None:
                torch.testing.assert_close(head(state), lens.logits(t, state))
            state = model.block(t, state) if t < model.num_blocks else state


class Pair(TinyModel):
    """States (x, side, x): the middle part is of another shape and passed on."""

    def initial_state(self, inputs):
        x = super().initial_state(inputs)
        return x, inputs.flatten(1)[:, :2], x.flip(0)

    def block(self, t, state):
        return super().block(t, state[0]), state[1], super().block(t, state[2])

    def readout(self, state):
        return super().readout(state[0] + state[2]) + state[1].sum(1, keepdim=True)


def test_parts_of_the_first_shape_are_translated_and_the_others_passed_on():
    model = Pair()
    lens = fitted(model)
    with torch.inference_mode():
        state = model.initial_state(inputs_of(model))
        translate = lens.translators[0]
        expected = model.readout((translate(state[0]), state[1], translate(state[2])))
        assert torch.equal(lens.logits(0, state), expected)
    assert (divergences(model, lens)[:-1] < divergences(model, HeadReadout(model))[:-1]).all()


@given(
    st.integers(1, 5),
    st.sampled_from([(2, 3), (4, 4), (3,), ()]),
    st.integers(1, 5),
    st.sampled_from(["same", "smaller", "vector"]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_jumps_begin_with_every_feature_in_its_place(features, grid, others, target, first, last_first):
    wanted = {"same": grid, "smaller": tuple(1 for _ in grid), "vector": ()}[target]
    shape, axis = ((features, *grid), 0) if first else ((*grid, features), len(grid))
    last, last_axis = ((others, *wanted), 0) if last_first else ((*wanted, others), len(wanted))
    state = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    found = jump_translator(shape, axis, last, last_axis)(state)
    assert tuple(found.shape) == (2, *last)
    values = state.movedim(axis + 1, 1)
    if wanted != grid:
        values = values.flatten(2).mean(2).reshape(2, features, *wanted)
    common = min(features, others)
    moved = found.movedim(last_axis + 1, 1)
    torch.testing.assert_close(moved[:, :common], values[:, :common])
    assert bool((moved[:, common:] == 0).all())


def test_states_no_lens_is_made_for_are_refused():
    with pytest.raises(CellProblem, match="--readout probe"):
        jump_translator((3, 2, 2), 0, (4, 2), 0)
    with pytest.raises(CellProblem, match="--readout probe"):
        identity_translator((), -1)

    class Cut(TinyModel):
        def readout(self, state):
            return super().readout(state.detach())

    with pytest.raises(CellProblem, match="no gradient"):
        fitted(Cut())

    class Replayed(TinyModel):
        replayed = True

    with pytest.raises(CellProblem, match="--readout head"):
        fitted(Replayed())

    class Paired(Pair):
        without_head = "it has none"

    with pytest.raises(CellProblem, match=r"depth 0.*3 parts"):
        fitted(Paired())


def test_float64_networks_are_seen_through_in_float64():
    model = TinyModel(double=True)
    lens = fitted(model)
    state = model.initial_state(inputs_of(model))
    assert lens.logits(0, state).dtype == torch.float64
    assert (divergences(model, lens)[:-1] < divergences(model, HeadReadout(model))[:-1]).all()
