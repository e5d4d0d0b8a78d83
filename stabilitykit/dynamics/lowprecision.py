"""Blocks in a low-precision number format, emulated on any device with the same result.

What is emulated: weights, and the inputs and outputs of every layer with parameters, are rounded to the format; sums
are accumulated in float32, as tensor cores do. ``bf16`` and ``fp16`` also round the state between blocks. ``int8``
rounds the weights of linear and convolution layers (symmetric, one scale per output channel) and their inputs
(symmetric, one scale per image) and leaves the rest in float32, as post-training quantisation does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stabilitykit.base.errors import CellProblem, UsageProblem

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import Model, State

FORMATS = ("bf16", "fp16", "int8")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MATRIX_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def editable_copy(model: Model) -> Model:
    """A deep copy whose parameters may be changed without touching ``model``; CellProblem when it cannot be made."""
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise CellProblem(
            f"model {model.name} cannot be copied for perturbing its blocks "
            f"({type(error).__name__}: {error}); make it work with copy.deepcopy"
        ) from error
    mine = {parameter.data_ptr() for parameter in model.module.parameters() if parameter.numel()}
    if any(parameter.data_ptr() in mine for parameter in twin.module.parameters() if parameter.numel()):
        raise CellProblem(
            f"model {model.name}: its deep copy shares parameters with it, so its blocks cannot be "
            "perturbed safely; let copy.deepcopy copy the module"
        )
    return twin


class LowPrecision:
    """A copy of a model's blocks run in a low-precision format.

    Arguments:
        model: left as it is.
        format: ``"bf16"``, ``"fp16"`` or ``"int8"``.
    """

    def __init__(self, model: Model, format: str) -> None:
        """Copy ``model`` and round its weights to ``format``.

        Raises:
            UsageProblem: ``format`` is none of FORMATS.
        """
        if format not in FORMATS:
            raise UsageProblem(f"format is one of {', '.join(FORMATS)}; got {format!r}")
        self.format = format
        self.twin = editable_copy(model)
        with torch.no_grad():
            for module in self.twin.module.modules():
                self._prepare(module)

    def block(self, t: int, state: State) -> State:
        """phi^_t: the block in the format; takes and gives states (B, ...) of the model's own dtype."""
        if self.format == "int8":
            return self.twin.block(t, state)
        rounded = self.twin.block(t, _each(lambda part: round_to(part, self.format), state))
        result: State = _each(lambda part: round_to(part, self.format), rounded)
        return result

    def _prepare(self, module: nn.Module) -> None:
        if self.format == "int8":
            if isinstance(module, _MATRIX_LAYERS):
                module.weight.copy_(quantise(module.weight, dim=_output_dim(module)))
                module.register_forward_pre_hook(_quantise_inputs)
            elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
                module.in_proj_weight.copy_(quantise(module.in_proj_weight, dim=0))
            return
        own = list(module.parameters(recurse=False)) + list(module.buffers(recurse=False))
        for tensor in own:
            if tensor.is_floating_point():
                tensor.copy_(round_to(tensor, self.format))
        if own and not list(module.children()):
            module.register_forward_pre_hook(lambda _, inputs: _each(lambda x: round_to(x, self.format), inputs))
            module.register_forward_hook(lambda _, inputs, output: _each(lambda x: round_to(x, self.format), output))


def round_to(tensor: torch.Tensor, format: str) -> torch.Tensor:
    """``tensor`` (any shape) rounded to bf16 or fp16 and back to its own dtype.

    fp16 overflows to infinity above 65,504.
    """
    return tensor.to(_DTYPES[format]).to(tensor.dtype) if tensor.is_floating_point() else tensor


def quantise(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """``tensor`` (any shape) on the 255 levels of symmetric int8, in its own dtype.

    Every index of ``dim`` has a scale of its own: its largest magnitude / 127.
    """
    others = [d for d in range(tensor.ndim) if d != dim]
    largest = tensor.abs().amax(dim=others, keepdim=True) if others else tensor.abs()
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (tensor / scale).round().clamp(-127, 127) * scale


def _quantise_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_each(lambda x: quantise(x, dim=0) if x.is_floating_point() and x.ndim > 1 else x, inputs))


def _output_dim(module: nn.Module) -> int:
    return 1 if getattr(module, "transposed", False) else 0


def _each(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_each(function, part) for part in value)
    return value
