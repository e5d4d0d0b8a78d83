"""The property: laws of Lyapunov exponents, contract, verification, bad input."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from stabilitykit import CellProblem, Kind, PropertyResult
from stabilitykit.testing import TinyDataset, TinyModel, check_component, failures, tiny_context

from stabilitykit_lyapunov import stabilitykit_properties
from stabilitykit_lyapunov.lyapunov import Lyapunov


class LinearFlow(TinyModel):
    """Every block multiplies the state by one matrix."""

    def __init__(self, matrix, blocks=3):
        super().__init__(blocks=blocks)
        self.matrix = matrix

    def block(self, t, state):
        return (state.flatten(1) @ self.matrix.to(state).T).reshape(state.shape)


class TwoPart(TinyModel):
    """The state (x, y): x' = x + f(y), y' = y."""

    def initial_state(self, inputs):
        state = super().initial_state(inputs)
        return state[:, :2], state[:, 2:]

    def block(self, t, state):
        x, y = state
        return x + torch.tanh(y), y

    def readout(self, state):
        return super().readout(torch.cat(state, dim=1))


def measure(model=None, **options):
    return Lyapunov(**options).evaluate(tiny_context(model))


def test_contract():
    (component,) = stabilitykit_properties()
    assert not failures(check_component(component, options={"iterations": 8}))


def test_equals_explicit_jacobians():
    context = tiny_context(TinyModel(double=True))
    property_ = Lyapunov(k=2, images=24, iterations=200, tolerance=1e-7)
    spectra = property_.spectra(context, np.array([0, 11, 23]))
    inputs = torch.cat([batch for _, batch in context.batches()]).double()
    for position, row in enumerate((0, 11, 23)):
        state = context.model.initial_state(inputs[row : row + 1]).flatten()
        total = torch.eye(16, dtype=torch.float64)
        for t in range(3):

            def block(x, t=t):
                return context.model.block(t, x.reshape(1, 4, 2, 2)).flatten()

            jacobian = torch.autograd.functional.jacobian(block, state)
            total = jacobian @ total
            state = block(state)
            assert torch.linalg.svdvals(jacobian)[:2].tolist() == pytest.approx(spectra.block[t, position], rel=1e-9)
            expected = torch.linalg.svdvals(total)[:2].log() / (t + 1)
            assert expected.tolist() == pytest.approx(spectra.exponents[t, position], abs=1e-9)


def test_scaled_identity_and_rotation():
    stretch = measure(LinearFlow(2.0 * torch.eye(16)))
    assert stretch["exponent.max"].value == pytest.approx(math.log(2), abs=1e-12)
    assert stretch["block_stretch.max"].value == pytest.approx(2.0, rel=1e-12)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).double()).Q
    for j in (1, 2, 3):
        assert measure(LinearFlow(rotation))[f"exponent.mean.{j}"].value == pytest.approx(0.0, abs=1e-12)


def test_exponents_of_a_diagonal_map_are_its_logarithms():
    entries = torch.tensor([8.0, 4.0, 2.0] + [0.1] * 13)
    result = measure(LinearFlow(torch.diag(entries)))
    found = [result[f"exponent.mean.{j}"].value for j in (1, 2, 3)]
    assert found == pytest.approx([math.log(8), math.log(4), math.log(2)], abs=1e-12)


def test_cumulative_stretch_is_at_most_the_product_of_the_blocks():
    context = tiny_context(TinyModel(blocks=4, seed=3))
    spectra = Lyapunov(k=2, tolerance=1e-5).spectra(context, np.arange(6))
    bound = np.cumprod(spectra.block[:, :, 0], axis=0)
    assert (spectra.cumulative[:, :, 0] <= bound * (1 + 1e-8)).all()
    assert (np.diff(spectra.block, axis=2) <= 1e-12).all()


def test_singular_map_has_exponent_minus_infinity_and_survives_json():
    result = measure(LinearFlow(torch.diag(torch.tensor([2.0] + [0.0] * 15))), k=2)
    assert result["exponent.mean.2"].value == -math.inf
    again = PropertyResult.from_json(result.to_json())
    assert again["exponent.mean.2"].value == -math.inf and again.to_json() == result.to_json()


def test_says_what_its_numbers_are():
    result = measure(k=2, images=5)
    for name in ("exponent.max", "exponent.mean.1", "exponent.mean.2", "block_stretch.max"):
        assert result[name].kind is Kind.LOWER and result[name].n == 5
    assert result["residual.max"].value <= 1e-6 and "converged" in result["residual.max"].note
    rough = measure(iterations=1, tolerance=1e-12)
    assert "still low" in rough["residual.max"].note
    assert [row[:2] for row in result.tables["exponents"].rows] == [[t, j] for t in (1, 2, 3) for j in (1, 2)]
    assert [row[0] for row in result.tables["blocks"].rows] == [0, 0, 1, 1, 2, 2]


def test_verify_recomputes_the_witness_alone_and_sees_another_model():
    property_ = Lyapunov(k=1, tolerance=1e-3)
    result = property_.evaluate(tiny_context())
    verified = property_.verify(tiny_context(), result)
    for name in ("exponent.max", "block_stretch.max"):
        assert verified[name] == pytest.approx(result[name].value, rel=1e-10)
        assert property_.verify(tiny_context(TinyModel(seed=5)), result)[name] != pytest.approx(result[name].value)


def test_float32_agrees_with_float64():
    single, double = measure(dtype="float32", k=1, tolerance=1e-4), measure(k=1, tolerance=1e-4)
    assert single["exponent.max"].value == pytest.approx(double["exponent.max"].value, abs=1e-4)


def test_tuple_states():
    result = measure(TwoPart(), iterations=10)
    # x' = x + tanh(y): singular values between 1 and the golden ratio.
    assert 1.0 < result["block_stretch.max"].value <= (1 + 5**0.5) / 2 + 1e-12


def test_bad_input():
    with pytest.raises(CellProblem, match="k=17 exceeds the 16 numbers"):
        measure(k=17)
    with pytest.raises(CellProblem, match="dtype=float32"):
        Lyapunov().evaluate(dataclasses.replace(tiny_context(), device=torch.device("mps")))


def test_fewer_images_than_asked_for():
    context = tiny_context(dataset=TinyDataset(count=3))
    result = Lyapunov(k=1, images=8, tolerance=1e-2).evaluate(context)
    assert result["exponent.max"].n == 3
