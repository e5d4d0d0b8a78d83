"""A network with int8 weights, and with int8 inputs of its layers: emulated, sums are taken in float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stabilitykit import CellProblem
from stabilitykit_precision.layers import Layer, Left, quantisable
from stabilitykit_precision.rounding import rounded_input, rounded_weight


@dataclass(frozen=True)
class IntegerScheme:
    """How int8 is done.

    Attributes:
        per_channel: weights have one scale per output channel, else one per tensor.
        inputs: inputs of the layers are rounded, too.
        static: their ranges are read from calibration images, else from every image itself.
    """

    per_channel: bool = True
    inputs: bool = False
    static: bool = True

    def text(self, images: int) -> str:
        """The scheme in words; ``images`` is how many calibrate."""
        scales = "output channel" if self.per_channel else "tensor"
        parts = [
            f"weights of Linear, convolution and MultiheadAttention layers on 256 levels, symmetric, one scale per "
            f"{scales} (largest magnitude / 127.5)"
        ]
        if self.inputs:
            ranges = (
                f"one static range per tensor, smallest to largest value over {images} calibration images"
                if self.static
                else "one dynamic range per tensor and image (row of the first axis)"
            )
            parts.append(f"inputs of these layers on 256 levels, affine, {ranges}")
        return "; ".join(parts) + "; all else in float; emulated, sums are taken in float"


def round_weights(layers: Iterable[Layer], per_channel: bool) -> None:
    """Round the weights of ``layers`` in place; one that several layers share once."""
    tensors = {id(weight): weight for layer in layers for weight in layer.tensors()}
    with torch.no_grad():
        for weight in tensors.values():
            weight.copy_(rounded_weight(weight, per_channel))


class InputRounding:
    """Rounds the inputs of one layer, in a hook that runs before it.

    Attributes:
        calls: how often the layer was called; one that never is (its weights are used by other code) is not rounded.
    """

    def __init__(self, layer: Layer, static: bool) -> None:
        self.layer, self.calls = layer, 0
        self.watching = static
        self._static = static
        self._low: dict[int, torch.Tensor] = {}
        self._high: dict[int, torch.Tensor] = {}
        layer.module.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls += 1
        names = ("query", "key", "value") if self.layer.inputs > 1 else ("input",)
        # One tensor given three times stays one tensor: MultiheadAttention then multiplies once.
        done: dict[int, torch.Tensor] = {}
        given = [*args[: self.layer.inputs], *(kwargs[name] for name in names[len(args) :] if name in kwargs)]
        for place, value in enumerate(given):
            done.setdefault(id(value), self._rounded(place, value))
        changed = [done.get(id(value), value) for value in args[: self.layer.inputs]]
        more = {key: done.get(id(value), value) if key in names else value for key, value in kwargs.items()}
        return (*changed, *args[self.layer.inputs :]), more

    def _rounded(self, place: int, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.numel() == 0:
            return value
        if self.watching:
            self._see(place, value)
            return value
        if self._static:
            if place not in self._low:
                return value
            return rounded_input(value, self._low[place], self._high[place])
        rows = value.detach().reshape(len(value), -1)
        return rounded_input(value, rows.amin(dim=1), rows.amax(dim=1))

    def _see(self, place: int, value: torch.Tensor) -> None:
        low, high = value.detach().amin().reshape(1), value.detach().amax().reshape(1)
        self._low[place] = torch.minimum(low, self._low.get(place, low))
        self._high[place] = torch.maximum(high, self._high.get(place, high))


class IntegerNetwork:
    """int8 put on a network, in place.

    Arguments:
        network: becomes the int8 network; a copy of the one that is measured.

    Attributes:
        left: what stays in float, with the reason.
    """

    def __init__(self, network: nn.Module, scheme: IntegerScheme) -> None:
        """Round the weights.

        Raises:
            CellProblem: no layer has a rule; with those that have none.
        """
        self.scheme = scheme
        self.layers, self.left = quantisable(network)
        if not self.layers:
            raise CellProblem(f"no layer of the network has a rule for int8 ({_listed(self.left)})")
        self._roundings = [InputRounding(layer, scheme.static) for layer in self.layers] if scheme.inputs else []
        if not (scheme.inputs and scheme.static):
            round_weights(self.layers, scheme.per_channel)

    @property
    def calibrating(self) -> bool:
        """Whether ranges are still read; :meth:`calibrated` ends that."""
        return any(rounding.watching for rounding in self._roundings)

    def calibrated(self) -> None:
        """The calibration images have run through the float network: fix the ranges, round the weights."""
        for rounding in self._roundings:
            rounding.watching = False
        round_weights(self.layers, self.scheme.per_channel)

    def in_float(self) -> list[Left]:
        """What is left in float, once the network has run: layers without a rule, inputs that no hook sees."""
        unseen = [
            Left(r.layer.name, type(r.layer.module).__name__, "inputs", "its weights are used without calling it")
            for r in self._roundings
            if r.calls == 0
        ]
        return [*self.left, *unseen]


def _listed(left: Sequence[Left]) -> str:
    return ", ".join(f"{part.kind} {part.name}" for part in left[:10]) or "it has no weights"
