"""Read a torch module as a `Network`: trace it, fold every linear part, keep the activations.

Refused with a message naming the module: max pooling, attention, products of two activations, softmax in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from stabilitykit_lipschitz.rounding import UNIT
from stabilitykit_lipschitz.slopes import Activation, Normalisation

PASS = ("Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout",
        "DropPath", "StochasticDepth")
RESHAPES = ("flatten", "reshape", "view", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "getitem",
            "chunk", "split", "movedim", "swapaxes", "clone", "float", "double", "expand", "pixel_unshuffle",
            "pixel_shuffle", "unflatten", "roll", "flip", "narrow", "select")
AVERAGES = ("mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
            "adaptive_avg_pool3d", "sum")
MODULE_RESHAPES = ("Flatten", "Unflatten", "PixelUnshuffle", "PixelShuffle", "ChannelShuffle")
MODULE_AVERAGES = ("AvgPool1d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d",
                   "AdaptiveAvgPool3d")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class UnsupportedModule(ValueError):
    """A module, function or activation without a rule; the message names it."""


@dataclass(frozen=True)
class _Softmax:
    """The output after a softmax: legal only as the last step."""

    logits: Affine


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_activation(m) or type(m).__name__ in PASS or super().is_leaf_module(m, module_qualified_name)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy().copy()


def extract(model: nn.Module, input_shape: tuple[int, ...] | None = None) -> Network:
    """The network computed by `model` in eval mode, weights in float64.

    input_shape: shape of one sample; needed unless the first module is Linear, BatchNorm1d or LayerNorm.
    Errors: UnsupportedModule naming what has no rule; ValueError for a missing or wrong input shape.
    """
    root = model if not _Tracer().is_leaf_module(model, "") else nn.Sequential(model)
    try:
        graph = _Tracer().trace(root)
    except Exception as error:  # torch.fx raises many types for data-dependent control flow
        raise UnsupportedModule(f"{type(model).__name__} cannot be traced as a static graph ({error}); expected a "
                                "head made of linear modules and activations; pass its fully connected part") from error
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
        if not list(module.children()) and type(module).__name__ not in PASS and not is_activation(module) \
                and not isinstance(module, nn.Flatten):
            break
    raise ValueError("the shape of one input cannot be read off the model; expected input_shape=(C, H, W) or (n,)")


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
                values[node] = folding.of_state(0, self.shape) if first else _default(node)
            elif node.op == "get_attr":
                values[node] = _attribute(self.root, node.target)
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
        if isinstance(result, _Softmax):
            result, factor = result.logits, 0.5
        if not isinstance(result, Affine):
            raise UnsupportedModule(f"the model returns {type(result).__name__}; expected one tensor of logits")
        outputs = folding.dense_blocks(result, "the output")
        for state, error in result.errors.items():
            self.errors[len(self.layers) + 1, state] = error
        return Network(prod(self.shape), tuple(self.layers), outputs, result.bias, self.shape, factor, self.errors)

    def _where(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"module {node.target!r} ({type(self.root.get_submodule(node.target)).__name__})"
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return f"operation {name!r} (node {node.name!r})"

    def _step(self, node: fx.Node, args: tuple, kwargs: dict) -> Any:
        if node.op == "call_module":
            if len(args) != 1 or kwargs or not isinstance(args[0], Affine):
                raise UnsupportedModule(f"{self._where(node)}: expected one tensor argument before any softmax")
            return self._module(self.root.get_submodule(node.target), args[0], node)
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        return self._call(name.lstrip("_") if name.startswith("__") else name, node, args, kwargs)

    # -- modules ---------------------------------------------------------------------------------------------

    def _module(self, module: nn.Module, value: Affine, node: fx.Node) -> Any:
        kind = type(module).__name__
        if kind in PASS:
            return value
        if isinstance(module, nn.Linear):
            bias = None if module.bias is None else _array(module.bias)
            return self._linear(_array(module.weight), bias, value)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            return self._batchnorm(module, value, node)
        if isinstance(module, CONVOLUTIONS):
            return self._convolution(module, value)
        if isinstance(module, nn.LayerNorm) or kind in ("LayerNorm", "RMSNorm") and hasattr(module, "normalized_shape"):
            return self._normalise(module, value, centred="RMS" not in kind, node=node)
        if kind in MODULE_RESHAPES:
            return _reshape(module, value)
        if kind in MODULE_AVERAGES:
            return _average(module, value)
        if isinstance(module, (nn.Softmax, nn.Softmax2d)):
            return self._softmax(getattr(module, "dim", 1), value, node)
        if is_activation(module):
            return self._activate(of_module(module, value.shape), value, node.name)
        raise UnsupportedModule(
            f"{self._where(node)} has no Lipschitz rule: expected Linear, convolution, BatchNorm, average pooling, "
            "Flatten, LayerNorm/RMSNorm, a slope-restricted activation or a final Softmax")

    def _linear(self, weight: np.ndarray, bias: np.ndarray | None, value: Affine) -> Affine:
        if value.shape[-1] != weight.shape[1]:
            raise ValueError(f"expected {weight.shape[1]} features, got a tensor of shape {value.shape}")
        rows = prod(value.shape[:-1])
        matrix = weight if rows == 1 else sparse.kron(sparse.identity(rows), sparse.csr_matrix(weight), format="csr")
        out = folding.apply(matrix, value, (*value.shape[:-1], len(weight)))
        return out if bias is None else Affine(out.shape, out.maps, out.bias + np.tile(bias, rows), out.errors)

    def _batchnorm(self, module: Any, value: Affine, node: fx.Node) -> Affine:
        if module.running_mean is None:
            raise UnsupportedModule(f"{self._where(node)} keeps no running statistics: its output depends on the "
                                    "whole batch, so it has no Lipschitz constant; calibrate it first")
        mean, var = _array(module.running_mean), _array(module.running_var)
        gain = np.ones_like(mean) if module.weight is None else _array(module.weight)
        shift = np.zeros_like(mean) if module.bias is None else _array(module.bias)
        factor = gain / np.sqrt(var + module.eps)
        inner = prod(value.shape[1:])
        out = folding.scale(np.repeat(factor, inner), value, 6 * UNIT)
        return Affine(out.shape, out.maps, out.bias + np.repeat(shift - mean * factor, inner), out.errors)

    def _convolution(self, module: Any, value: Affine) -> Affine:
        copy = _double(module)
        bias, copy.bias = copy.bias, None
        matrix, shape = folding.matrix_of(lambda b: copy(torch.from_numpy(b)).numpy(), value.shape)
        out = folding.apply(matrix, value, shape)
        if bias is None:
            return out
        return Affine(shape, out.maps, out.bias + np.repeat(_array(bias), prod(shape[1:])), out.errors)

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
            parts.append(self._activate(Normalisation(eps), piece, node.name))
        out = folding.stack(parts, np.arange(value.size), value.shape) if groups > 1 else parts[0]
        out = Affine(value.shape, out.maps, out.bias, out.errors)
        if getattr(module, "weight", None) is not None:
            out = folding.scale(np.tile(_array(module.weight).ravel(), groups), out, 0.0)
        if getattr(module, "bias", None) is not None:
            out = Affine(out.shape, out.maps, out.bias + np.tile(_array(module.bias).ravel(), groups), out.errors)
        return out

    def _activate(self, activation: Activation | Normalisation, value: Affine, name: str) -> Affine:
        level = len(self.layers) + 1
        size = value.size
        if isinstance(activation, Normalisation):
            beta = np.full(size, float(np.nextafter(1.0 / np.sqrt(activation.eps), np.inf)) if activation.eps else np.inf)
            alpha, shared = -beta, True
        else:
            alpha, beta = activation.bounds(size)
            shared = False
        self.layers.append(Layer(folding.dense_blocks(value, f"the input of {name!r}"), value.bias, activation,
                                 alpha, beta, shared, name))
        for state, error in value.errors.items():
            self.errors[level, state] = error
        return folding.of_state(level, value.shape)

    def _softmax(self, dim: int | None, value: Affine, node: fx.Node) -> _Softmax:
        if len(value.shape) != 1 or dim not in (None, 1, -1):
            raise UnsupportedModule(f"{self._where(node)}: expected softmax over the classes of a (batch, K) tensor")
        return _Softmax(value)

    # -- functions and methods -------------------------------------------------------------------------------

    def _call(self, name: str, node: fx.Node, args: tuple, kwargs: dict) -> Any:
        first = args[0] if args else None
        if isinstance(first, Affine) and name == "getattr":
            return torch.Size((2, *first.shape)) if args[1] == "shape" else _refuse(self._where(node))
        if isinstance(first, Affine) and name in ("size", "dim"):
            full = torch.Size((2, *first.shape))
            return len(full) if name == "dim" else full[args[1]] if len(args) > 1 else full
        if not _mentions(args) and not _mentions(kwargs):
            target = node.target
            return getattr(first, target)(*args[1:], **kwargs) if isinstance(target, str) else target(*args, **kwargs)
        if name in ("add", "iadd", "add_", "sub", "isub", "sub_"):
            return _sum(args, kwargs, -1.0 if "sub" in name else 1.0, self._where(node))
        if name in ("mul", "imul", "mul_", "truediv", "div", "neg"):
            return _scaled(name, args, self._where(node))
        if name in ("cat", "concat", "concatenate", "stack"):
            return _concatenate(args, kwargs, name)
        if not isinstance(first, Affine):
            _refuse(self._where(node))
        if name in ("dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_dropout", "detach", "to", "identity"):
            return first
        rest = args[1:]
        function = _bound(node.target, rest, kwargs)
        if name in RESHAPES:
            return _reshape(function, first)
        if name in AVERAGES:
            return _average(function, first)
        if name == "linear":
            weight = _array(rest[0])
            bias = rest[1] if len(rest) > 1 else kwargs.get("bias")
            return self._linear(weight, None if bias is None else _array(bias), first)
        if name == "softmax":
            return self._softmax(rest[0] if rest else kwargs.get("dim"), first, node)
        activation = of_function(name, rest, kwargs)
        if activation is None:
            _refuse(self._where(node))
        return self._activate(activation, first, node.name)


def _refuse(where: str) -> Any:
    raise UnsupportedModule(f"{where} has no Lipschitz rule: expected affine operations (add, scale, reshape, "
                            "average, concatenate), a known activation or a final softmax")


def _double(module: nn.Module) -> Any:
    from copy import deepcopy

    return deepcopy(module).cpu().double().eval().requires_grad_(False)


def _default(node: fx.Node) -> Any:
    if node.args:
        return node.args[0]
    raise UnsupportedModule(f"the model takes a further input {node.name!r}; expected one tensor")


def _attribute(root: nn.Module, target: str) -> Any:
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part)
    return value


def _mentions(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_mentions(v) for v in value)
    if isinstance(value, dict):
        return any(_mentions(v) for v in value.values())
    return isinstance(value, (Affine, _Softmax))


def _bound(target: Any, rest: tuple, kwargs: dict) -> Any:
    if isinstance(target, str):
        return lambda tensor: getattr(tensor, target)(*rest, **kwargs)
    return lambda tensor: target(tensor, *rest, **kwargs)


def _reshape(function: Any, value: Affine) -> Any:
    """A function that only moves coordinates: found out by moving their indices, two samples at a time."""
    size = value.size
    index = torch.arange(2 * size).reshape(2, *value.shape)
    moved = function(index)
    if isinstance(moved, (tuple, list)):
        return tuple(_moved(m, value) for m in moved)
    return _moved(moved, value)


def _moved(moved: torch.Tensor, value: Affine) -> Affine:
    if moved.dim() < 1 or moved.shape[0] != 2 or not torch.equal(moved[1], moved[0] + value.size) \
            or int(moved[0].max()) >= value.size:
        raise UnsupportedModule("a reshape mixes samples of a batch; expected it to keep the batch dimension first")
    return folding.gather(moved[0].reshape(-1).numpy(), value, tuple(moved.shape[1:]))


def _average(function: Any, value: Affine) -> Affine:
    matrix, shape = folding.matrix_of(lambda b: function(torch.from_numpy(b)).numpy(), value.shape)
    return folding.apply(matrix, value, shape, 4 * UNIT * folding.norm(matrix))


def _constant(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = _array(value) if isinstance(value, torch.Tensor) else np.asarray(value, dtype=np.float64)
    if array.ndim > len(shape):
        if array.shape[0] != 1:
            raise ValueError(f"a constant of shape {array.shape} does not broadcast over samples of shape {shape}")
        array = array[0]
    return np.broadcast_to(array, shape).ravel()


def _sum(args: tuple, kwargs: dict, sign: float, where: str) -> Affine:
    a, b = args[0], args[1]
    if kwargs.get("alpha", 1) != 1:
        _refuse(where)
    if isinstance(a, Affine) and isinstance(b, Affine):
        if a.shape != b.shape:
            raise ValueError(f"expected equal shapes to add, got {a.shape} and {b.shape}")
        return folding.combine(a, b, sign)
    if isinstance(a, Affine):
        return Affine(a.shape, a.maps, a.bias + sign * _constant(b, a.shape), a.errors)
    if not isinstance(b, Affine):
        _refuse(where)
    maps = {s: sign * m for s, m in b.maps.items()}
    return Affine(b.shape, maps, sign * b.bias + _constant(a, b.shape), b.errors)


def _scaled(name: str, args: tuple, where: str) -> Affine:
    if name == "neg":
        return folding.scale(-np.ones(args[0].size), args[0], 0.0)
    a, b = args[0], args[1]
    if isinstance(a, Affine) and isinstance(b, Affine) or not (isinstance(a, Affine) or "div" not in name):
        _refuse(where)
    value, other = (a, b) if isinstance(a, Affine) else (b, a)
    if not isinstance(value, Affine) or isinstance(other, _Softmax):
        _refuse(where)
    factor = _constant(other, value.shape)
    return folding.scale(1.0 / factor if "div" in name else factor, value, 2 * UNIT)


def _concatenate(args: tuple, kwargs: dict, name: str) -> Affine:
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


