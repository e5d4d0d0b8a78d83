import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.dynamics.lowprecision import LowPrecision, editable_copy, quantise, round_to
from stabilitykit.dynamics.perturbed import perturbed_orbits
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.sampled_from([0, 1]), st.sampled_from([1e-6, 1.0, 1e6]))
def test_int8_levels(seed, dim, scale):
    x = scale * torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    q = quantise(x, dim)
    largest = x.abs().amax(dim=1 - dim, keepdim=True)
    assert ((q - x).abs() <= largest / 127 * 0.5001).all()
    levels = q / (largest / 127)
    assert torch.allclose(levels, levels.round(), atol=1e-3) and levels.abs().max() <= 127.001
    torch.testing.assert_close(quantise(q, dim), q, rtol=1e-5, atol=0.0)
    assert torch.equal(quantise(torch.zeros(3, 2), 0), torch.zeros(3, 2))


@pytest.mark.parametrize("format, bits", [("bf16", 8), ("fp16", 11)])
def test_rounding_is_within_half_a_unit(format, bits):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert ((round_to(x, format) - x).abs() <= x.abs() * 2.0**-bits).all()
    assert torch.equal(round_to(round_to(x, format), format), round_to(x, format))
    whole = torch.arange(3)
    assert round_to(whole, format) is whole


def test_bf16_blocks_match_a_network_really_run_in_bf16():
    model = TinyModel()
    emulated = LowPrecision(model, "bf16")
    real = copy.deepcopy(model)
    real.module.to(torch.bfloat16)
    state = model.initial_state(model.preprocess(TinyDataset().images(range(8))))
    with torch.inference_mode():
        ours = emulated.block(0, state)
        theirs = real.block(0, state.to(torch.bfloat16)).float()
    # Sums are accumulated in another order, so single results may round to the neighbouring number.
    error = (ours - model.block(0, state)).abs().max()
    assert (ours - theirs).abs().max() <= 2 * error
    assert 1e-4 < error < 0.1


def test_formats_are_ordered_by_their_error():
    model = TinyModel()
    inputs = model.preprocess(TinyDataset().images(range(8)))
    changes = {}
    for format in ("bf16", "fp16", "int8"):
        blocks = LowPrecision(model, format)
        found = perturbed_orbits(model, HeadReadout(model), inputs, lambda t, h, _, b=blocks: b.block(t, h), "logits")
        changes[format] = found.changes.max()
    assert 0 < changes["fp16"] < changes["bf16"]
    assert changes["int8"] > 0


def test_the_true_step_changes_nothing():
    model = TinyModel()
    inputs = model.preprocess(TinyDataset().images(range(8)))
    found = perturbed_orbits(model, HeadReadout(model), inputs, lambda t, h, true: true, "probabilities")
    assert found.changes.max() == 0 and found.jumps.max() == 0
    assert found.readouts.shape == (8, 4, 3) and found.norms.shape == (8, 3)
    np.testing.assert_allclose(found.readouts.sum(axis=2), 1)


def test_overflow_names_the_depth():
    model = TinyModel()
    inputs = model.preprocess(TinyDataset().images(range(2)))
    with pytest.raises(CellProblem, match="depth 1"):
        perturbed_orbits(model, HeadReadout(model), inputs, lambda t, h, true: true * float("inf"), "logits")


def test_copies_are_independent_and_formats_checked():
    model = TinyModel()
    before = model.fingerprint()
    twin = editable_copy(model)
    with torch.no_grad():
        for parameter in twin.module.parameters():
            parameter.zero_()
    assert model.fingerprint() == before
    with pytest.raises(UsageProblem, match="bf16, fp16, int8"):
        LowPrecision(model, "fp8")


def test_a_copy_that_shares_or_fails_is_refused():
    class Sharing(TinyModel):
        def __deepcopy__(self, memo):
            return self

    class Failing(TinyModel):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle")

    with pytest.raises(CellProblem, match="shares parameters"):
        editable_copy(Sharing())
    with pytest.raises(CellProblem, match="cannot be copied"):
        editable_copy(Failing())


def test_attention_weights_are_quantised():
    class Attention(TinyModel):
        def __init__(self):
            super().__init__(blocks=1)
            self._module["attention"] = nn.MultiheadAttention(4, 2, batch_first=True)
            self._module.eval().requires_grad_(False)

        def block(self, t, state):
            tokens = state.flatten(2).transpose(1, 2)
            return state + self._module["attention"](tokens, tokens, tokens, need_weights=False)[0].transpose(
                1, 2
            ).reshape(state.shape)

    model = Attention()
    for format in ("bf16", "int8"):
        weight = LowPrecision(model, format).twin.module["attention"].in_proj_weight
        assert not torch.equal(weight, model.module["attention"].in_proj_weight)
