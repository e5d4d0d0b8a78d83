"""The revised ResNets against the paper's parameter counts and a plain re-implementation."""

from __future__ import annotations

import pytest
import torch
from stabilitykit_resnets.convolutions import Conv1x1, Conv3x3
from stabilitykit_resnets.model import build, resnet18, resnet50
from stabilitykit_resnets.network import GRIDS
from torch import nn
from torch.nn import functional as F

from stabilitykit import StabilityKitError
from stabilitykit.testing import check_model, failures

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def plain_forward(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """States as maps of their stage, written down from mathematics section 2 with slices and full convolutions."""
    x = network.stem(images)
    states, channels = [x], x.shape[1]
    blocks = iter(network.blocks)
    depths = [sum(len(g) == stage for g in network.grids) for stage in (1, 2, 3, 4)]
    for (rows, columns), depth in zip(GRIDS, depths):
        height, width = x.shape[2] // rows, x.shape[3] // columns
        x = torch.cat(
            [
                x[:, :, r * height : (r + 1) * height, c * width : (c + 1) * width]
                for r in range(rows)
                for c in range(columns)
            ],
            dim=1,
        )
        channels *= rows * columns
        for _ in range(depth):
            b = next(blocks)
            out = F.relu(b.bn1(F.conv2d(x, b.conv1.weight, groups=b.conv1.groups)))
            out = F.relu(b.bn2(F.conv2d(out, b.conv2.weight, padding=1, groups=b.conv2.groups)))
            out = x + b.bn3(F.conv2d(out, b.conv3.weight, groups=b.conv3.groups))
            x = F.relu(out) if b.final_relu else out
            states.append(x)
    return states


@pytest.mark.parametrize(
    ("make", "name", "parameters"), [(resnet18, "resnet18", 6_253_386), (resnet50, "resnet50", 15_815_242)]
)
def test_parameters_and_states_of_the_paper(make, name: str, parameters: int) -> None:
    model = make(depths=DEPTHS[name])
    assert sum(p.numel() for p in model.module.parameters()) == parameters
    assert model.num_blocks == sum(DEPTHS[name])
    state = model.initial_state(torch.rand(2, 3, 32, 32))
    for t in range(model.num_blocks):
        assert state[0].numel() == 4096
        state = model.block(t, state)
    assert state[0].numel() == 4096


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grouping": "all"},
        {"final_relu": False},
        {"stem": "patch", "width": 48, "depths": (1, 2, 1, 3)},
        {"width": 4, "num_classes": 3},
        {"stem": "patch", "width": 64, "final_relu": False, "depths": (1, 1, 1, 1)},
    ],
)
def test_blocks_follow_the_definition(options: dict) -> None:
    model = build("resnet18", **{"width": 8, "depths": (2, 2, 2, 2), **options}, seed=3)
    model.module.double()
    for buffer in model.module.modules():
        if isinstance(buffer, nn.BatchNorm2d):  # other statistics than 0 and 1, or their use would not show
            buffer.running_mean.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
            buffer.running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(2))
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected = plain_forward(model.module, images)
        state = model.initial_state(images)
        for t in range(model.num_blocks + 1):
            assert torch.allclose(state.flatten(1).sort().values, expected[t].flatten(1).sort().values, atol=1e-12)
            if t < model.num_blocks:
                state = model.block(t, state)
        assert torch.equal(model.readout(state), model.logits(images))


@pytest.mark.parametrize("options", [{}, {"stem": "patch", "width": 48}, {"final_relu": False, "grouping": "all"}])
def test_contract(options: dict) -> None:
    model = build("resnet18", **{"width": 8, "depths": (2, 1, 1, 2), **options})
    assert not failures(check_model(model))
    assert model.certify(model.preprocess([torch.rand(3, 32, 32).numpy() for _ in range(5)]))["bit_exact"]


def test_pure_variant_is_x_plus_f() -> None:
    model = build("resnet18", width=8, depths=(1, 1, 1, 1), final_relu=False)
    state = torch.randn(2, 8, 8, 8)
    with torch.inference_mode():
        for t in range(model.num_blocks):
            nn.init.zeros_(model.module.blocks[t].bn3.weight)
            nn.init.zeros_(model.module.blocks[t].bn3.bias)
            assert torch.equal(model.block(t, state), state)  # f = 0 leaves the identity, negative parts too


def test_relu_after_the_addition() -> None:
    model = build("resnet18", width=8, depths=(1, 1, 1, 1))
    assert bool((model.block(0, torch.randn(2, 8, 8, 8)) >= 0).all())


def test_patch_stem_is_an_isometry() -> None:
    model = build("resnet18", stem="patch", depths=(1, 1, 1, 1))
    a, b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    gap = (model.initial_state(a) - model.initial_state(b)).flatten(1).norm(dim=1)
    assert torch.allclose(gap, (a - b).flatten(1).norm(dim=1), rtol=1e-5)
    assert model.initial_state(a)[0].numel() == 4096


def test_groups_work_on_tiles_of_their_own() -> None:
    """In the first block of stage 1 (groups = tiles) a change in one tile stays in that tile."""
    model = build("resnet18", width=8, depths=(1, 1, 1, 1))
    a = torch.rand(1, 8, 8, 8)
    b = a.clone()
    b[:, :, :4, :4] += 1
    changed = (model.block(0, a) != model.block(0, b)).any(dim=1)[0]
    assert bool(changed[:4, :4].any()) and not bool(changed[4:].any()) and not bool(changed[:, 4:].any())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 2), (4, 4)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_convolutions_equal_torch_on_every_map(height: int, width: int, groups: int, size: int) -> None:
    conv: nn.Conv2d = Conv3x3(4, 8, groups) if size == 3 else Conv1x1(4, 8, groups)
    conv = conv.double()
    x = torch.randn(2, 4, height, width, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    full = F.conv2d(y, conv.weight, padding=size // 2, groups=groups)
    ours = conv(x)
    assert torch.allclose(ours, full, atol=1e-14)
    ours.square().sum().backward()
    first, conv.weight.grad = conv.weight.grad, None
    full.square().sum().backward()
    assert torch.allclose(first, conv.weight.grad, atol=1e-12)
    assert torch.allclose(x.grad, y.grad, atol=1e-12)


def test_seed_decides_the_untrained_weights() -> None:
    first, same, other = (build("resnet18", width=8, depths=(1, 1, 1, 1), seed=s) for s in (1, 1, 2))
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()
    relu = build("resnet18", width=8, depths=(1, 1, 1, 1), seed=1, final_relu=False)
    assert relu.fingerprint() != first.fingerprint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depths": (2, 2, 2)}, "4 stages"),
        ({"depths": (2, 0, 2, 2)}, "at least 1"),
        ({"width": 10}, "multiple of 4"),
        ({"stem": "patch", "width": 32}, "at least 48"),
    ],
)
def test_impossible_options(options: dict, words: str) -> None:
    with pytest.raises(StabilityKitError, match=words):
        build("resnet18", **{"depths": (1, 1, 1, 1), **options})


def test_other_image_sizes_are_refused() -> None:
    model = build("resnet18", width=4, depths=(1, 1, 1, 1))
    with pytest.raises(StabilityKitError, match="3x32x32, got 1x28x28"):
        model.preprocess([torch.rand(1, 28, 28).numpy()])
