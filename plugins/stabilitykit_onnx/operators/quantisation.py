"""QuantizeLinear and DequantizeLinear: whole numbers kept in float tensors, which hold them exactly.

Autograd follows floats only, and through it the dataflow of a network is seen; up to 16 bits a float32 is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stabilitykit_onnx.attributes import Attributes
from stabilitykit_onnx.operators.values import Value, as_tensor

Tensor = torch.Tensor

# Numbers of ONNX's element types that QuantizeLinear may give.
RANGES = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767)}
_OF = {torch.uint8: 2, torch.int8: 3, torch.uint16: 4, torch.int16: 5}


def quantize(attributes: Attributes, x: Tensor, scale: Value, zero: Tensor | None = None) -> Tensor:
    """round(x / scale) to even, plus the zero point, saturated; a float tensor of whole numbers."""
    kind = attributes.get("output_dtype", 0) or (2 if zero is None else _OF.get(zero.dtype, 0))
    if kind not in RANGES or attributes.get("block_size", 0):
        raise attributes.refuse("blocks, or an element type other than 8- and 16-bit whole numbers,")
    low, high = RANGES[kind]
    whole = torch.round(x / _placed(attributes, as_tensor(scale, x), x))
    if zero is not None:
        whole = whole + _placed(attributes, zero.to(x.dtype), x)
    return torch.clamp(whole, float(low), float(high))


def dequantize(attributes: Attributes, x: Tensor, scale: Value, zero: Tensor | None = None) -> Tensor:
    """(x - zero point) * scale."""
    if attributes.get("block_size", 0):
        raise attributes.refuse("blocks")
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    if zero is not None:
        x = x - _placed(attributes, zero.to(x.dtype), x)
    return x * _placed(attributes, as_tensor(scale, x), x)


def _placed(attributes: Attributes, factor: Tensor, x: Tensor) -> Tensor:
    """A scale or zero point per tensor or per channel, as it broadcasts with ``x``."""
    if factor.numel() == 1:
        return factor.reshape(())
    axis = attributes.get("axis", 1) % x.ndim
    return factor.reshape(*(-1 if n == axis else 1 for n in range(x.ndim)))


QUANTISATION: dict[str, Callable[..., Any]] = {"DequantizeLinear": dequantize, "QuantizeLinear": quantize}
"""Operator -> function (attributes, *inputs) -> output."""
