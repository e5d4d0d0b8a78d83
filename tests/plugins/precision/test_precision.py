"""The property ``precision`` against the whole network cast by hand, torch's own quantisation, and plain loops."""

import copy
import sys

import numpy as np
import pytest
import torch
from stabilitykit_precision.decisions import logits_in
from stabilitykit_precision.integers import IntegerNetwork, IntegerScheme
from stabilitykit_precision.layers import quantisable
from stabilitykit_precision.property import Precision
from stabilitykit_precision.rounding import rounded_input, rounded_weight
from torch import nn

import stabilitykit
from stabilitykit import UsageProblem
from stabilitykit.base.errors import CellProblem
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context

CHECKPOINT = "cifar10_resnet20.th"


def evaluated(model, prop, count=60):
    data = TinyDataset(seed=0, count=count)
    run = stabilitykit.evaluate(model, data, prop, batch_size=16, device="cpu", cache=False)
    return run["precision"]


@pytest.mark.parametrize("format, dtype, seed", [("bf16", torch.bfloat16, 20), ("fp16", torch.float16, 25)])
def test_the_whole_network_is_the_one_cast_by_hand(format, dtype, seed):
    model, data = TinyModel(seed=seed), TinyDataset(seed=0, count=60)  # of 40 seeds, these have a decision that flips
    found = evaluated(model, Precision(formats=format))
    twin = copy.deepcopy(model)
    twin.module.to(dtype)
    changed = []
    with torch.inference_mode():
        for first in range(0, 60, 16):
            rows = list(range(first, min(first + 16, 60)))
            inputs = model.preprocess(data.images(rows))
            before, after = model.logits(inputs).argmax(1), twin.logits(inputs.to(dtype)).float().argmax(1)
            changed += [row for row, a, b in zip(rows, before, after) if a != b]
    assert [row[1] for row in found.tables["flips"].rows] == changed
    assert found[f"flips.{format}"].value == len(changed) / 60
    assert list(found.per_image[f"flips.{format}"]) == [row in changed for row in range(60)]


@pytest.mark.parametrize("format", ["bf16", "int8-weights", "int8"])
def test_each_part_alone_is_that_part_converted_and_nothing_else(format):
    model, data = TinyModel(seed=3), TinyDataset(seed=0, count=16)
    found = evaluated(model, Precision(formats=format, samples=0, ranges="dynamic"), count=16)
    parts = found.tables["parts"]
    assert [row[2] for row in parts.rows] == ["stem", *model.block_names, "head"]
    inputs = model.preprocess(data.images(list(range(16))))
    twin = copy.deepcopy(model)
    if format == "bf16":
        twin.module.to(torch.bfloat16)
    else:
        IntegerNetwork(twin.module, IntegerScheme(inputs=format == "int8", static=False))
    low = torch.bfloat16 if format == "bf16" else torch.float32

    def run(alone):
        own = twin if alone == 0 else model
        state = own.initial_state(inputs.to(low) if alone == 0 else inputs).float()
        for t in range(model.num_blocks):
            state = twin.block(t, state.to(low)).float() if alone == t + 1 else model.block(t, state)
        last = alone == model.num_blocks + 1
        return (twin.readout(state.to(low)) if last else model.readout(state)).float().numpy()

    with torch.inference_mode():
        clean = run(None)
        for number, row in enumerate(parts.rows):
            other = run(number)
            assert row[3] == int((other.argmax(1) != clean.argmax(1)).sum())
            assert row[5] == pytest.approx(np.abs(other.astype(np.float64) - clean).mean(), rel=1e-6)


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_rounded_as_torch_rounds_them(per_channel):
    from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-3], [1], [30], [0], [2]])
    if per_channel:
        seen = PerChannelMinMaxObserver(ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
        seen(weight)
        scale, zero = seen.calculate_qparams()
        theirs = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
    else:
        seen = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
        seen(weight)
        scale, zero = seen.calculate_qparams()
        theirs = torch.quantize_per_tensor(weight, float(scale), int(zero), torch.qint8)
    assert torch.equal(rounded_weight(weight, per_channel), theirs.dequantize())


@pytest.mark.parametrize("low, high", [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_inputs_are_rounded_as_torch_rounds_them(low, high):
    from torch.ao.quantization import MinMaxObserver

    values = torch.linspace(low, high, 37)
    seen = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    seen(values)
    scale, zero = seen.calculate_qparams()
    theirs = torch.quantize_per_tensor(values, float(scale), int(zero), torch.quint8).dequantize()
    ours = rounded_input(values, torch.tensor([low]), torch.tensor([high]))
    assert torch.equal(ours, theirs)


def test_a_small_network_is_that_of_torchs_own_quantisation():
    """Static int8 by torch (FBGEMM), where its output of the last layer is rounded once more: within that step."""
    from torch.ao import quantization as torchs

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 6, generator=generator)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    theirs = nn.Sequential(torchs.QuantStub(), *copy.deepcopy(net), torchs.DeQuantStub()).eval()
    theirs.qconfig = torchs.QConfig(
        activation=torchs.MinMaxObserver.with_args(dtype=torch.quint8, qscheme=torch.per_tensor_affine),
        weight=torchs.PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric),
    )
    torchs.prepare(theirs, inplace=True)
    theirs(images)
    torchs.convert(theirs, inplace=True)
    ours = copy.deepcopy(net)
    integers = IntegerNetwork(ours, IntegerScheme(inputs=True))
    with torch.no_grad():
        ours(images)
        integers.calibrated()
        a, b, plain = ours(images), theirs(images), net(images)
    # Torch rounds what a layer gives, we what the next one takes: a step of either, through the weights behind it.
    step = float(theirs[3].scale) + float(theirs[1].scale) * float(net[2].weight.abs().sum(dim=1).max())
    assert 0 < float((a - b).abs().max()) <= step and float((a - plain).abs().max()) > 0
    sure = (plain.topk(2).values[:, 0] - plain.topk(2).values[:, 1]) > 2 * step
    assert torch.equal(a.argmax(1)[sure], b.argmax(1)[sure])


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 3, 2)
        self.raw = nn.Parameter(torch.randn(4, 3))
        self.plain = nn.Linear(3, 4)
        self.table = nn.Embedding(5, 4)
        self.recurrent = nn.LSTM(4, 4)
        self.cell = nn.GRUCell(4, 4)
        self.twice = nn.Bilinear(2, 2, 2)
        self.attend = nn.MultiheadAttention(4, 2, kdim=3, vdim=3, add_bias_kv=True)


def test_layers_without_a_rule_are_named():
    layers, left = quantisable(Odd())
    assert {layer.name: layer.weights for layer in layers} == {
        "plain": ("weight",),
        "attend": ("q_proj_weight", "k_proj_weight", "v_proj_weight"),
        "attend.out_proj": ("weight",),
    }
    assert {(part.name, part.kind, part.what) for part in left} == {
        ("up", "ConvTranspose2d", "weight"),
        ("the network itself", "Odd", "raw"),
        ("table", "Embedding", "weight"),
        ("recurrent", "LSTM", "weight_ih_l0, weight_hh_l0"),
        ("cell", "GRUCell", "weight_ih, weight_hh"),
        ("twice", "Bilinear", "weight"),
        ("attend", "MultiheadAttention", "bias_k, bias_v"),
    }
    with pytest.raises(CellProblem, match=r"no layer of the network has a rule for int8 .*ConvTranspose2d"):
        IntegerNetwork(nn.Sequential(nn.ConvTranspose2d(3, 3, 2)), IntegerScheme())


def test_unknown_formats_are_refused():
    with pytest.raises(UsageProblem, match=r"unknown 'bf61' \(did you mean bf16"):
        Precision(formats="bf61")


def test_a_witness_that_keeps_its_decision_is_found():
    from stabilitykit.evaluation.rerun import Rerun

    context = tiny_context(batch_size=24)
    context.rerun = Rerun()
    result = Precision(formats="bf16", samples=0).evaluate(context)
    (flips,) = [m for m in result.measurements if m.name == "flips.bf16"]
    row = int(np.flatnonzero(~np.array(result.per_image["flips.bf16"]))[0])
    lying = {**context.describe_images([int(context.indices[row])]), "was": "class0", "became": "class1"}
    object.__setattr__(flips, "witness", lying)
    assert "is decided as" in str(Precision(formats="bf16").verify(context, result)["flips.bf16"])


def test_a_witness_runs_in_the_batch_it_was_measured_in_and_another_machine_says_nothing(monkeypatch):
    from stabilitykit_precision import property as module

    from stabilitykit.evaluation.rerun import Rerun

    context = tiny_context(TinyModel(seed=20), TinyDataset(seed=0, count=60), batch_size=16)
    prop = Precision(formats="bf16", samples=0)
    result = prop.evaluate(context)
    (index,) = result["flips.bf16"].witness["indices"]
    ran = []
    monkeypatch.setattr(module, "logits_in", lambda *given: ran.append(given[2].tolist()) or logits_in(*given))
    context.rerun = Rerun(packed=True, filled=False, tolerance=(1e-3, 1e-6))  # a recheck of a few images
    assert prop.verify(context, result) == {} and ran == []
    context.rerun = Rerun()
    assert prop.verify(context, result) == {}
    assert ran == [[row for row in range(60) if row // 16 == index // 16]]
    result["flips.bf16"].witness["became"] = "class0 or so"
    assert "flips.bf16" in prop.verify(context, result)
    context.rerun = Rerun(tolerance=(1e-3, 1e-6))  # of another machine
    assert prop.verify(context, result) == {}


def test_an_outside_network_equals_casting_it_by_hand(shared_data, monkeypatch):
    """cifar10_resnet20.th, the whole network through its course, on 320 images."""
    from pathlib import Path

    from stabilitykit.plugins.registry import Registry

    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))
    registry = Registry.load()
    spec = registry.resolve(
        "model",
        "module:outside_checkpoint:build,input=3x32x32,normalise=imagenet,checkpoint="
        + str(shared_data / "checkpoints" / CHECKPOINT),
    )
    model = spec.component.load()(**spec.options)
    spec = registry.resolve("dataset", f"npz:{shared_data / 'cifar10' / 'test.npz'}")
    images = spec.component.load()(**spec.options)
    context = tiny_context(model, images, limit=320, batch_size=320)
    indices = context.indices
    result = Precision(formats="bf16", samples=1).evaluate(context)
    inputs = model.preprocess(images.images(indices.tolist()))
    net = copy.deepcopy(model.module).eval()
    with torch.inference_mode():
        before, after = net(inputs).argmax(1), net.to(torch.bfloat16)(inputs.to(torch.bfloat16)).float().argmax(1)
    changed = indices[(before != after).numpy()].tolist()
    assert changed
    assert [row[1] for row in result.tables["flips"].rows] == changed
    assert result["accuracy.bf16"].value == float((after.numpy() == np.asarray(images.labels)[indices]).mean())
    assert len(result.tables["parts"].rows) == model.num_blocks + 2 == 11
    sys.modules.pop("outside_checkpoint", None)
