"""Converted networks: every state of equal size, nothing dropped silently, trainable."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stabilitykit_adapters.equivalence import certify, randomise
from stabilitykit_timm.convert import convert, converted_model
from stabilitykit_timm.patching import Patching

from stabilitykit import UsageProblem


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    channels=st.integers(1, 4),
    kind=st.sampled_from(["tiles", "phases"]),
)
def test_patching_permutes_coordinates(rows, columns, height, width, channels, kind):
    x = (
        torch.arange(2 * channels * rows * height * columns * width)
        .reshape(2, channels, rows * height, columns * width)
        .double()
    )
    y = Patching(rows, columns, kind)(x)
    assert y.shape == (2, rows * columns * channels, height, width)
    assert torch.equal(y.flatten(1).sort().values, x.flatten(1).sort().values)


def test_tiles_are_contiguous_and_phases_are_torchs():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert Patching(2, 2, "tiles")(x)[0, 0].tolist() == [[0, 1], [4, 5]]
    ours = Patching(2, 2, "phases")(x)
    assert torch.equal(ours, torch.nn.functional.pixel_unshuffle(x, 2))


@pytest.mark.parametrize(
    ("name", "depth", "options"),
    [
        ("resnet18", 8, {"width": 8}),
        ("torchvision:resnet18", 8, {"width": 8, "patch": "phases"}),
        ("resnet50", 16, {"width": 16}),
        ("resnext50_32x4d", 16, {}),
        ("wide_resnet50_2", 16, {"width": 16}),
        ("convnext_atto", 12, {"width": 8}),
    ],
)
def test_all_blocks_join_into_one_exact_run(name, depth, options):
    model = converted_model(name, num_classes=4, **options)
    randomise(model.module)
    report = certify(model, torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), thorough=False)
    assert report["bit_exact"] and report["vacuous"] == [] and model.num_blocks == depth
    with torch.inference_mode():
        sizes = {state.flatten(1).shape[1] for state in model.hooked_states(torch.rand(2, 3, 32, 32))}
    assert sizes == {model.module.state_size}


def test_groups_follow_the_pieces():
    """As in the paper: 2 x 2 pieces before stage 1, then 2 x 1 and 1 x 2 in turn on small maps; groups 4 8 16 32."""
    net = convert("resnet50")
    groups = [stage[-1].conv2.groups for stage in net.stages]
    channels = [stage[-1].conv3.out_channels for stage in net.stages]
    assert groups == [4, 8, 16, 32] and channels == [256, 512, 1024, 2048]
    large = convert("resnet18", input_shape=(3, 64, 64))
    assert [stage[-1].conv1.groups for stage in large.stages] == [1, 4, 16, 64]
    # Four times the channels in four times the groups: as many weights as the original's block.
    assert large.stages[3][-1].conv1.weight.numel() == 512 * 512 * 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("seresnet50", "SEModule"),
        ("ecaresnet26t", "Eca"),
        ("resnetblur50", "BlurPool2d"),
        ("convnextv2_atto", "Norm"),
        ("vit_tiny_patch16_224", "VisionTransformer"),
        ("res2net50_14w_8s", "Bottle2neck"),
        ("densenet121", "DenseNet"),
    ],
)
def test_refuses_what_would_be_dropped(name, message):
    with pytest.raises(UsageProblem, match=message):
        convert(name)


def test_maps_too_small_are_refused():
    with pytest.raises(UsageProblem, match="cannot be cut"):
        convert("resnet18", input_shape=(3, 8, 8))


def test_trains():
    model = converted_model("resnet18", num_classes=3, width=8)
    net = model.module.train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 3
    images = torch.rand(24, 3, 32, 32, generator=generator) * 0.2 + labels[:, None, None, None] * 0.3
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(model.logits(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert net.training, "the forward pass must not switch the mode"


def test_a_checkpoint_comes_back_exactly(tmp_path):
    from stabilitykit.training.checkpoints import save_weights

    model = converted_model("resnet18", num_classes=3, width=8, seed=5)
    save_weights(tmp_path / "c.safetensors", model.module.state_dict(), {"model": dict(model.describe())})
    again = converted_model("resnet18", width=8, checkpoint=str(tmp_path / "c.safetensors"))
    assert again.num_classes == 3
    assert all(torch.equal(a, b) for a, b in zip(model.module.parameters(), again.module.parameters()))
    with pytest.raises(UsageProblem, match="was trained as"):
        converted_model("resnet18", width=8, patch="phases", checkpoint=str(tmp_path / "c.safetensors"))
