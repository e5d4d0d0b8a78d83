"""Affine operations on traced tensors: reshape, average, add, scale, concatenate, each on `Affine` values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import fx, nn

from stabilitykit_lipschitz import folding
from stabilitykit_lipschitz.folding import Affine
from stabilitykit_lipschitz.rounding import UNIT


class UnsupportedModule(ValueError):
    """A module, function or activation without a rule; the message names it."""


@dataclass(frozen=True)
class Softmaxed:
    """The output after a softmax: legal only as the last step."""

    logits: Affine


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """float64 copy. Errors: UnsupportedModule for complex or quantised numbers, which float64 does not hold."""
    if tensor.is_complex() or tensor.is_quantized:
        raise UnsupportedModule(f"weights of type {tensor.dtype} have no rule; expected real floating-point numbers")
    return tensor.detach().cpu().double().numpy().copy()


def refuse(where: str) -> NoReturn:
    raise UnsupportedModule(
        f"{where} has no Lipschitz rule: expected affine operations (add, scale, reshape, "
        "average, concatenate), a known activation or a final softmax"
    )


def double(module: nn.Module) -> Any:
    from copy import deepcopy

    return deepcopy(module).cpu().double().eval().requires_grad_(False)


def default(node: fx.Node) -> Any:
    if node.args:
        return node.args[0]
    raise UnsupportedModule(f"the model takes a further input {node.name!r}; expected one tensor")


def attribute(root: nn.Module, target: str) -> Any:
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part)
    return value


def mentions(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(mentions(v) for v in value)
    if isinstance(value, dict):
        return any(mentions(v) for v in value.values())
    return isinstance(value, (Affine, Softmaxed))


def bind(target: Any, rest: tuple, kwargs: dict) -> Any:
    if isinstance(target, str):
        return lambda tensor: getattr(tensor, target)(*rest, **kwargs)
    return lambda tensor: target(tensor, *rest, **kwargs)


def reshape(function: Any, value: Affine) -> Any:
    """A function that only moves coordinates: found out by moving their indices, two samples at a time."""
    size = value.size
    index = torch.arange(2 * size).reshape(2, *value.shape)
    moved = function(index)
    if isinstance(moved, (tuple, list)):
        return tuple(relocated(m, value) for m in moved)
    return relocated(moved, value)


def relocated(moved: torch.Tensor, value: Affine) -> Affine:
    if (
        moved.dim() < 1
        or moved.shape[0] != 2
        or not torch.equal(moved[1], moved[0] + value.size)
        or int(moved[0].max()) >= value.size
    ):
        raise UnsupportedModule("a reshape mixes samples of a batch; expected it to keep the batch dimension first")
    return folding.gather(moved[0].reshape(-1).numpy(), value, tuple(moved.shape[1:]))


def average(function: Any, value: Affine) -> Affine:
    matrix, shape = folding.matrix_of(lambda b: function(torch.from_numpy(b)).numpy(), value.shape)
    return folding.apply(matrix, value, shape, 4 * UNIT * folding.norm(matrix))


def constant(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = as_array(value) if isinstance(value, torch.Tensor) else np.asarray(value, dtype=np.float64)
    if array.ndim > len(shape):
        if array.shape[0] != 1:
            raise ValueError(f"a constant of shape {array.shape} does not broadcast over samples of shape {shape}")
        array = array[0]
    return np.broadcast_to(array, shape).ravel()


def added(args: tuple, kwargs: dict, sign: float, where: str) -> Affine:
    a, b = args[0], args[1]
    if kwargs.get("alpha", 1) != 1:
        refuse(where)
    if isinstance(a, Affine) and isinstance(b, Affine):
        if a.shape != b.shape:
            raise ValueError(f"expected equal shapes to add, got {a.shape} and {b.shape}")
        return folding.combine(a, b, sign)
    if isinstance(a, Affine):
        return Affine(a.shape, a.maps, a.bias + sign * constant(b, a.shape), a.errors)
    if not isinstance(b, Affine):
        refuse(where)
    maps = {s: sign * m for s, m in b.maps.items()}
    return Affine(b.shape, maps, sign * b.bias + constant(a, b.shape), b.errors)


def scaled(name: str, args: tuple, where: str) -> Affine:
    if name == "neg":
        return folding.scale(-np.ones(args[0].size), args[0], 0.0)
    a, b = args[0], args[1]
    if (isinstance(a, Affine) and isinstance(b, Affine)) or ("div" in name and not isinstance(a, Affine)):
        refuse(where)
    value, other = (a, b) if isinstance(a, Affine) else (b, a)
    if not isinstance(value, Affine) or isinstance(other, Softmaxed):
        refuse(where)
    factor = constant(other, value.shape)
    return folding.scale(1.0 / factor if "div" in name else factor, value, 2 * UNIT)


def concatenate(args: tuple, kwargs: dict, name: str) -> Affine:
    values = list(args[0])
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if not all(isinstance(v, Affine) for v in values):
        raise UnsupportedModule("concatenation with a constant has no rule; expected tensors computed from the input")
    total = sum(v.size for v in values)
    starts = np.cumsum([0] + [v.size for v in values])
    index = [torch.arange(s, s + v.size).reshape(1, *v.shape) for s, v in zip(starts, values)]
    index = [torch.cat([i, i + total]) for i in index]
    moved = torch.stack(index, dim) if name == "stack" else torch.cat(index, dim)
    if moved.shape[0] != 2 or not torch.equal(moved[1], moved[0] + total):
        raise UnsupportedModule("concatenation along the batch dimension has no rule; expected a feature dimension")
    return folding.stack(values, moved[0].reshape(-1).numpy(), tuple(moved.shape[1:]))
