"""IsoLift: isometries between stages, the spectral constraint against exact norms, training and checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_resnets.convolutions import Conv1x1, Conv3x3
from stabilitykit_resnets.isolift import DEPTHS, LiftBlock, isolift
from stabilitykit_resnets.spectral import AtMostOne, norm_bound
from torch.nn.utils import parametrize

from stabilitykit import UsageProblem
from stabilitykit.testing import check_model, failures

VARIANTS = [
    {},
    {"variant": "wide", "width": 48},
    {"variant": "grouped", "width": 48, "groups": 8},
    {"spectral": 0.5, "width": 48},
]


def operator_norm(f, shape) -> float:
    """Largest singular value of a linear map of maps (C, H, W), from its matrix, in float64."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        return float(torch.linalg.matrix_norm(f(basis).flatten(1), 2))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.floats(-8, 8), st.integers(0, 2**31))
def test_the_bound_is_above_the_norm_and_near_it(groups, rows, columns, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(groups, rows, columns, generator=generator, dtype=torch.float64) * 10**scale
    exact = float(torch.linalg.matrix_norm(matrices, 2).max())
    assert exact * (1 - 1e-12) <= float(norm_bound(matrices)) <= exact * 20 ** (1 / 2**7) * (1 + 1e-9)
    single = float(norm_bound(matrices.float()))
    assert exact * (1 - 1e-5) <= single <= exact * 20 ** (1 / 2**7) * (1 + 1e-5)
    assert float(norm_bound(0 * matrices)) == pytest.approx(0, abs=1e-100)


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (4, 4)])
@pytest.mark.parametrize("scale", [0.01, 50.0])
def test_constrained_convolutions_do_not_expand(size, scale):
    torch.manual_seed(0)
    for made in (Conv1x1(6, 4, 1), Conv1x1(6, 4, 2), Conv3x3(6, 6, 1), Conv3x3(6, 6, 3)):
        with torch.no_grad():
            made.weight.mul_(scale)
        made = made.double()
        before = operator_norm(made, (6, *size))
        parametrize.register_parametrization(made, "weight", AtMostOne(made.groups))
        after = operator_norm(made, (6, *size))
        assert after <= 1
        if scale < 1:
            assert after == pytest.approx(before, rel=1e-12)  # what does not expand is left as it is


def test_a_block_under_the_constraint_is_bi_lipschitz():
    torch.manual_seed(1)
    block = LiftBlock(16, 8, 2, 0.5).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(30).add_(0.1)
        x, y = torch.randn(2, 200, 16, 4, 4, dtype=torch.float64)
        gap, ratio = (x - y).flatten(1).norm(dim=1), (block(x) - block(y)).flatten(1).norm(dim=1)
    assert (ratio >= 0.5 * gap).all() and (ratio <= 1.5 * gap).all()
    x = x[:1].flatten()
    jacobian = torch.autograd.functional.jacobian(lambda v: block(v.reshape(1, 16, 4, 4)).flatten(), x)
    assert float(torch.linalg.matrix_norm(jacobian - torch.eye(len(x), dtype=torch.float64), 2)) <= 0.5


@pytest.mark.parametrize("options", VARIANTS[-2:], ids=str)
def test_the_contract_of_models(options):
    assert not failures(check_model(isolift(**options)))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_equal_states_from_the_image_on(options):
    model = isolift(**options)
    assert model.num_blocks == 16 == sum(DEPTHS[16])
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        state = model.initial_state(images)
        gaps = [(a[0] - a[1]).norm() for a in (images, state)]
        assert gaps[0] == pytest.approx(float(gaps[1]), rel=1e-6)  # h_0 is the image
        for t in range(16):
            state = model.block(t, state)
            assert state[0].numel() == 64 * options.get("width", 64)


def test_without_branches_every_distance_stays():
    model = isolift(width=48, depth=33)
    assert model.num_blocks == 33
    with torch.no_grad():
        for block in model.module.blocks:
            block.norm3.weight.zero_()
        state = model.initial_state(torch.rand(2, 3, 32, 32))
        first = state
        for t in range(33):
            state = model.block(t, state)
    assert torch.equal(state, first)


def test_weights_come_back_and_other_options_are_refused(tmp_path):
    from stabilitykit.training.checkpoints import save_weights

    model = isolift(width=48, spectral=0.9, seed=3)
    path = tmp_path / "net.safetensors"
    save_weights(path, model.module.state_dict(), {"model": dict(model.describe())})
    again = isolift(width=48, spectral=0.9, checkpoint=str(path))
    assert again.fingerprint() == model.fingerprint()
    assert isolift(width=48, spectral=0.5, seed=3).fingerprint() != model.fingerprint()
    with pytest.raises(UsageProblem, match=r"was not trained as isolift with spectral=0\.5"):
        isolift(width=48, spectral=0.5, checkpoint=str(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"width": 32}, "at least 48"), ({"variant": "grouped", "width": 50}, "do not split into 32")],
)
def test_options_that_fit_no_network_are_refused(options, words):
    with pytest.raises(UsageProblem, match=words):
        isolift(**options)
