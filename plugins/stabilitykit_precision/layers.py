"""Which layers of a network int8 has a rule for, and what is left in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

# The weights that multiply the inputs of a nn.MultiheadAttention; out_proj is a Linear of its own.
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class Layer:
    """A layer with a rule.

    Attributes:
        name: dotted name in the network.
        weights: names of its weights, each (C_out, ...).
        inputs: how many of its first arguments are multiplied by them.
    """

    name: str
    module: nn.Module
    weights: tuple[str, ...]
    inputs: int = 1

    def tensors(self) -> list[nn.Parameter]:
        """The weights, each (C_out, ...), of the network's dtype."""
        return [self.module._parameters[name] for name in self.weights]  # type: ignore[misc]


@dataclass(frozen=True)
class Left:
    """A module of which something stays in float: its dotted name, its class, what stays, why."""

    name: str
    kind: str
    what: str
    why: str


def quantisable(network: nn.Module) -> tuple[list[Layer], list[Left]]:
    """(layers with a rule, modules with weights that have none) of a network.

    The rule is for Linear, convolutions that are not transposed, and the projections of MultiheadAttention. Biases
    and all else of one dimension (scales and shifts of normalisation) stay in float by the scheme and are not listed.
    """
    layers, left = [], []
    for name, module in network.named_modules():
        weights = _weights(module)
        if weights:
            layers.append(Layer(name, module, weights, 3 if isinstance(module, nn.MultiheadAttention) else 1))
        others = [
            key
            for key, tensor in module._parameters.items()
            if tensor is not None and tensor.ndim >= 2 and tensor.is_floating_point() and key not in weights
        ]
        if others:
            left.append(Left(name or "the network itself", type(module).__name__, ", ".join(others), "no rule"))
    return layers, left


def _weights(module: nn.Module) -> tuple[str, ...]:
    plain = isinstance(module, nn.Linear) or (
        isinstance(module, nn.modules.conv._ConvNd) and not getattr(module, "transposed", False)
    )
    names: Sequence[str] = ("weight",) if plain else _PROJECTIONS if isinstance(module, nn.MultiheadAttention) else ()
    # A weight that is computed from others (weight_norm, a parametrisation) is no parameter of the layer.
    return tuple(name for name in names if isinstance(module._parameters.get(name), torch.Tensor))
