"""Which aten op is which activation, by identity and with its own parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from stabilitykit_lipschitz.slopes import Activation, clipped, elu, leaky, named, softplus, softshrink, stepped

aten = torch.ops.aten
Broadcast = Callable[[Any], np.ndarray]


class NoRule(ValueError):
    """An activation with parameters that no formula here covers."""


def _plain(name: str) -> Callable[[dict, Broadcast], Activation]:
    return lambda given, broadcast: named(name)


def _gelu(given: dict, broadcast: Broadcast) -> Activation:
    return named("gelu-tanh" if given["approximate"] == "tanh" else "gelu")


def _elu(given: dict, broadcast: Broadcast) -> Activation:
    return _exponential(float(given["alpha"]), float(given["scale"]), float(given["input_scale"]), "elu")


def _celu(given: dict, broadcast: Broadcast) -> Activation:
    alpha = float(given["alpha"])
    return _exponential(alpha, 1.0, 1.0 / alpha if alpha else np.inf, "celu")


def _exponential(alpha: float, scale: float, rate: float, name: str) -> Activation:
    if not 0 < abs(rate) < np.inf or not 0 < scale < np.inf or not np.isfinite(alpha):
        raise NoRule(f"{name} with scale {scale:g}, alpha {alpha:g} and exp({rate:g} z) has no rule")
    return elu(alpha, scale, rate, name)


def _softplus(given: dict, broadcast: Broadcast) -> Activation:
    beta, threshold = float(given["beta"]), float(given["threshold"])
    if not 0 < beta < np.inf:
        raise NoRule(f"softplus with beta {beta:g} has no rule; expected a positive one")
    return softplus(beta, threshold)


def _threshold(given: dict, broadcast: Broadcast) -> Activation:
    threshold, value = float(given["threshold"]), float(given["value"])
    return clipped(threshold, np.inf, "threshold") if threshold == value else stepped(threshold, value)


def _clamp(given: dict, broadcast: Broadcast) -> Activation:
    low, high = given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))
    low, high = -np.inf if low is None else float(low), np.inf if high is None else float(high)
    if not low <= high:
        raise NoRule(f"clamp to [{low:g}, {high:g}] has no rule; expected min <= max")
    return clipped(low, high, "hardtanh")


def _rrelu(given: dict, broadcast: Broadcast) -> Activation:
    if given["training"]:
        raise NoRule("rrelu draws random slopes in eval mode")
    return leaky(0.5 * (float(given["lower"]) + float(given["upper"])))


def _softshrink(given: dict, broadcast: Broadcast) -> Activation:
    edge = float(given["lambd"])
    if edge < 0:
        raise NoRule(f"softshrink with lambd {edge:g} jumps; expected a number >= 0")
    return softshrink(edge)


ACTIVATIONS: dict[Any, Callable[[dict, Broadcast], Activation]] = {
    aten.relu.default: _plain("relu"),
    aten.hardswish.default: _plain("hardswish"),
    aten.hardsigmoid.default: _plain("hardsigmoid"),
    aten.tanh.default: _plain("tanh"),
    aten.sigmoid.default: _plain("sigmoid"),
    aten.silu.default: _plain("silu"),
    aten.mish.default: _plain("mish"),
    aten.log_sigmoid_forward.default: _plain("logsigmoid"),
    aten.abs.default: lambda given, broadcast: leaky(-1.0, "abs"),
    aten.leaky_relu.default: lambda given, broadcast: leaky(float(given["negative_slope"])),
    aten._prelu_kernel.default: lambda given, broadcast: leaky(broadcast(given["weight"]), "prelu"),
    aten.rrelu_with_noise.default: _rrelu,
    aten.elu.default: _elu,
    aten.celu.default: _celu,
    aten.gelu.default: _gelu,
    aten.hardtanh.default: _clamp,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp,
    aten.softplus.default: _softplus,
    aten.softshrink.default: _softshrink,
    aten.threshold.default: _threshold,
}
