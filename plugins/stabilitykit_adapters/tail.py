"""The tail of a network as one chain of standard layers, where its calls and operations form one.

Certified Lipschitz bounds need the layers themselves. The chain is read off the record after the last block: every
call of a standard layer, and the few functional operations that equal one. Anything else: there is no chain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stabilitykit_adapters.following import Path
from stabilitykit_adapters.program import Program
from stabilitykit_adapters.runs import Run
from stabilitykit_adapters.tracing import Event

STANDARD = (
    nn.Linear,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.ELU,
    nn.Softplus,
    nn.Mish,
    nn.SELU,
    nn.Hardswish,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.Conv2d,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
)
METHODS = {"mean", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "movedim", "select", "__getitem__"}
"""Functional operations taken over as they were called; ``view`` and ``reshape`` only where they flatten."""
LARGE = 16_384
"""A tail that normalises every token of a larger state is not given out as layers: bounding it, token by token over
the whole state, takes n^2 numbers, gigabytes from here on."""
NOTHING = {"dropout", "contiguous", "clone", "to", "float"}


class Operation(nn.Module):
    """``x.name(*args, **kwargs)`` as a layer."""

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.args, self.kwargs = name, args, kwargs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.name == "__getitem__":
            return x[self.args[0]]
        return getattr(x, self.name)(*self.args, **self.kwargs)

    def extra_repr(self) -> str:
        return f"{self.name}, {self.args}"


def tail_module(
    module: nn.Module, program: Program, run: Run, columns: Sequence[int] | None = None
) -> nn.Module | None:
    """g as an ``nn.Sequential`` on states (B, *shape), sharing the network's layers; None where it is no chain.

    The adapter's certificate compares it with the re-executed tail; subclasses of standard layers count as what
    they derive from only if they keep its forward.
    """
    if len(run.shape) != 1 or run.sides:
        return None
    return joined(module, program, [(run.blocks[-1].end[0], program.output_vertex)], columns)


def joined(
    module: nn.Module, program: Program, parts: Sequence[tuple[int, int]], columns: Sequence[int] | None = None
) -> nn.Module | None:
    """The layers between the vertices of each part, one part after the other, as an ``nn.Sequential``.

    Arguments:
        parts: (before, after); the last one ends with the logits.

    Returns:
        None where one of them is no chain of standard layers, or too large to be bounded.
    """
    layers: list[nn.Module] = []
    for before, after in parts:
        if program.shapes[before].batch_axis != 0:
            return None
        found = _chain(module, program, before, after)
        if found is None:
            return None
        layers += found
    layers = _select_early(layers)
    size = math.prod(program.shapes[parts[0][0]].per_image or ())
    if size > LARGE and any(isinstance(layer, nn.LayerNorm) for layer in layers[:1]):
        return None
    if columns is not None:
        layers = _with_columns(layers, columns)
    return nn.Sequential(*layers).eval() if layers else None


def _chain(module: nn.Module, program: Program, start: int, end: int) -> list[nn.Module] | None:
    """The layers that lead from one vertex to another."""
    layers: list[nn.Module] = []
    position = start
    for _, what, key in program.timeline:
        if position == end:
            return layers
        event = program.ops[key] if what == "op" else program.calls[key]
        if what == "end" or not event.carries_data:
            continue
        out = _single(event)
        if out is None or program.births.get(out, -1.0) <= program.births[position]:
            continue
        layer = _called(module, program, key, event, position) if what == "start" else None
        if layer is None and what == "op" and not _inside_layer(module, program, key[0]):
            layer = _operation(program, event, position, out)
            if layer is None:
                return None
        if layer is not None:
            layers.append(layer)
            position = out
    return layers if position == end else None


def _select_early(layers: list[nn.Module]) -> list[nn.Module]:
    """Normalising every token and keeping one is keeping one and normalising it: the same numbers, a smaller layer."""
    layers = list(layers)
    for n in range(len(layers) - 1):
        norm, pick = layers[n], layers[n + 1]
        if (
            isinstance(norm, nn.LayerNorm)
            and len(norm.normalized_shape) == 1
            and isinstance(pick, Operation)
            and pick.name == "__getitem__"
            and pick.args
            and _picks_token(pick.args[0])
        ):
            layers[n], layers[n + 1] = pick, norm
    return layers


def _picks_token(index: Any) -> bool:
    """Whether an index is ``x[:, 3]``, or ``x[:, 3, :]``, which is the same."""
    if not isinstance(index, tuple) or len(index) < 2 or not isinstance(index[1], int):
        return False
    return all(other == slice(None) for other in (index[0], *index[2:]))


def _single(event: Event) -> int | None:
    vertices = [leaf.vertex for leaf in event.outputs if leaf.vertex is not None]
    return vertices[0] if len(event.outputs) == 1 and len(vertices) == 1 else None


def _called(module: nn.Module, program: Program, path: Path, event: Event, position: int) -> nn.Module | None:
    part = module.get_submodule(program.name(path)) if program.name(path) else module
    inputs = [leaf.vertex for leaf in event.inputs]
    return _plain(part) if inputs == [position] and _standard(part) else None


def _plain(part: nn.Module) -> nn.Module:
    """timm's LayerNorm computes what torch's does, by another route: the same layer under the usual class."""
    if not isinstance(part, nn.LayerNorm) or type(part) is nn.LayerNorm:
        return part
    twin = nn.LayerNorm(part.normalized_shape, part.eps, part.elementwise_affine, part.bias is not None)
    twin.weight, twin.bias = part.weight, part.bias
    return twin


def _inside_layer(module: nn.Module, program: Program, path: Path) -> bool:
    return bool(program.name(path)) and _standard(module.get_submodule(program.name(path)))


def _standard(part: nn.Module) -> bool:
    if type(part).__name__ == "LayerNorm" and isinstance(part, nn.LayerNorm):
        return True
    return any(isinstance(part, kind) and type(part).forward is kind.forward for kind in STANDARD)


def _operation(program: Program, event: Event, before: int, after: int) -> nn.Module | None:
    """The layer that a functional operation equals, judged by its name and the sizes it maps between."""
    old, new = program.shapes[before].per_image, program.shapes[after].per_image
    if old is None or new is None:
        return None
    if event.name in NOTHING and old == new:
        return nn.Identity()
    if event.name in ("view", "reshape", "flatten") and len(new) == 1 and math.prod(old) == new[0]:
        return nn.Flatten(1)
    if event.name in METHODS and event.rest is not None:
        return Operation(event.name, *event.rest)
    if event.name in ("adaptive_avg_pool2d", "avg_pool2d") and len(old) == len(new) == 3 and new[1:] == (1, 1):
        return nn.AdaptiveAvgPool2d(1)
    if event.name == "relu" and old == new:
        return nn.ReLU()
    return None


def _with_columns(layers: list[nn.Module], columns: Sequence[int]) -> list[nn.Module]:
    last = layers[-1]
    if not isinstance(last, nn.Linear):
        return []
    chosen = nn.Linear(last.in_features, len(columns), bias=last.bias is not None)
    chosen.to(last.weight.device, last.weight.dtype).requires_grad_(False)
    chosen.weight.copy_(last.weight.detach()[list(columns)])
    if last.bias is not None:
        chosen.bias.copy_(last.bias.detach()[list(columns)])
    return [*layers[:-1], chosen]
