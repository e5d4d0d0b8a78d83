"""From a graph to a network: constants folded, nodes ordered by the modules they stood in, modules put together."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from stabilitykit import CellProblem
from stabilitykit.base.errors import StabilityKitError, describe
from stabilitykit_onnx.layers import LINEAR, layer
from stabilitykit_onnx.network import Input, Kept, Named, OnnxNetwork, Part, Plain, Step, computed, part_class
from stabilitykit_onnx.ordering import ordered
from stabilitykit_onnx.reading import Graph, Node
from stabilitykit_onnx.scopes import plain

MOST_NUMBERS = 64
"""Whole numbers of a constant that is sizes or axes rather than data."""


def build(graph: Graph) -> OnnxNetwork:
    """The network of ``graph`` in eval mode, its weights as parameters of the modules that use them."""
    constants, weights = _folded(graph)
    nodes = _needed(graph, [node for node in graph.nodes if not _constant(node, constants)])
    nodes = ordered(_with_linear(nodes, constants, graph.outputs), constants)
    return _Builder(graph, nodes, constants, weights).network().eval()


def _constant(node: Node, constants: Mapping[str, torch.Tensor]) -> bool:
    return all(name in constants for name in node.outputs if name)


def _folded(graph: Graph) -> tuple[dict[str, torch.Tensor], set[str]]:
    """(everything that does not depend on the images by name, which of that comes from weights)."""
    constants, weights = dict(graph.constants), set(graph.constants)
    for node in graph.nodes:
        inputs = [name for name in node.inputs if name]
        if not all(name in constants for name in inputs):
            continue
        try:
            result = _value_of(node, constants)
        except StabilityKitError:
            raise
        except Exception as error:
            raise CellProblem(f"node {node.attributes.name!r} ({node.attributes.op}): {describe(error, 200)}") from None
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(node.outputs, results):
            constants[name] = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
        if any(name in weights for name in inputs):
            weights |= {name for name in node.outputs if constants[name].is_floating_point()}
    return constants, weights


def _value_of(node: Node, constants: Mapping[str, torch.Tensor]) -> Any:
    if node.attributes.op != "Constant":
        return computed(node.attributes, [constants[name] if name else None for name in node.inputs])
    value = next(iter(node.attributes.values.values()))
    if isinstance(value, torch.Tensor):
        return value
    return torch.tensor(value, dtype=torch.int64 if _whole(value) else torch.float32)


def _whole(value: Any) -> bool:
    return all(isinstance(v, int) for v in (value if isinstance(value, list) else [value]))


def _needed(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """The nodes that an output depends on."""
    wanted, kept = set(graph.outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


def _with_linear(nodes: Sequence[Node], constants: Mapping[str, torch.Tensor], outputs: Sequence[str]) -> list[Node]:
    """Products with a constant matrix and the addition of a constant vector behind them, joined."""
    users = Counter(name for node in nodes for name in node.inputs) + Counter(outputs)
    products = {n.outputs[0]: n for n in nodes if n.attributes.op == "MatMul" and _matrix(n.inputs[1], constants)}
    joined: dict[str, Node] = {}
    left_out = set()
    for node in nodes:
        if node.attributes.op != "Add":
            continue
        for value, bias in (node.inputs, node.inputs[::-1]):
            product = products.get(value)
            if product is None or users[value] > 1 or bias not in constants:
                continue
            if tuple(constants[bias].shape) == tuple(constants[product.inputs[1]].shape[1:]):
                attributes = replace(product.attributes, op=LINEAR, values={})
                joined[node.outputs[0]] = replace(
                    product, attributes=attributes, inputs=(*product.inputs, bias), outputs=node.outputs
                )
                left_out.add(value)
    return [joined.get(node.outputs[0], node) for node in nodes if node.outputs[0] not in left_out]


def _matrix(name: str, constants: Mapping[str, torch.Tensor]) -> bool:
    return name in constants and constants[name].ndim == 2


class _Builder:
    def __init__(
        self, graph: Graph, nodes: Sequence[Node], constants: Mapping[str, torch.Tensor], weights: set[str]
    ) -> None:
        self.graph, self.nodes, self.constants, self.weights = graph, nodes, constants, weights
        self.made = {name: n for n, node in enumerate(nodes) for name in node.outputs if name}
        self.read: dict[str, int] = dict.fromkeys(graph.outputs, len(nodes))
        for n, node in enumerate(nodes):
            for name in node.inputs:
                self.read[name] = max(self.read.get(name, -1), n)
        self.parameters: dict[tuple[str, str], nn.Parameter] = {}
        self.classes: dict[tuple[str, bool], type[Part]] = {}
        self.facts = hashlib.sha256(repr(graph.outputs).encode())

    def network(self) -> OnnxNetwork:
        for node in self.nodes:
            values = {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in node.attributes.values.items()}
            small = [self._plain(name) for name in node.inputs]
            self.facts.update(repr((node.attributes.op, sorted(values.items()), node.inputs, small)).encode())
        root = OnnxNetwork([self.graph.input], self.graph.outputs, self.facts.digest(), self.graph.batch)
        self._fill(root, 0, len(self.nodes), 0)
        return root

    # Modules

    def _fill(self, part: Part, start: int, end: int, depth: int) -> str:
        """Put nodes ``start`` to ``end``, which share their first ``depth`` scopes, into ``part`` -> what they do."""
        signature = []
        position = start
        while position < end:
            scope = self.nodes[position].scope
            if len(scope) <= depth:
                signature.append(self._operation(part, position))
                position += 1
                continue
            stop = position + 1
            while stop < end and self.nodes[stop].scope[depth : depth + 1] == scope[depth : depth + 1]:
                stop += 1
            signature.append(self._child(part, scope[depth], position, stop, depth + 1))
            position = stop
        part.steps = _with_ends(part)
        return "(" + " ".join(signature) + ")"

    def _child(self, parent: Part, name: str, start: int, end: int, depth: int) -> str:
        """A module below ``parent``; a layer of torch.nn where it is one node, or one module, that is a layer."""
        takes, gives = self._borders(start, end)
        made = Part(takes, gives)
        inner = self._fill(made, start, end, depth)
        attribute = _free(parent, name)
        only = made.steps[0] if len(made.steps) == 1 else None
        if only is not None and only.child and [Named(t) for t in takes] == list(only.inputs):
            module = made._modules[only.child]
            if not isinstance(module, Part):
                parent.add_module(attribute, module)
                parent.steps.append(Step(only.inputs, only.outputs, attribute))
                return inner
        known = {node.classes[depth - 1] for node in self.nodes[start:end] if len(node.classes) >= depth}
        name = known.pop() if len(known) == 1 else inner
        chain = name.endswith(("container.Sequential", "container.ModuleList")) or (
            name == inner and bool(made._modules) and all(key.isdigit() for key in made._modules)
        )
        made.__class__ = self._class(name, chain)
        parent.add_module(attribute, made)
        parent.steps.append(Step(tuple(map(Named, takes)), tuple(gives), attribute))
        return f"<{name}>"

    def _class(self, name: str, chain: bool) -> type[Part]:
        short = name.rpartition(".")[2] if name.replace(".", "").replace("_", "").isalnum() else "Part"
        return self.classes.setdefault((name, chain), part_class(short, chain))

    def _borders(self, start: int, end: int) -> tuple[list[str], list[str]]:
        """(names read in these nodes and computed before them, names computed in them and read after them)."""
        inside = self.nodes[start:end]
        read = dict.fromkeys(name for node in inside for name in node.inputs if name and name not in self.constants)
        takes = [name for name in read if self.made.get(name, -1) < start]
        gives = [name for node in inside for name in node.outputs if name and self.read.get(name, -1) >= end]
        return takes, gives

    def _operation(self, part: Part, position: int) -> str:
        node = self.nodes[position]
        made = layer(node, self.constants, self._parameter)
        outputs = tuple(node.outputs)
        if made is not None:
            attribute = _free(part, plain(node.attributes.op.partition("+")[0].lower()))
            part.add_module(attribute, made)
            part.steps.append(Step((Named(node.inputs[0]),), outputs, attribute))
        else:
            attributes = node.attributes
            inputs = tuple(self._input(part, name, attributes) for name in node.inputs)
            if attributes.op == LINEAR:
                raise AssertionError("a product with a matrix is always a layer")
            part.steps.append(Step(inputs, outputs, attributes=attributes))
        return node.attributes.op

    # Constants

    def _parameter(self, name: str, how: str) -> nn.Parameter:
        if (name, how) not in self.parameters:
            tensor = self.constants[name]
            tensor = tensor.t().contiguous() if how == "t" else tensor
            self.parameters[name, how] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        return self.parameters[name, how]

    def _plain(self, name: str) -> Any:
        """A constant that is plain numbers: sizes, axes, one factor; None for anything else."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.ndim > 1 or tensor.dtype in (torch.int8, torch.uint8, torch.uint16):
            return None
        whole = not tensor.is_floating_point() and tensor.numel() <= MOST_NUMBERS
        return tensor.tolist() if whole or tensor.numel() == 1 else None

    def _input(self, part: Part, name: str, attributes: Any) -> Input:
        if not name:
            return Plain()
        if name not in self.constants:
            return Named(name)
        numbers = self._plain(name)
        if numbers is not None:
            return Plain(numbers)
        quantising = attributes.op in ("QuantizeLinear", "DequantizeLinear")
        own = plain(name.rpartition(".")[2].rpartition("/")[2])
        if name in self.weights and self.constants[name].is_floating_point() and not quantising:
            parameter = self._parameter(name, "")
            for key, other in part._parameters.items():
                if other is parameter:
                    return Kept(key)
            key = _free(part, own)
            part.register_parameter(key, parameter)
            return Kept(key)
        key = _free(part, own)
        part.register_buffer(key, self.constants[name].clone())
        return Kept(key)


def _free(part: Part, name: str) -> str:
    """``name``, or with a number behind it where the part has something of that name."""
    taken = (*part._modules, *part._parameters, *part._buffers)
    for number in itertools.count():
        candidate = name if number == 0 else f"{name}_{number}"
        if candidate not in taken and not hasattr(Part, candidate) and candidate not in ("takes", "gives", "steps"):
            return candidate
    raise AssertionError


def _with_ends(part: Part) -> list[Step]:
    """The steps of a part, each with what is not read after it."""
    seen, steps = set(part.gives), []
    for step in reversed(part.steps):
        read = {used.name for used in step.inputs if isinstance(used, Named)}
        over = tuple(name for name in dict.fromkeys((*read, *step.outputs)) if name and name not in seen)
        seen |= read
        steps.append(replace(step, over=over))
    return steps[::-1]
