"""Which torch module or function is which activation. The only place that knows torch's names for them."""

from __future__ import annotations

from typing import Any

from stabilitykit_lipschitz.slopes import Activation, clipped, elu, leaky, named, softplus, softshrink

PLAIN = {
    "ReLU": "relu",
    "ReLU6": "relu6",
    "Hardswish": "hardswish",
    "Hardsigmoid": "hardsigmoid",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
    "Swish": "silu",
    "Mish": "mish",
    "SELU": "selu",
    "Softsign": "softsign",
    "Tanhshrink": "tanhshrink",
    "LogSigmoid": "logsigmoid",
    "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid",
    "GELUTanh": "gelu-tanh",
    "QuickGELU": "quickgelu",
    "Hardtanh": "",
    "LeakyReLU": "",
    "PReLU": "",
    "RReLU": "",
    "ELU": "",
    "CELU": "",
    "GELU": "",
    "Softplus": "",
    "Softshrink": "",
    "Threshold": "",
}

FUNCTIONS = {
    "relu": "relu",
    "relu_": "relu",
    "relu6": "relu6",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "tanh": "tanh",
    "tanh_": "tanh",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
    "silu": "silu",
    "mish": "mish",
    "selu": "selu",
    "selu_": "selu",
    "softsign": "softsign",
    "tanhshrink": "tanhshrink",
    "logsigmoid": "logsigmoid",
    "log_sigmoid": "logsigmoid",
    "expit": "sigmoid",
}


def is_activation(module: Any) -> bool:
    """True when `of_module` has slope bounds for this module's class."""
    return type(module).__name__ in PLAIN


def of_module(module: Any, shape: tuple[int, ...]) -> Activation:
    """Slopes and values of an activation module on samples of `shape` (channels first)."""
    kind = type(module).__name__
    if PLAIN.get(kind):
        return named(PLAIN[kind])
    if kind == "LeakyReLU":
        return leaky(float(module.negative_slope))
    if kind == "RReLU":
        return leaky(0.5 * (float(module.lower) + float(module.upper)))
    if kind == "PReLU":
        return _prelu(module, shape)
    if kind == "ELU":
        return elu(float(module.alpha))
    if kind == "CELU":
        return elu(float(module.alpha), rate=1.0 / float(module.alpha), name="celu")
    if kind == "GELU":
        return named("gelu-tanh" if getattr(module, "approximate", "none") == "tanh" else "gelu")
    if kind == "Hardtanh":
        return clipped(float(module.min_val), float(module.max_val))
    if kind == "Softplus":
        return softplus(float(module.beta))
    if kind == "Softshrink":
        return softshrink(float(module.lambd))
    if kind == "Threshold" and float(module.threshold) == float(module.value) == 0.0:
        return named("relu")
    raise ValueError(f"no slope bounds known for activation {kind}: it is not slope-restricted or not supported")


def of_function(name: str, args: tuple, kwargs: dict) -> Activation | None:
    """The activation a functional call computes; args without the tensor. None if it is not one."""

    def number(position: int, key: str, default: float) -> float:
        return float(args[position]) if len(args) > position else float(kwargs.get(key, default))

    if name in FUNCTIONS:
        return named(FUNCTIONS[name])
    if name in ("leaky_relu", "leaky_relu_"):
        return leaky(number(0, "negative_slope", 0.01))
    if name == "gelu":
        return named("gelu-tanh" if kwargs.get("approximate", "none") == "tanh" else "gelu")
    if name in ("elu", "elu_"):
        return elu(number(0, "alpha", 1.0))
    if name == "celu":
        alpha = number(0, "alpha", 1.0)
        return elu(alpha, rate=1.0 / alpha, name="celu")
    if name in ("hardtanh", "hardtanh_"):
        return clipped(number(0, "min_val", -1.0), number(1, "max_val", 1.0))
    if name == "softplus":
        return softplus(number(0, "beta", 1.0))
    if name == "softshrink":
        return softshrink(number(0, "lambd", 0.5))
    return None


def _prelu(module: Any, shape: tuple[int, ...]) -> Activation:
    import numpy as np

    weight = module.weight.detach().cpu().double().numpy()
    if len(weight) == 1:
        return leaky(float(weight[0]), "prelu")
    inner = int(np.prod(shape[1:], dtype=int))
    return leaky(np.repeat(weight, inner), "prelu")
