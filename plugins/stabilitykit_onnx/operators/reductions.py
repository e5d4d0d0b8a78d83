"""Operators that reduce axes, and normalisations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from stabilitykit_onnx.attributes import Attributes
from stabilitykit_onnx.operators.values import Value, ints

Tensor = torch.Tensor


def reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[..., Tensor]:
    """Axes are an attribute, or an input in later opsets; without any, all are reduced (or none, if so asked)."""

    def run(attributes: Attributes, x: Tensor, axes: Value = None) -> Tensor:
        axes = attributes.get("axes") if axes is None else axes
        chosen = [] if axes is None else [axis % x.ndim for axis in ints(axes)]
        if not chosen:
            if attributes.get("noop_with_empty_axes", 0):
                return x
            chosen = list(range(x.ndim))
        return function(x, tuple(chosen), bool(attributes.get("keepdims", 1)))

    return run


def product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def arg(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(attributes: Attributes, x: Tensor) -> Tensor:
        if attributes.get("select_last_index", 0):
            raise attributes.refuse("select_last_index")
        return function(x, attributes.get("axis", 0), keepdim=bool(attributes.get("keepdims", 1)))

    return run


def global_pool(name: str) -> Callable[..., Tensor]:
    def run(attributes: Attributes, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        return x.mean(axes, keepdim=True) if name == "mean" else x.amax(axes, keepdim=True)

    return run


def batch_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if attributes.get("training_mode", 0):
        raise attributes.refuse("training_mode=1")
    return functional.batch_norm(x, mean, var, scale, bias, eps=attributes.get("epsilon", 1e-5))


def layer_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if attributes.outputs > 1:
        raise attributes.refuse("giving out mean and deviation")
    sizes = tuple(x.shape[attributes.get("axis", -1) % x.ndim :])
    whole = [None if t is None else t.expand(sizes) for t in (scale, bias)]
    return functional.layer_norm(x, sizes, whole[0], whole[1], attributes.get("epsilon", 1e-5))


def rms_norm(attributes: Attributes, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(attributes.get("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + attributes.get("epsilon", 1e-5)) * scale


def instance_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def group_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = attributes.get("num_groups")
    if scale.shape[0] != x.shape[1]:  # opset 18: one factor per group
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, attributes.get("epsilon", 1e-5))


def lp_norm(attributes: Attributes, x: Tensor) -> Tensor:
    return functional.normalize(x, p=attributes.get("p", 2), dim=attributes.get("axis", -1), eps=0.0)


def lrn(attributes: Attributes, x: Tensor) -> Tensor:
    size = attributes.get("size")
    return functional.local_response_norm(
        x, size, attributes.get("alpha", 1e-4), attributes.get("beta", 0.75), attributes.get("bias", 1.0)
    )


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ArgMax": arg(torch.argmax),
    "ArgMin": arg(torch.argmin),
    "BatchNormalization": batch_norm,
    "GlobalAveragePool": global_pool("mean"),
    "GlobalMaxPool": global_pool("max"),
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": lrn,
    "LayerNormalization": layer_norm,
    "LpNormalization": lp_norm,
    "RMSNormalization": rms_norm,
    "ReduceL1": reduction(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt()),
    "ReduceLogSumExp": reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": reduction(product),
    "ReduceSum": reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": reduction(lambda x, axes, keep: (x * x).sum(axes, keepdim=keep)),
}
"""Operator -> function (attributes, *inputs) -> output."""
