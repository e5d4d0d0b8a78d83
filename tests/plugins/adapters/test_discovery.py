"""Runs are found in networks that nobody prepared, whatever the style; what is none is named."""

import pytest
import torch
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.program import template
from stabilitykit_adapters.runs import REASONS
from stabilitykit_adapters.tracing import TraceProblem
from stabilitykit_timm.names import input_shape_of, skeleton
from torch import nn

from tests.plugins.adapters.nets import NETS, Branches, Growing, Modular, Momentum, make


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_finds_the_run(kind):
    expected = NETS[kind]
    run = discover(make(kind), expected.input_shape).runs[0]
    assert (run.mode, run.depth, run.shape) == (expected.mode, expected.depth, expected.shape)
    assert run.kinds == {expected.kind: expected.depth}
    assert 1.0 <= run.cost <= 1.0 + run.depth


def test_leaves_the_module_as_it_was():
    net = make(Modular)
    net.blocks[1].eval()
    net.stem.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    discover(net, (3, 12, 12))
    assert net.training and not net.blocks[1].training and net.blocks[0].training
    assert not net.stem.weight.requires_grad and net.stem.bias.requires_grad
    assert all("forward" not in m.__dict__ and "_call_impl" not in m.__dict__ for m in net.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "run", "depth", "kind", "cost"),
    [
        ("timm:vit_tiny_patch16_224", "blocks", 12, "identity", 1.1),
        ("timm:resnet50", "layer3", 5, "activated", 2.5),
        ("timm:convnext_tiny", "stages.2.blocks", 9, "identity", 2.6),
        ("timm:mixer_b16_224", "blocks", 12, "identity", 1.1),
        ("timm:swin_tiny_patch4_window7_224", "layers.2.blocks", 6, "identity", 2.5),
        ("timm:efficientnet_b0", "blocks.5", 3, "identity", 2.0),
        ("torchvision:resnet50", "layer3", 5, "activated", 2.5),
    ],
)
def test_known_networks_without_weights(name, run, depth, kind, cost):
    module = skeleton(name)
    assert all(p.device.type == "meta" for p in module.parameters())
    found = discover(module, input_shape_of(module))
    first = found.runs[0]
    assert (first.name, first.mode, first.depth, first.kinds) == (run, "closed", depth, {kind: depth})
    assert first.cost <= cost


def test_batchnorm_free_coverage_of_side_states():
    """Cross-stage nets carry half of the channels past their blocks: open, with the side state named."""
    found = discover(skeleton("timm:cspdarknet53"), (3, 256, 256))
    assert not found.of_mode("closed") and found.of_mode("open")
    assert found.reasons[0].code == "side state"
    assert all(run.side_shapes for run in found.of_mode("open"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("timm:densenet121", "concatenation growth"),
        ("timm:rexnet_100", "changing widths"),
        ("timm:resnet10t", "one block per stage"),
        ("timm:vgg11", "no skip"),
    ],
)
def test_names_the_reason(name, code):
    module = skeleton(name)
    found = discover(module, input_shape_of(module))
    assert not found.of_mode("closed")
    assert code in {reason.code for reason in found.reasons}
    assert all(reason.code in REASONS and str(reason) for reason in found.reasons)


def test_growth_is_named_and_no_run_invented():
    found = discover(make(Growing), (3, 8, 8))
    assert found.runs == []
    assert found.reasons[0].code == "concatenation growth"


def test_a_forward_that_fails_says_so():
    with pytest.raises(TraceProblem, match=r"inputs of shape \(B, 1, 8, 8\)"):
        discover(make(Modular), (1, 8, 8))


def test_a_forward_that_cuts_its_input_off_says_so():
    class Detached(Modular):
        def forward(self, x):
            return super().forward(x.detach())

    with pytest.raises(TraceProblem, match="detach"):
        discover(make(Detached), (3, 12, 12))


def test_falls_back_to_the_real_device():
    class OnCpu(Modular):
        def forward(self, x):
            return super().forward(x) + torch.zeros(5, device="cpu") * float(self.head.bias[0])

    found = discover(make(OnCpu), (3, 12, 12))
    assert found.runs[0].depth == 3 and found.program.device == "cpu" and "meta" in found.notes[0]


def test_sizes_follow_the_batch():
    shape = template((2, 8, 14), (3, 8, 14))
    assert shape.at(7) == (7, 8, 14) and shape.batch_axis == 0 and shape.per_image == (8, 14)
    windows = template((8, 49), (12, 49))
    assert windows.at(5) == (20, 49) and windows.per_image == (4, 49)
    assert template((16, 2, 5), (16, 3, 5)).batch_axis == 1
    assert template((3, 8), (4, 8)).per_image is None, "one row more than images: they cannot be told apart"


def test_identity_blocks_are_no_blocks():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Identity(), nn.Identity(), nn.Flatten(), nn.Linear(400, 3))
    assert discover(net, (3, 12, 12)).runs == []


@pytest.mark.parametrize(("kind", "told"), [(Momentum, "side state"), (Branches, "side state")])
def test_what_only_looks_like_blocks(kind, told):
    found = discover(make(kind), (20,))
    assert found.runs == [] and {reason.code for reason in found.reasons} <= {told, "changing side state"}
