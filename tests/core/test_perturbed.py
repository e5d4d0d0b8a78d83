"""Orbits of perturbed blocks against the definition, computed state by state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stabilitykit.dynamics.lowprecision import LowPrecision, quantise
from stabilitykit.dynamics.perturbed import perturbed_orbits
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.space import to_space
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


def step(t, state, true):
    return true + 0.1 * (t + 1) * torch.cos(state)


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_orbits_are_the_definition(space):
    model = TinyModel(double=True)
    inputs = model.preprocess(TinyDataset().images(range(6)))
    found = perturbed_orbits(model, HeadReadout(model), inputs, step, space)

    def g(state):
        return to_space(model.readout(state).numpy(), space)

    state = model.initial_state(inputs)
    assert np.array_equal(found.readouts[:, 0], g(state))
    for t in range(model.num_blocks):
        true = model.block(t, state)
        state = step(t, state, true)
        np.testing.assert_allclose(found.readouts[:, t + 1], g(state), rtol=1e-12)
        np.testing.assert_allclose(found.jumps[:, t], np.linalg.norm(g(true) - g(state), axis=1), rtol=1e-9)
        np.testing.assert_allclose(found.changes[:, t], (true - state).flatten(1).norm(dim=1).numpy(), rtol=1e-9)
        np.testing.assert_allclose(found.norms[:, t], true.flatten(1).norm(dim=1).numpy(), rtol=1e-12)


class Recording(TinyModel):
    """Keeps what its blocks are given and what their first layers take and give."""

    def block(self, t, state):
        self.given = state
        return super().block(t, state)


@pytest.mark.parametrize("format", ["bf16", "fp16"])
def test_states_and_layers_hold_numbers_of_the_format_only(format):
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[format]
    model = Recording()
    low = LowPrecision(model, format)
    seen = {}
    layer = low.twin.module["blocks"][0][0]
    layer.register_forward_hook(lambda _, inputs, output: seen.update(inputs=inputs[0], output=output))
    state = model.initial_state(model.preprocess(TinyDataset().images(range(4))))
    out = low.block(0, state)
    for tensor in (low.twin.given, seen["inputs"], seen["output"], layer.weight, layer.bias, out):
        assert torch.equal(tensor, tensor.to(dtype).to(tensor.dtype))


def test_int8_scales_belong_to_output_channels_and_images():
    model = TinyModel()
    model.module["conv"] = torch.nn.Conv2d(3, 5, 3)
    model.module["up"] = torch.nn.ConvTranspose2d(3, 5, 3)
    low = LowPrecision(model, "int8")
    assert torch.equal(low.twin.module["conv"].weight, quantise(model.module["conv"].weight, dim=0))
    assert torch.equal(low.twin.module["up"].weight, quantise(model.module["up"].weight, dim=1))
    seen = {}
    layer = low.twin.module["blocks"][0][0]
    layer.register_forward_hook(lambda _, inputs, output: seen.update(inputs=inputs[0]))
    state = torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    low.block(0, state)
    assert torch.equal(seen["inputs"], quantise(state.flatten(1), dim=0))
