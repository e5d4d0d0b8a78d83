"""The network of an ONNX graph as an nn.Module: the modules it was exported from, as far as the file knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stabilitykit_onnx.attributes import Attributes, Batch
from stabilitykit_onnx.operators import OPERATORS
from stabilitykit_onnx.operators.values import Value, as_host, is_host


@dataclass(frozen=True)
class Named:
    """An input computed in this pass: its name in the graph."""

    name: str


@dataclass(frozen=True)
class Kept:
    """An input the module holds as a parameter or buffer: that one's name."""

    name: str


@dataclass(frozen=True)
class Plain:
    """An input that is plain numbers (sizes, axes, one factor), or left out."""

    value: Value = None


Input = Named | Kept | Plain


@dataclass(frozen=True)
class Step:
    """One call of a child module, or one operation.

    Attributes:
        child: name of the module that is called; empty: an operation, told by ``attributes``.
        over: values that no later step reads.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    child: str = ""
    attributes: Attributes | None = None
    over: tuple[str, ...] = ()


class Part(nn.Module):
    """A module of the exported network: children and operations in order.

    ``forward`` takes what is computed outside and read inside, ``takes``, and returns what is read outside, ``gives``;
    sizes go in and out as plain numbers, tensors are (B, ...) of the network's dtype. Parts that were one class, or do
    the same, are of one class of their own made by :func:`part_class`.
    """

    def __init__(self, takes: Sequence[str], gives: Sequence[str]) -> None:
        nn.Module.__init__(self)  # lists of modules have a constructor of their own
        self.takes, self.gives = tuple(takes), tuple(gives)
        self.steps: list[Step] = []

    def forward(self, *given: Value) -> Any:
        values: dict[str, Value] = dict(zip(self.takes, given))
        for step in self.steps:
            inputs = [self._input(used, values) for used in step.inputs]
            if step.child:
                result = self._modules[step.child](*inputs)  # type: ignore[misc]
            else:
                assert step.attributes is not None
                result = computed(step.attributes, inputs)
            many = isinstance(result, tuple)
            values.update(zip(step.outputs, result if many else (result,)))
            for name in step.over:
                del values[name]
        results = tuple(values[name] for name in self.gives)
        return results if len(results) > 1 else results[0]

    def _input(self, used: Input, values: dict[str, Value]) -> Value:
        if isinstance(used, Named):
            return values[used.name]
        if isinstance(used, Plain):
            return used.value
        tensor = self._parameters.get(used.name)
        return tensor if tensor is not None else self._buffers[used.name]


def part_class(name: str, chain: bool) -> type[Part]:
    """A class of modules; ``chain``: those are containers that only call one child after the other."""
    bases = (Part, nn.Sequential) if chain else (Part,)
    return type(name, bases, {"__doc__": "Modules of an exported network that were of one class."})


def computed(attributes: Attributes, inputs: Sequence[Value]) -> Any:
    """The result of one operation; plain numbers where all its inputs are."""
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    given = [value for value in inputs if value is not None]
    function = OPERATORS[attributes.op]
    if not given or not all(map(is_host, given)):
        return function(attributes, *inputs)
    result = function(attributes, *(None if v is None else torch.as_tensor(v) for v in inputs))
    return as_host(result) if isinstance(result, torch.Tensor) else result


class OnnxNetwork(Part):
    """A whole graph: images (B, C, H, W) -> the output, or name -> output where there are several.

    Arguments:
        digest: of everything in the file that is no weight: operators, attributes, plain numbers.
        batch: shared by all operations.
    """

    graph: torch.Tensor

    def __init__(self, takes: Sequence[str], gives: Sequence[str], digest: bytes, batch: Batch) -> None:
        super().__init__(takes, gives)
        self.batch = batch
        # A buffer, so that the fingerprint of the weights is one of the graph, too.
        self.register_buffer("graph", torch.tensor(list(digest), dtype=torch.uint8))

    def forward(self, *given: Value) -> Any:
        self.batch.ratio = int(given[0].shape[0]) if self.batch.fixed else 1
        result = super().forward(*given)
        return dict(zip(self.gives, result)) if len(self.gives) > 1 else result
