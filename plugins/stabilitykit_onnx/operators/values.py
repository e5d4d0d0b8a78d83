"""Values that flow through a graph: tensors of images, and the sizes computed beside them (plain Python numbers)."""

from __future__ import annotations

from typing import Any

import torch

Value = Any
"""A tensor, or a number or nested list of numbers: sizes, indices, axes."""


def is_host(value: Value) -> bool:
    """Whether a value is plain numbers, no tensor."""
    return not isinstance(value, torch.Tensor)


def as_tensor(value: Value, like: torch.Tensor | None = None) -> torch.Tensor:
    """``value`` as a tensor (int64, float32 or bool for plain numbers), on the device of ``like``."""
    if isinstance(value, torch.Tensor):
        return value
    device = None if like is None else like.device
    made = torch.tensor(value, device=device)
    if like is not None and made.is_floating_point() and like.is_floating_point():
        made = made.to(like.dtype)
    return made


def as_host(value: torch.Tensor) -> Value:
    """A small tensor as plain numbers."""
    return value.tolist()


def together(values: list[Value]) -> list[torch.Tensor]:
    """All values as tensors, plain numbers on the device of the first tensor."""
    like = next((v for v in values if isinstance(v, torch.Tensor) and v.ndim), None)
    like = like if like is not None else next((v for v in values if isinstance(v, torch.Tensor)), None)
    return [as_tensor(v, like) for v in values]


def ints(value: Value) -> list[int]:
    """Sizes, axes or positions as a list; a single number as a list of one."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]


def number(value: Value) -> float:
    """A tensor of one element, or a number, as a float."""
    if isinstance(value, torch.Tensor):
        return float(value.reshape(-1)[0])
    while isinstance(value, (list, tuple)):
        value = value[0]
    return float(value)
