"""What int8 rounds and what it leaves in float: attention, shared weights, layers whose weights others use."""

import copy

import pytest
import torch
from stabilitykit_precision.integers import IntegerNetwork, IntegerScheme
from stabilitykit_precision.property import Precision
from stabilitykit_precision.rounding import rounded_input, rounded_weight
from torch import nn

from stabilitykit.testing.fixtures import TinyModel, tiny_context


def test_attention_rounds_what_it_projects_and_names_what_it_hides():
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    tokens = torch.randn(3, 5, 8)
    net = copy.deepcopy(plain)
    integers = IntegerNetwork(net, IntegerScheme(inputs=True))
    with torch.no_grad():
        net(tokens, tokens, tokens)
        integers.calibrated()
        found = net(tokens, tokens, tokens)[0]
        by_hand = copy.deepcopy(plain)
        for weight in (by_hand.in_proj_weight, by_hand.out_proj.weight):
            weight.copy_(rounded_weight(weight, True))
        rounded = rounded_input(tokens, tokens.min().reshape(1), tokens.max().reshape(1))
        expected = by_hand(rounded, rounded, rounded)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, plain(tokens, tokens, tokens)[0], atol=1e-5)
    assert [(part.name, part.what) for part in integers.in_float()] == [("out_proj", "inputs")]


def test_a_weight_that_two_layers_share_is_rounded_once():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    before = first.weight.detach().clone()
    IntegerNetwork(nn.Sequential(first, second), IntegerScheme())
    assert torch.equal(first.weight, rounded_weight(before, True))
    assert not torch.equal(first.weight, rounded_weight(first.weight, True))  # twice would be another weight


@pytest.mark.parametrize("normed", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_computed_stay_in_float_and_are_named(normed):
    integers = IntegerNetwork(nn.Sequential(normed(nn.Linear(4, 4)), nn.Linear(4, 2)), IntegerScheme())
    assert [layer.name for layer in integers.layers] == ["1"]
    assert {part.name.partition(".")[0] for part in integers.left} == {"0"}


def test_every_module_left_in_float_stands_in_the_table():
    model = TinyModel()
    model.module["tables"] = nn.ModuleList(nn.Embedding(2, 2) for _ in range(12))
    result = Precision("int8-weights").evaluate(tiny_context(model))
    rows = result.tables["left_in_float"].rows
    assert [row[:4] for row in rows] == [["int8-weights", f"tables.{k}", "Embedding", "weight"] for k in range(12)]
    assert any("Embedding tables.9 (weight: no rule) and 2 more" in note for note in result.notes)
    assert "left_in_float" not in Precision("bf16").evaluate(tiny_context(model)).tables
