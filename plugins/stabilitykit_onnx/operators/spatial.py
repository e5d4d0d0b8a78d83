"""Operators on maps (B, C, H, W): convolutions, pooling, resizing; and products with matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from stabilitykit_onnx.attributes import Attributes
from stabilitykit_onnx.operators.values import Value, ints, together

Tensor = torch.Tensor


def paddings(attributes: Attributes, size: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) for every spatial axis, auto_pad worked out.

    Arguments:
        size, kernel: of the map and of the window, without batch and channels.
    """
    rank = len(kernel)
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    mode = attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        given = attributes.get("pads") or [0] * 2 * rank
        return [(given[n], given[n + rank]) for n in range(rank)]
    if mode == "VALID":
        return [(0, 0)] * rank
    found = []
    for length, window, stride, dilation in zip(size, kernel, strides, dilations):
        total = max((-(-length // stride) - 1) * stride + (window - 1) * dilation + 1 - length, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return found


def _flat(sides: Sequence[tuple[int, int]]) -> list[int]:
    return [side for pair in reversed(sides) for side in pair]


def conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.ndim - 2
    sides = paddings(attributes, x.shape[2:], weight.shape[2:])
    padding = [before for before, _ in sides]
    if any(before != after for before, after in sides):
        x, padding = functional.pad(x, _flat(sides)), [0] * rank
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    strides, dilations = (attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    return function(x, weight, bias, strides, padding, dilations, attributes.get("group", 1))


def conv_transpose(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.ndim - 2
    if attributes.get("auto_pad", "NOTSET") != "NOTSET" or attributes.get("output_shape"):
        raise attributes.refuse("auto_pad or output_shape")
    sides = paddings(attributes, x.shape[2:], weight.shape[2:])
    if any(before != after for before, after in sides):
        raise attributes.refuse("padding that differs between the sides")
    strides, dilations = (attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    extra = attributes.get("output_padding") or [0] * rank
    function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[rank - 1]
    return function(
        x, weight, bias, strides, [before for before, _ in sides], extra, attributes.get("group", 1), dilations
    )


def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    if attributes.outputs > 1 or attributes.get("storage_order", 0):
        raise attributes.refuse("giving out indices")
    kernel = attributes.get("kernel_shape")
    rank = len(kernel)
    sides = paddings(attributes, x.shape[2:], kernel)
    padding = [before for before, _ in sides]
    if any(before != after or 2 * before > size for (before, after), size in zip(sides, kernel)):
        x, padding = functional.pad(x, _flat(sides), value=float("-inf")), [0] * rank
    strides, dilations = (attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    function: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    return function(x, kernel, strides, padding, dilations, bool(attributes.get("ceil_mode", 0)))


def average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    kernel = attributes.get("kernel_shape")
    rank = len(kernel)
    if any(d != 1 for d in attributes.get("dilations") or ()):
        raise attributes.refuse("dilations")
    strides = attributes.get("strides") or [1] * rank
    sides = paddings(attributes, x.shape[2:], kernel)
    counted, ceil = bool(attributes.get("count_include_pad", 0)), bool(attributes.get("ceil_mode", 0))
    function: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    even = all(before == after and 2 * before <= size for (before, after), size in zip(sides, kernel))
    if even:
        return function(x, kernel, strides, [before for before, _ in sides], ceil, counted)
    if ceil:
        raise attributes.refuse("ceil_mode with padding that differs between the sides")
    total = function(functional.pad(x, _flat(sides)), kernel, strides)
    if counted:
        return total
    share = function(functional.pad(torch.ones_like(x[:1, :1]), _flat(sides)), kernel, strides)
    return total / share


def resize(attributes: Attributes, x: Tensor, roi: Value = None, scales: Value = None, sizes: Value = None) -> Tensor:
    """Nearest, linear and cubic, where torch has the same coordinates."""
    if attributes.op == "Upsample" or attributes.opset < 11:
        scales, sizes = (attributes.get("scales") if roi is None else roi), None
        where = "asymmetric"
    else:
        where = attributes.get("coordinate_transformation_mode", "half_pixel")
    mode, rank = attributes.get("mode", "nearest"), x.ndim - 2
    if attributes.get("axes") or attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise attributes.refuse("axes or keep_aspect_ratio_policy")
    factors = None
    if sizes is not None:
        wanted = ints(sizes)[2:]
    else:
        factors = (scales.tolist() if isinstance(scales, Tensor) else scales)[2:]
        wanted = [int(n * s) for n, s in zip(x.shape[2:], factors)]
    if list(x.shape[2:]) == wanted:
        return x
    whole = all(w % n == 0 for n, w in zip(x.shape[2:], wanted))
    if mode == "nearest":
        rounding = attributes.get("nearest_mode", "round_prefer_floor")
        if (where == "asymmetric" and rounding == "floor") or (whole and where in ("half_pixel", "asymmetric")):
            return functional.interpolate(x, wanted, mode="nearest")
        raise attributes.refuse(f"nearest with {where} and {rounding}")
    names = {("linear", 1): "linear", ("linear", 2): "bilinear", ("cubic", 2): "bicubic"}
    aligned = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}
    if (mode, rank) not in names or where not in aligned or attributes.get("exclude_outside", 0):
        raise attributes.refuse(f"{mode} with {where}")
    if mode == "cubic" and abs(attributes.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise attributes.refuse("another cubic_coeff_a than -0.75")
    # Where factors are given, positions are worked out with them, not with the ratio of the sizes.
    size: dict[str, Any] = {"size": wanted} if factors is None else {"scale_factor": factors}
    smooth = bool(attributes.get("antialias", 0))
    return functional.interpolate(x, **size, mode=names[mode, rank], align_corners=aligned[where], antialias=smooth)


def matmul(attributes: Attributes, a: Value, b: Value) -> Tensor:
    return torch.matmul(*together([a, b]))


def gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.t() if attributes.get("transA", 0) else a
    b = b.t() if attributes.get("transB", 0) else b
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if c is None:
        return a @ b if alpha == 1.0 else alpha * (a @ b)
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


def einsum(attributes: Attributes, *values: Tensor) -> Tensor:
    return torch.einsum(attributes.get("equation"), *values)


SPATIAL: dict[str, Callable[..., Any]] = {
    "AveragePool": average_pool,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Resize": resize,
    "Upsample": resize,
}
"""Operator -> function (attributes, *inputs) -> output."""
