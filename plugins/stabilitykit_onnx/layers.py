"""Operators whose weights are constants, as the layers of torch.nn that compute them.

What measures a network looks for those layers: certified bounds of a classifier, rounding weights to int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from stabilitykit_onnx.reading import Node

LINEAR = "MatMul+Add"
"""A product with a constant matrix and the addition of a constant vector: one operation, as it was one layer."""

Held = Callable[[str, str], nn.Parameter]
"""(name of a constant, "" or "t" for transposed) -> the parameter that holds it, the same one each time."""


def layer(node: Node, constants: Mapping[str, torch.Tensor], held: Held) -> nn.Module | None:
    """The layer that is ``node`` applied to its first input; None where there is none, or a weight is computed.

    Arguments:
        constants: name -> tensor of what does not depend on the images.
        held: where parameters come from.
    """
    if node.attributes.outputs > 1 or any(name not in constants for name in node.inputs[1:] if name):
        return None
    make = _WITH_WEIGHTS.get(node.attributes.op)
    if make is not None:
        return make(node, constants, held)
    plain = _PLAIN.get(node.attributes.op)
    return None if plain is None or len(node.inputs) > 1 else plain(node)


def _given(node: Node, position: int) -> str:
    return node.inputs[position] if len(node.inputs) > position else ""


def _conv(node: Node, constants: Mapping[str, torch.Tensor], held: Held) -> nn.Module | None:
    attributes, weight = node.attributes, constants[node.inputs[1]]
    rank = weight.ndim - 2
    pads = attributes.get("pads") or [0] * 2 * rank
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or rank not in (1, 2, 3):
        return None
    if attributes.get("auto_pad") == "VALID":
        pads = [0] * 2 * rank
    even = pads[:rank] == pads[rank:]
    groups = attributes.get("group", 1)
    kind: type[nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    made = kind(  # type: ignore[call-arg]
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        tuple(attributes.get("strides") or [1] * rank),
        tuple(pads[:rank]) if even else 0,
        tuple(attributes.get("dilations") or [1] * rank),
        groups,
        bool(_given(node, 2)),
        device="meta",
    )
    _hold(made, node, held)
    if even:
        return made
    flat = [side for n in reversed(range(rank)) for side in (pads[n], pads[n + rank])]
    pad: Any = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[rank - 1]
    return nn.Sequential(pad(tuple(flat), 0.0), made)


def _linear(node: Node, constants: Mapping[str, torch.Tensor], held: Held) -> nn.Module | None:
    """x W (+ b) with a matrix W; Gemm where it is no more than that."""
    attributes, weight, bias = node.attributes, constants[node.inputs[1]], _given(node, 2)
    if weight.ndim != 2 or attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0:
        return None
    turned = bool(attributes.get("transB", 0))
    outputs, inputs = weight.shape if turned else weight.shape[::-1]
    if bias and (attributes.get("beta", 1.0) != 1.0 or tuple(constants[bias].shape) != (outputs,)):
        return None
    made = nn.Linear(inputs, outputs, bool(bias), device="meta")
    made.weight = held(node.inputs[1], "" if turned else "t")
    if bias:
        made.bias = held(bias, "")
    return made


def _batch_norm(node: Node, constants: Mapping[str, torch.Tensor], held: Held) -> nn.Module | None:
    if node.attributes.get("training_mode", 0):
        return None
    size = constants[node.inputs[1]].shape[0]
    made = nn.BatchNorm2d(size, node.attributes.get("epsilon", 1e-5), device="meta")
    _hold(made, node, held)
    made.running_mean, made.running_var = (constants[node.inputs[n]].clone() for n in (3, 4))
    made.num_batches_tracked = torch.tensor(0)
    return _AnyRank(made)


class _AnyRank(nn.BatchNorm2d):
    """Batch normalisation of (B, C, ...) with any number of axes behind the channels."""

    def __init__(self, other: nn.BatchNorm2d) -> None:
        nn.Module.__init__(self)
        self.__dict__ |= other.__dict__

    def _check_input_dim(self, input: torch.Tensor) -> None:
        pass


def _layer_norm(node: Node, constants: Mapping[str, torch.Tensor], held: Held) -> nn.Module | None:
    weight = constants[node.inputs[1]]
    axis = node.attributes.get("axis", -1)
    if (
        weight.ndim == 0
        or axis != -weight.ndim
        or (_given(node, 2) and constants[node.inputs[2]].shape != weight.shape)
    ):
        return None
    made = nn.LayerNorm(
        tuple(weight.shape), node.attributes.get("epsilon", 1e-5), bias=bool(_given(node, 2)), device="meta"
    )
    _hold(made, node, held)
    return made


def _group_norm(node: Node, constants: Mapping[str, torch.Tensor], held: Held) -> nn.Module | None:
    groups, weight = node.attributes.get("num_groups"), constants[node.inputs[1]]
    if node.attributes.opset < 21 or weight.shape[0] % groups:
        return None
    made = nn.GroupNorm(groups, weight.shape[0], node.attributes.get("epsilon", 1e-5), device="meta")
    _hold(made, node, held)
    return made


def _prelu(node: Node, constants: Mapping[str, torch.Tensor], held: Held) -> nn.Module | None:
    slope = constants[node.inputs[1]]
    if slope.numel() != 1:
        return None
    made = nn.PReLU(device="meta")
    made.weight = nn.Parameter(slope.reshape(1).clone())
    return made


def _hold(made: nn.Module, node: Node, held: Held) -> None:
    """Inputs 1 and 2 as weight and bias."""
    made.weight = held(node.inputs[1], "")
    if _given(node, 2):
        made.bias = held(node.inputs[2], "")


def _softmax(node: Node) -> nn.Module | None:
    axis = node.attributes.get("axis", -1)
    return nn.Softmax(axis) if node.attributes.opset >= 13 and axis == -1 else None


_WITH_WEIGHTS: Mapping[str, Callable[[Node, Mapping[str, torch.Tensor], Held], nn.Module | None]] = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _linear,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _linear,
    LINEAR: _linear,
    "PRelu": _prelu,
}
_PLAIN: Mapping[str, Callable[[Node], nn.Module | None]] = {
    "Flatten": lambda node: nn.Flatten(1) if node.attributes.get("axis", 1) == 1 else None,
    "Gelu": lambda node: nn.GELU(approximate=node.attributes.get("approximate", "none")),
    "GlobalAveragePool": lambda node: nn.AdaptiveAvgPool2d(1),
    "HardSwish": lambda node: nn.Hardswish(),
    "LeakyRelu": lambda node: nn.LeakyReLU(node.attributes.get("alpha", 0.01)),
    "Relu": lambda node: nn.ReLU(),
    "Sigmoid": lambda node: nn.Sigmoid(),
    "Softmax": _softmax,
    "Tanh": lambda node: nn.Tanh(),
}
