"""Names of modules as exporters write them; needs no package."""

from __future__ import annotations

import pytest
from stabilitykit_onnx.scopes import common, scope_of


@pytest.mark.parametrize(
    "name, scope",
    [
        ("/layer1/layer1.0/conv1/Conv", ("layer1", "0", "conv1")),
        ("/encoder/layer.3/attention/MatMul_1", ("encoder", "layer", "3", "attention")),
        ("/features/features.0/features.0.1/Relu", ("features", "0", "1")),
        ("Conv_12", ()),
        ("", ()),
    ],
)
def test_paths_of_the_torchscript_exporter(name, scope):
    assert scope_of(name, {}) == (scope, ())


def test_metadata_of_the_newer_exporter():
    metadata = {
        "pkg.torch.onnx.name_scopes": "['', 'layer1', 'layer1.0', 'layer1.0.bn1', 'getitem']",
        "pkg.torch.onnx.class_hierarchy": "['a.Net', 'torch.Sequential', 'a.Block', 'torch.BatchNorm2d', 'aten.x']",
    }
    assert scope_of("node_1", metadata) == (
        ("layer1", "0", "bn1"),
        ("torch.Sequential", "a.Block", "torch.BatchNorm2d"),
    )


@pytest.mark.parametrize("text", ["", "no list", "[1, 2]", "['", "__import__('os').abort()", "[" * 500])
def test_strange_metadata_says_nothing(text):
    assert scope_of("a/b", {"pkg.torch.onnx.name_scopes": text}) == (("a",), ())


def test_common_modules():
    assert common(("a", "b", "c"), ("a", "b", "d")) == ("a", "b")
    assert common((), ("a",)) == ()
