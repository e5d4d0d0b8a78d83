"""What re-execution needs to know about a network: its calls and operations, with shapes for any batch size."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from stabilitykit.base.errors import describe
from stabilitykit_adapters.dataflow import Dataflow
from stabilitykit_adapters.following import OpKey, Path, evaluating
from stabilitykit_adapters.outputs import OutputPath, OutputProblem
from stabilitykit_adapters.tracing import Event, Leaf, Recording, TraceProblem, Wanted, record

_OTHER_BATCHES = (1, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128)
"""Tried in order to say what is wrong with a network that fails at both of :data:`BATCHES`."""

BATCHES = (2, 3)
"""Two recordings tell what depends on the batch size: a size s(B) is read as a B + c."""


class Unreachable(Exception):
    """A state that re-execution cannot put in place; the message says why."""


@dataclass
class Program:
    """The calls and operations of one network, by position, with sizes as functions of the batch size.

    Plain data (no tensors, no autograd), so it can be copied and stored with the model.

    Attributes:
        calls, ops: events by path and by operation key; leaves carry vertex numbers.
        modules: path -> index in ``list(module.modules())``; names: that index -> dotted name.
        shapes: vertex -> shape with the batch size left open, only for tensors that calls or operations return.
        memory: vertex -> its axes from the slowest to the fastest in memory.
        births: vertex -> moment it is computed.
        mutated: vertices whose memory is written to later in the pass.
        input_vertex, output_vertex, output_path: the model's input and logits (where they are in the result).
        outputs: every tensor of the result by name, with its shape at B = 2.
        reads: where Python took a value out of data.
        input_shape: (C, H, W), without the batch. dtype: the input's while recording.
        timeline: (tick, "op" | "start" | "end", key) of every event, in order.
        first_seen: vertex -> tick of the first event that returns it (-1: the input).
        device: where it was recorded: ``"meta"`` unless that failed (then ``fallback`` says why).
    """

    calls: dict[Path, Event]
    ops: dict[OpKey, Event]
    modules: dict[Path, int]
    names: list[str]
    shapes: dict[int, Template]
    memory: dict[int, tuple[int, ...]]
    births: dict[int, float]
    mutated: set[int]
    input_vertex: int
    output_vertex: int
    output_path: OutputPath
    input_shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: str = "meta"
    fallback: str = ""
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    timeline: list[tuple[int, str, Any]] = field(default_factory=list)
    first_seen: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first_seen = {self.input_vertex: -1}
        for tick, what, key in self.timeline:
            if what != "start":
                for leaf in self.event(what, key).outputs:
                    if leaf.vertex is not None:
                        self.first_seen.setdefault(leaf.vertex, tick)

    def event(self, what: str, key: Any) -> Event:
        """The event a timeline entry (tick, what, key) is about."""
        return self.ops[key] if what == "op" else self.calls[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        return self  # never changed once built, and it holds no tensors

    @property
    def num_outputs(self) -> int:
        """K, the number of logits of one input."""
        return self.shapes[self.output_vertex].offsets[1]

    def name(self, path: Path) -> str:
        """Dotted module name of a call; a module called repeatedly has the same name each time."""
        return self.names[self.modules[path]]

    def children(self, path: Path) -> Iterator[Path]:
        """Direct child calls in order."""
        number = 0
        while (child := (*path, number)) in self.calls:
            yield child
            number += 1


@dataclass(frozen=True)
class Template:
    """A shape with the batch size left open: size i is ``slopes[i] * B + offsets[i]``."""

    slopes: tuple[int, ...]
    offsets: tuple[int, ...]

    def at(self, batch: int) -> tuple[int, ...]:
        return tuple(a * batch + c for a, c in zip(self.slopes, self.offsets))

    @property
    def batch_axis(self) -> int | None:
        """The one axis proportional to B, None when there is no such layout (images cannot be told apart)."""
        axes = [i for i, a in enumerate(self.slopes) if a]
        if len(axes) != 1 or self.offsets[axes[0]] != 0:
            return None
        return axes[0]

    @property
    def per_image(self) -> tuple[int, ...] | None:
        """Shape of one image's part: the batch axis removed, or split when it holds several rows per image."""
        axis = self.batch_axis
        if axis is None:
            return None
        rest = self.offsets[:axis] + self.offsets[axis + 1 :]
        factor = self.slopes[axis]
        if factor == 1:
            return rest
        # Rows of one image stand together on the leading axis (windows, heads): they become an axis of their own.
        return (factor, *rest) if axis == 0 else None


def template(first: tuple[int, ...], second: tuple[int, ...]) -> Template:
    """The shape that equals ``first`` at BATCHES[0] and ``second`` at BATCHES[1]."""
    if len(first) != len(second):
        raise TraceProblem("a tensor's number of axes depends on the batch size")
    slopes = tuple((b - a) // (BATCHES[1] - BATCHES[0]) for a, b in zip(first, second))
    return Template(slopes, tuple(a - s * BATCHES[0] for a, s in zip(first, slopes)))


def trace(
    module: nn.Module, input_shape: tuple[int, ...], wanted: Wanted | None = None
) -> tuple[Program, Dataflow, Recording]:
    """Record ``module`` at two batch sizes, on the meta device if that works, else where its weights are.

    Arguments:
        module: takes (B, *input_shape) to logits; left as it was found.
        wanted: which of several outputs holds the logits.

    Raises:
        TraceProblem: the model cannot be recorded, naming why.
        OutputProblem: no logits among the outputs, or several tensors that might be.
    """
    tensors = (*module.parameters(), *module.buffers())
    shape = f"inputs of shape (B, {', '.join(map(str, input_shape))})"
    if tensors and all(tensor.device.type == "meta" for tensor in tensors):
        try:
            return _trace(module, input_shape, torch.device("meta"), "", wanted)
        except (TraceProblem, OutputProblem):
            raise
        except Exception as error:
            raise TraceProblem(f"the forward pass failed on {shape}, without weights: {describe(error)}") from error
    try:
        return _trace(on_meta(module), input_shape, torch.device("meta"), "", wanted)
    except Exception as error:  # user code may fail on meta in any way; the real device decides
        fallback = describe(error)
    try:
        return _trace(module, input_shape, tensors[0].device if tensors else torch.device("cpu"), fallback, wanted)
    except (TraceProblem, OutputProblem):
        raise
    except Exception as error:
        text = f"the forward pass failed on {shape}, B = {BATCHES[0]} and {BATCHES[1]}: {describe(error)}"
        raise TraceProblem(f"{text}{_hint(module, input_shape, error)}") from error


def _hint(module: nn.Module, input_shape: tuple[int, ...], error: BaseException) -> str:
    """What about the network's code makes ``error`` likely."""
    needed = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1:
        return f"; forward takes {', '.join(needed)}: wrap the network in a module that takes the images alone"
    if isinstance(error, (KeyError, IndexError, TypeError, AttributeError)):
        return "; forward takes one tensor of images: wrap a network that takes anything else in a module that does"
    for batch in (b for b in _OTHER_BATCHES if b * math.prod(input_shape) < 10_000_000):
        try:
            with torch.no_grad(), evaluating(list(module.modules())):
                module(torch.zeros(batch, *input_shape))
        except Exception:
            continue
        return f"; it works for B = {batch}: a batch size is written into its code, use x.shape[0] there"
    return ""


def _trace(
    module: nn.Module, input_shape: tuple[int, ...], device: torch.device, fallback: str, wanted: Wanted | None
) -> tuple[Program, Dataflow, Recording]:
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    def recording(batch: int) -> Recording:
        zeros = torch.zeros(batch, *input_shape, device=device, dtype=dtype)
        return record(module, zeros, wanted, count_flops=batch == BATCHES[0])

    first, second = map(recording, BATCHES)
    if not _same_course(first, second):
        # Networks that cache tables (attention biases, masks) build them in their first pass only.
        first = recording(BATCHES[0])
    flow = Dataflow(first)
    program = _merge(module, first, second, flow, input_shape)
    program.device, program.fallback = device.type, fallback
    return program, flow, first


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of ``module`` whose parameters and buffers have shapes but no memory."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        ghost = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            ghost = nn.Parameter(ghost, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = ghost
    return copy.deepcopy(module, memo)


def _merge(
    module: nn.Module, first: Recording, second: Recording, flow: Dataflow, input_shape: tuple[int, ...]
) -> Program:
    if not _same_course(first, second):
        raise TraceProblem("the forward pass takes another course at another batch size")
    shapes: dict[int, Template] = {}
    memory: dict[int, tuple[int, ...]] = {}
    for event, other in _together(first, second):
        for leaf, twin in zip(event.outputs, other.outputs):
            _open_batch(leaf, twin, flow)
            if leaf.vertex is not None:
                shapes[leaf.vertex] = leaf.value
                memory.setdefault(leaf.vertex, leaf.axes)
        for leaf in event.inputs:
            leaf.vertex, leaf.node = flow.vertex(leaf.node), None
    shapes[flow.input] = template((BATCHES[0], *input_shape), (BATCHES[1], *input_shape))
    mutated = {v for v in map(flow.vertex, first.mutated) if v is not None}
    timeline: list[tuple[int, str, Any]] = [(e.start, "op", key) for key, e in first.ops.items()]
    for path, event in first.calls.items():
        timeline += [(event.start, "start", path), (event.end, "end", path)]
    return Program(
        calls=first.calls,
        ops=first.ops,
        modules=first.modules,
        names=[name for name, _ in module.named_modules()],
        shapes=shapes,
        memory=memory,
        births={v.number: v.birth for v in flow.vertices},
        mutated=mutated,
        input_vertex=flow.input,
        output_vertex=flow.output,
        output_path=first.output_path,
        input_shape=input_shape,
        dtype=first.dtype,
        outputs=first.outputs,
        reads=first.reads,
        timeline=sorted(timeline),
    )


def _together(first: Recording, second: Recording) -> Iterator[tuple[Event, Event]]:
    """The same event in both recordings."""
    yield from ((event, second.calls[path]) for path, event in first.calls.items())
    yield from ((event, second.ops[key]) for key, event in first.ops.items())


def _same_course(first: Recording, second: Recording) -> bool:
    """Whether both passes made the same calls and operations."""
    if first.calls.keys() != second.calls.keys() or first.ops.keys() != second.ops.keys():
        return False
    return all(
        one.name == other.name and len(one.outputs) == len(other.outputs) for one, other in _together(first, second)
    )


def _open_batch(leaf: Leaf, twin: Leaf, flow: Dataflow) -> None:
    """Replace the recorded leaf's autograd key by its vertex and its sizes by functions of the batch size."""
    if leaf.kind != twin.kind:
        raise TraceProblem("what a call returns depends on the batch size")
    leaf.vertex, leaf.node = flow.vertex(leaf.node), None
    if leaf.kind == "data":
        leaf.value = template(leaf.shape, twin.shape)
    elif leaf.kind == "plain" and leaf.value != twin.value:
        if type(leaf.value) is not int or type(twin.value) is not int:
            raise TraceProblem("a Python value that a call returns depends on the batch size")
        leaf.value = template((leaf.value,), (twin.value,))


def image_shape_of(program: Program, vertex: int) -> tuple[int, ...]:
    """Shape of one image's part of a tensor.

    Raises:
        Unreachable: no call or operation returns the tensor, or its layout does not keep images apart.
    """
    shape = program.shapes.get(vertex)
    if shape is None:
        raise Unreachable("a tensor of the state is made where no call or operation can be seen")
    if shape.per_image is None:
        raise Unreachable("the state's layout does not keep images apart")
    return shape.per_image
