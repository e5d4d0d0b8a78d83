"""Read a torch module as a `Network`: trace it, fold every linear part, keep the activations.

Refused with a message naming the module: max pooling, attention, products of two activations, softmax in the middle.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import fx, nn

from stabilitykit_lipschitz import folding
from stabilitykit_lipschitz.activations import is_activation, of_function, of_module
from stabilitykit_lipschitz.folding import Affine
from stabilitykit_lipschitz.network import Layer, Network
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.operations import (
    Softmaxed,
    UnsupportedModule,
    added,
    as_array,
    attribute,
    average,
    bind,
    concatenate,
    default,
    double,
    mentions,
    refuse,
    reshape,
    scaled,
)
from stabilitykit_lipschitz.rounding import UNIT
from stabilitykit_lipschitz.slopes import Activation

PASS = (
    "Identity",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "AlphaDropout",
    "FeatureAlphaDropout",
    "DropPath",
    "StochasticDepth",
)
RESHAPES = (
    "flatten",
    "reshape",
    "view",
    "permute",
    "transpose",
    "squeeze",
    "unsqueeze",
    "contiguous",
    "getitem",
    "chunk",
    "split",
    "movedim",
    "swapaxes",
    "clone",
    "float",
    "double",
    "expand",
    "pixel_unshuffle",
    "pixel_shuffle",
    "unflatten",
    "roll",
    "flip",
    "narrow",
    "select",
)
AVERAGES = (
    "mean",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "sum",
)
MODULE_RESHAPES = ("Flatten", "Unflatten", "PixelUnshuffle", "PixelShuffle", "ChannelShuffle")
MODULE_AVERAGES = ("AvgPool1d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_activation(m) or type(m).__name__ in PASS or super().is_leaf_module(m, module_qualified_name)


def extract(model: nn.Module, input_shape: tuple[int, ...] | None = None) -> Network:
    """The network computed by `model` in eval mode, weights in float64.

    input_shape: shape of one sample; needed unless the first module is Linear, BatchNorm1d or LayerNorm.
    Errors: UnsupportedModule naming what has no rule; ValueError for a missing or wrong input shape; TypeError for
    what is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module or a stabilitykit_lipschitz.Network, got {type(model).__name__}")
    root = model if not _Tracer().is_leaf_module(model, "") else nn.Sequential(model)
    try:
        graph = _Tracer().trace(root)
    except Exception as error:  # torch.fx raises many types for data-dependent control flow
        raise UnsupportedModule(
            f"{type(model).__name__} cannot be traced as a static graph ({error}); expected a "
            "head made of linear modules and activations; pass its fully connected part"
        ) from error
    shape = tuple(input_shape) if input_shape is not None else _guess_shape(root)
    reader = _Reader(root, shape)
    with torch.no_grad():
        return reader.read(graph)


def _guess_shape(root: nn.Module) -> tuple[int, ...]:
    for module in root.modules():
        if isinstance(module, nn.Linear):
            return (module.in_features,)
        if isinstance(module, nn.BatchNorm1d):
            return (module.num_features,)
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            return tuple(module.normalized_shape)
        if (
            not list(module.children())
            and type(module).__name__ not in PASS
            and not is_activation(module)
            and not isinstance(module, nn.Flatten)
        ):
            break
    raise ValueError("the shape of one input cannot be read off the model; expected input_shape=(C, H, W) or (n,)")


def _name(node: fx.Node) -> str:
    """What the user calls it: the module's path, not the graph's name for it."""
    return str(node.target) if node.op == "call_module" else node.name


class _Reader:
    """Interprets the traced graph on `Affine` values."""

    def __init__(self, root: nn.Module, shape: tuple[int, ...]) -> None:
        self.root = root
        self.shape = shape
        self.layers: list[Layer] = []
        self.errors: dict[tuple[int, int], float] = {}

    def read(self, graph: fx.Graph) -> Network:
        values: dict[fx.Node, Any] = {}
        result: Any = None
        for node in graph.nodes:
            args = fx.node.map_arg(node.args, lambda n: values[n])
            kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n])
            if node.op == "placeholder":
                first = not values
                values[node] = folding.of_state(0, self.shape) if first else default(node)
            elif node.op == "get_attr":
                values[node] = attribute(self.root, node.target)
            elif node.op == "output":
                result = args[0]
            else:
                try:
                    values[node] = self._step(node, args, kwargs)
                except UnsupportedModule:
                    raise
                except (RuntimeError, ValueError, IndexError, TypeError) as error:
                    raise UnsupportedModule(f"{self._where(node)}: {error}") from error
        return self._finish(result)

    def _finish(self, result: Any) -> Network:
        factor = 1.0
        if isinstance(result, Softmaxed):
            result, factor = result.logits, 0.5
        if not isinstance(result, Affine):
            raise UnsupportedModule(f"the model returns {type(result).__name__}; expected one tensor of logits")
        outputs = folding.dense_blocks(result, "the output")
        for state, error in result.errors.items():
            self.errors[len(self.layers) + 1, state] = error
        return Network(prod(self.shape), tuple(self.layers), outputs, result.bias, self.shape, factor, self.errors)

    def _where(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"module {node.target!r} ({type(self.root.get_submodule(str(node.target))).__name__})"
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return f"operation {name!r} (node {node.name!r})"

    def _step(self, node: fx.Node, args: tuple, kwargs: dict) -> Any:
        if node.op == "call_module":
            if len(args) != 1 or kwargs or not isinstance(args[0], Affine):
                raise UnsupportedModule(f"{self._where(node)}: expected one tensor argument before any softmax")
            return self._module(self.root.get_submodule(str(node.target)), args[0], node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return self._call(name.lstrip("_") if name.startswith("__") else name, node, args, kwargs)

    # -- modules ---------------------------------------------------------------------------------------------

    def _module(self, module: nn.Module, value: Affine, node: fx.Node) -> Any:
        kind = type(module).__name__
        if kind in PASS:
            return value
        if isinstance(module, nn.Linear):
            bias = None if module.bias is None else as_array(module.bias)
            return self._linear(as_array(module.weight), bias, value)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            return self._batchnorm(module, value, node)
        if isinstance(module, CONVOLUTIONS):
            return self._convolution(module, value)
        if kind in ("LayerNorm", "RMSNorm") and hasattr(module, "normalized_shape"):
            return self._normalise(module, value, centred="RMS" not in kind, node=node)
        if kind in MODULE_RESHAPES:
            return reshape(module, value)
        if kind in MODULE_AVERAGES:
            return average(module, value)
        if isinstance(module, (nn.Softmax, nn.Softmax2d)):
            return self._softmax(getattr(module, "dim", 1), value, node)
        if is_activation(module):
            return self._activate(of_module(module, value.shape), value, _name(node))
        raise UnsupportedModule(
            f"{self._where(node)} has no Lipschitz rule: expected Linear, convolution, BatchNorm, average pooling, "
            "Flatten, LayerNorm/RMSNorm, a slope-restricted activation or a final Softmax"
        )

    def _linear(self, weight: np.ndarray, bias: np.ndarray | None, value: Affine) -> Affine:
        if value.shape[-1] != weight.shape[1]:
            raise ValueError(f"expected {weight.shape[1]} features, got a tensor of shape {value.shape}")
        rows = prod(value.shape[:-1])
        matrix = weight if rows == 1 else sparse.kron(sparse.identity(rows), sparse.csr_matrix(weight), format="csr")
        out = folding.apply(matrix, value, (*value.shape[:-1], len(weight)))
        return out if bias is None else Affine(out.shape, out.maps, out.bias + np.tile(bias, rows), out.errors)

    def _batchnorm(self, module: Any, value: Affine, node: fx.Node) -> Affine:
        if module.running_mean is None:
            raise UnsupportedModule(
                f"{self._where(node)} keeps no running statistics: its output depends on the "
                "whole batch, so it has no Lipschitz constant; calibrate it first"
            )
        mean, var = as_array(module.running_mean), as_array(module.running_var)
        gain = np.ones_like(mean) if module.weight is None else as_array(module.weight)
        shift = np.zeros_like(mean) if module.bias is None else as_array(module.bias)
        factor = gain / np.sqrt(var + module.eps)
        inner = prod(value.shape[1:])
        out = folding.scale(np.repeat(factor, inner), value, 6 * UNIT)
        return Affine(out.shape, out.maps, out.bias + np.repeat(shift - mean * factor, inner), out.errors)

    def _convolution(self, module: Any, value: Affine) -> Affine:
        copy = double(module)
        bias, copy.bias = copy.bias, None
        matrix, shape = folding.matrix_of(lambda b: copy(torch.from_numpy(b)).numpy(), value.shape)
        out = folding.apply(matrix, value, shape)
        if bias is None:
            return out
        return Affine(shape, out.maps, out.bias + np.repeat(as_array(bias), prod(shape[1:])), out.errors)

    def _normalise(self, module: Any, value: Affine, centred: bool, node: fx.Node) -> Affine:
        width = prod(module.normalized_shape)
        eps = torch.finfo(torch.float32).eps if module.eps is None else float(module.eps)
        groups = value.size // width
        parts = []
        for group in range(groups):
            piece = folding.gather(np.arange(group * width, (group + 1) * width), value, (width,))
            if centred:
                projector = np.eye(width) - 1.0 / width
                piece = folding.apply(projector, piece, (width,), 2 * UNIT * np.sqrt(width))
            parts.append(self._activate(Normalisation(eps), piece, _name(node)))
        out = folding.stack(parts, np.arange(value.size), value.shape) if groups > 1 else parts[0]
        out = Affine(value.shape, out.maps, out.bias, out.errors)
        if getattr(module, "weight", None) is not None:
            out = folding.scale(np.tile(as_array(module.weight).ravel(), groups), out, 0.0)
        if getattr(module, "bias", None) is not None:
            out = Affine(out.shape, out.maps, out.bias + np.tile(as_array(module.bias).ravel(), groups), out.errors)
        return out

    def _activate(self, activation: Activation | Normalisation, value: Affine, name: str) -> Affine:
        level = len(self.layers) + 1
        size = value.size
        if isinstance(activation, Normalisation):
            steepest = np.inf if activation.eps == 0 else float(activation.eps**-0.5) * (1 + 1e-15)
            beta = np.full(size, steepest)
            alpha, shared = -beta, True
        else:
            alpha, beta = activation.bounds(size)
            shared = False
        self.layers.append(
            Layer(
                folding.dense_blocks(value, f"the input of {name!r}"), value.bias, activation, alpha, beta, shared, name
            )
        )
        for state, error in value.errors.items():
            self.errors[level, state] = error
        return folding.of_state(level, value.shape)

    def _softmax(self, dim: int | None, value: Affine, node: fx.Node) -> Softmaxed:
        if len(value.shape) != 1 or dim not in (None, 1, -1):
            raise UnsupportedModule(f"{self._where(node)}: expected softmax over the classes of a (batch, K) tensor")
        return Softmaxed(value)

    # -- functions and methods -------------------------------------------------------------------------------

    def _call(self, name: str, node: fx.Node, args: tuple, kwargs: dict) -> Any:
        first: Any = args[0] if args else None
        if isinstance(first, Affine) and name == "getattr":
            return torch.Size((2, *first.shape)) if args[1] == "shape" else refuse(self._where(node))
        if isinstance(first, Affine) and name in ("size", "dim"):
            full = torch.Size((2, *first.shape))
            return len(full) if name == "dim" else full[args[1]] if len(args) > 1 else full
        if not mentions(args) and not mentions(kwargs):
            target = node.target
            return getattr(first, target)(*args[1:], **kwargs) if isinstance(target, str) else target(*args, **kwargs)
        if name in ("add", "iadd", "add_", "sub", "isub", "sub_"):
            return added(args, kwargs, -1.0 if "sub" in name else 1.0, self._where(node))
        if name in ("mul", "imul", "mul_", "truediv", "div", "neg"):
            return scaled(name, args, self._where(node))
        if name in ("cat", "concat", "concatenate", "stack"):
            return concatenate(args, kwargs, name)
        if not isinstance(first, Affine):
            refuse(self._where(node))
        if name in ("dropout", "dropout1d", "dropout2d", "alpha_dropout", "detach", "to", "identity"):
            return first
        rest = args[1:]
        function = bind(node.target, rest, kwargs)
        if name in RESHAPES:
            return reshape(function, first)
        if name in AVERAGES:
            return average(function, first)
        if name == "linear":
            weight = as_array(rest[0])
            bias = rest[1] if len(rest) > 1 else kwargs.get("bias")
            return self._linear(weight, None if bias is None else as_array(bias), first)
        if name == "softmax":
            return self._softmax(rest[0] if rest else kwargs.get("dim"), first, node)
        activation = of_function(name, rest, kwargs)
        if activation is None:
            refuse(self._where(node))
        return self._activate(activation, first, node.name)
