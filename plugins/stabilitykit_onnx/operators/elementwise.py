"""Operators that work on every element by itself, with ONNX's broadcasting (which is torch's)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from stabilitykit_onnx.attributes import Attributes
from stabilitykit_onnx.operators.values import Value, is_host, number, together

Tensor = torch.Tensor

# Numbers of ONNX's element types. Halves are computed in float32, which holds them exactly.
FLOATS = {1, 10, 11, 16}
DTYPES = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool}


def unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda attributes, x: function(x)


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda attributes, a, b: function(*together([a, b]))


def variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(attributes: Attributes, *values: Value) -> Tensor:
        first, *rest = together(list(values))
        for other in rest:
            first = function(first, other)
        return first

    return run


def divide(attributes: Attributes, a: Value, b: Value) -> Tensor:
    """Whole numbers are divided towards zero."""
    x, y = together([a, b])
    if x.is_floating_point() or y.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")


def power(attributes: Attributes, a: Value, b: Value) -> Tensor:
    if is_host(b) and not is_host(a):
        exponent = number(b)
        return a * a if exponent == 2.0 else torch.pow(a, exponent)
    x, y = together([a, b])
    return torch.pow(x, y).to(x.dtype)


def modulo(attributes: Attributes, a: Value, b: Value) -> Tensor:
    x, y = together([a, b])
    return torch.fmod(x, y) if attributes.get("fmod", 0) else torch.remainder(x, y)


def clip(attributes: Attributes, x: Tensor, low: Value = None, high: Value = None) -> Tensor:
    low = attributes.get("min") if low is None else low
    high = attributes.get("max") if high is None else high
    if low is None and high is None:
        return x
    return torch.clamp(x, None if low is None else number(low), None if high is None else number(high))


def gelu(attributes: Attributes, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=attributes.get("approximate", "none"))


def hard_sigmoid(attributes: Attributes, x: Tensor) -> Tensor:
    return torch.clamp(x * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0.0, 1.0)


def prelu(attributes: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def softmax(attributes: Attributes, x: Tensor) -> Tensor:
    return _along(attributes, x, torch.softmax)


def log_softmax(attributes: Attributes, x: Tensor) -> Tensor:
    return _along(attributes, x, torch.log_softmax)


def _along(attributes: Attributes, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    if attributes.opset >= 13:
        return function(x, attributes.get("axis", -1))
    # Before opset 13 all axes from `axis` on were one.
    axis = attributes.get("axis", 1) % x.ndim
    return function(x.flatten(axis), axis).reshape(x.shape)


def cast(attributes: Attributes, x: Tensor, like: Tensor | None = None) -> Tensor:
    """To another element type; between floats nothing is rounded (computed in the network's own float type)."""
    if like is not None:
        return x.to(like.dtype) if not (x.is_floating_point() and like.is_floating_point()) else x
    wanted = attributes.get("to")
    if wanted in FLOATS:
        return x if x.is_floating_point() else x.to(torch.get_default_dtype())
    if wanted not in DTYPES:
        raise attributes.refuse(f"casting to element type {wanted}")
    return x.to(DTYPES[wanted])


def where(attributes: Attributes, condition: Value, a: Value, b: Value) -> Tensor:
    chosen, x, y = together([condition, a, b])
    return torch.where(chosen, x, y)


def mean(attributes: Attributes, *values: Value) -> Tensor:
    return variadic(torch.add)(attributes, *values) / len(values)


def identity(attributes: Attributes, x: Value, *rest: Value) -> Value:
    return x


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Abs": unary(torch.abs),
    "Add": binary(torch.add),
    "And": binary(torch.logical_and),
    "Cast": cast,
    "CastLike": cast,
    "Ceil": unary(torch.ceil),
    "Celu": lambda attributes, x: functional.celu(x, attributes.get("alpha", 1.0)),
    "Clip": clip,
    "Cos": unary(torch.cos),
    "Div": divide,
    "Dropout": identity,
    "Elu": lambda attributes, x: functional.elu(x, attributes.get("alpha", 1.0)),
    "Equal": binary(torch.eq),
    "Erf": unary(torch.erf),
    "Exp": unary(torch.exp),
    "Floor": unary(torch.floor),
    "Gelu": gelu,
    "Greater": binary(torch.gt),
    "GreaterOrEqual": binary(torch.ge),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": unary(functional.hardswish),
    "Identity": identity,
    "IsInf": unary(torch.isinf),
    "IsNaN": unary(torch.isnan),
    "LeakyRelu": lambda attributes, x: functional.leaky_relu(x, attributes.get("alpha", 0.01)),
    "Less": binary(torch.lt),
    "LessOrEqual": binary(torch.le),
    "Log": unary(torch.log),
    "LogSoftmax": log_softmax,
    "Max": variadic(torch.maximum),
    "Mean": mean,
    "Min": variadic(torch.minimum),
    "Mish": unary(functional.mish),
    "Mod": modulo,
    "Mul": binary(torch.mul),
    "Neg": unary(torch.neg),
    "Not": unary(torch.logical_not),
    "Or": binary(torch.logical_or),
    "PRelu": prelu,
    "Pow": power,
    "Reciprocal": unary(torch.reciprocal),
    "Relu": unary(torch.relu),
    "Round": unary(torch.round),
    "Selu": lambda attributes, x: (
        attributes.get("gamma", 1.0507010221481323)
        * torch.where(x > 0, x, attributes.get("alpha", 1.6732631921768188) * (torch.exp(x) - 1))
    ),
    "Sigmoid": unary(torch.sigmoid),
    "Sign": unary(torch.sign),
    "Sin": unary(torch.sin),
    "Softmax": softmax,
    "Softplus": unary(functional.softplus),
    "Softsign": unary(functional.softsign),
    "Sqrt": unary(torch.sqrt),
    "Sub": binary(torch.sub),
    "Sum": variadic(torch.add),
    "Swish": lambda attributes, x: x * torch.sigmoid(attributes.get("alpha", 1.0) * x),
    "Tanh": unary(torch.tanh),
    "ThresholdedRelu": lambda attributes, x: torch.where(x > attributes.get("alpha", 1.0), x, torch.zeros_like(x)),
    "Where": where,
}
"""Operator -> function (attributes, *inputs) -> output."""
