"""Record one forward pass: every module call, every tensor operation, and who feeds whom.

Only the input requires a gradient while recording, so the autograd graph *is* the dataflow graph of input-dependent
tensors; position embeddings, rotary tables and masks drop out as constants. On the meta device nothing is
computed and nothing allocated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from stabilitykit_adapters.following import (
    Follower,
    OpKey,
    Path,
    Routes,
    as_written,
    differentiable,
    evaluating,
    makes_tensor,
    without_parameter_gradients,
)
from stabilitykit_adapters.outputs import OutputPath, choose_output, tensors_in, text_of

READING = {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy"}
"""Functions that take a Python value out of a tensor."""

NodeKey = tuple[Any, int]
"""A tensor of the autograd graph: (grad_fn, output number)."""


@dataclass
class Leaf:
    """One tensor or constant inside what a call or an operation returned.

    Attributes:
        kind: ``"data"`` depends on the input, ``"constant"`` is a tensor that does not, ``"plain"`` a Python
            value, ``"opaque"`` anything else (its tensors cannot be seen).
        node: the autograd tensor of a ``"data"`` leaf while recording; replaced by ``vertex`` afterwards.
        vertex: number of the dataflow vertex (``"data"`` only).
        shape, dtype: of tensors.
        value: of ``"plain"`` leaves.
        axes: axes from the slowest to the fastest in memory.
        written: position, among the leaves of the arguments, of the tensor that was written to and returned.
    """

    kind: str
    node: NodeKey | None = None
    vertex: int | None = None
    shape: tuple[int, ...] = ()
    dtype: torch.dtype | None = None
    value: Any = None
    axes: tuple[int, ...] = ()
    written: int | None = None


@dataclass
class Event:
    """One module call or one tensor operation.

    Attributes:
        start, end: position in the common order of all events (equal for operations).
        seq_start, seq_end: autograd sequence numbers at these moments.
        inputs: data leaves of the arguments, in order of appearance (calls only).
        spec, outputs: how the result is put together, and its leaves.
        rest: arguments after the first (operations on one tensor only): they say which axes, which index.
    """

    name: str
    start: int
    end: int = -1
    seq_start: int = 0
    seq_end: int = 0
    inputs: list[Leaf] = field(default_factory=list)
    spec: Any = None
    outputs: list[Leaf] = field(default_factory=list)
    rest: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    @property
    def skippable(self) -> bool:
        """Whether the result can be rebuilt from the record, without running anything."""
        return bool(self.outputs) and all(leaf.kind in ("data", "plain") for leaf in self.outputs)

    @property
    def carries_data(self) -> bool:
        return any(leaf.kind == "data" for leaf in self.outputs)


@dataclass
class Recording:
    """Everything seen in one forward pass of ``module`` at one batch size.

    Attributes:
        calls, ops: by path and by operation key.
        modules: path -> index of the module in ``list(module.named_modules())``.
        mutated: data tensors (autograd keys) whose storage was written to after they were seen.
        output: the result's leaf that holds the logits; ``output_path`` leads to it.
        outputs: every tensor of the result by name, with its shape.
        reads: where Python took a value out of data, as ``module: function``.
        input_node: autograd tensor of the model's input.
        flops: (autograd sequence number, floating point operations) of every kernel.
        dtype: the input's.
    """

    calls: dict[Path, Event]
    ops: dict[OpKey, Event]
    modules: dict[Path, int]
    mutated: list[NodeKey]
    output: Leaf
    output_path: OutputPath
    outputs: dict[str, tuple[int, ...]]
    input_node: NodeKey
    flops: list[tuple[int, float]]
    dtype: torch.dtype
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """Which of a network's outputs: ``output``, its name or position; ``classes``, how many columns it should have."""

    output: str | None = None
    classes: int | None = None


class TraceProblem(Exception):
    """The forward pass could not be recorded; the message says why."""


def record(
    module: nn.Module, inputs: torch.Tensor, wanted: Wanted | None = None, *, count_flops: bool = True
) -> Recording:
    """Run ``module(inputs)`` once in eval mode and record it.

    Arguments:
        module: any module taking one tensor; left exactly as it was found.
        inputs: (B, ...) on the module's device (or meta).
        wanted: which of several outputs holds the logits.

    Raises:
        TraceProblem: the output does not depend on the input in a way that can be followed.
        OutputProblem: no logits among the outputs, or several tensors that might be.
    """
    recorder = _Recorder(list(module.modules()))
    counter = _FlopCounter() if count_flops else contextlib.nullcontext()
    recorder.wants_gradients = True
    with (
        evaluating(recorder.modules),
        without_parameter_gradients(module),
        torch.enable_grad(),
        as_written(),
        differentiable(),
    ):
        # A clone, because networks that work in place may not write to a leaf.
        leaf = inputs.detach().clone().requires_grad_(True).clone()
        with Routes(recorder.modules).to(recorder), counter, recorder:
            output = module(leaf)
    wanted = wanted or Wanted()
    path = choose_output(output, wanted.output, wanted.classes)
    found = _logits_leaf(output, path)
    flops = counter.events if isinstance(counter, _FlopCounter) else []
    return Recording(
        recorder.calls,
        recorder.ops,
        recorder.owners,
        recorder.mutated(),
        found,
        path,
        {text_of(where): tuple(tensor.shape) for where, tensor in tensors_in(output)},
        _node_key(leaf),
        flops,
        inputs.dtype,
        tuple(dict.fromkeys(recorder.reads)),
    )


class _Recorder(Follower):
    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.modules = modules
        self.calls: dict[Path, Event] = {}
        self.ops: dict[OpKey, Event] = {}
        self.owners: dict[Path, int] = {}
        self.clock = 0
        self.seen: dict[NodeKey, tuple[torch.Tensor, int]] = {}
        self.reads: list[str] = []
        # Tensors that come from data although autograd does not know: comparisons, indices, detached ones.
        self.severed: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.switches_gradients(func):
            return None
        result = func(*args, **(kwargs or {}))
        frame = self.frame
        self._watch(func, result, args, kwargs)
        if frame is not None and makes_tensor(result, func):
            event = Event(getattr(func, "__name__", str(func)), self.clock, self.clock)
            event.seq_start = event.seq_end = torch._C._autograd._get_sequence_nr()
            # `x[...] = y` returns nothing: what it made is the new x.
            self._outputs(event, args[0] if result is None else result, (args, kwargs or {}))
            others = pytree.tree_leaves((args[1:], kwargs or {}))
            if event.carries_data and not any(isinstance(other, torch.Tensor) for other in others):
                event.rest = (args[1:], dict(kwargs or {}))
            self.ops[frame.operation()] = event
            self.clock += 1
        return result

    def call(self, index: int, proceed: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.next_path()
        event = Event(type(self.modules[index]).__name__, self.clock)
        event.seq_start = torch._C._autograd._get_sequence_nr()
        self.clock += 1
        self.calls[path], self.owners[path] = event, index
        event.inputs = [leaf for leaf in map(self._leaf, pytree.tree_leaves((args, kwargs))) if leaf.kind == "data"]
        result = self.run(path, index, proceed, args, kwargs)
        self._outputs(event, result, (args, kwargs))
        event.end, event.seq_end = self.clock, torch._C._autograd._get_sequence_nr()
        self.clock += 1
        return result

    def _watch(self, func: Any, result: Any, args: Any, kwargs: Any) -> None:
        """Note where Python takes a value out of data: the course may then depend on it."""
        given = [x for x in pytree.tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)]
        if not any(x.requires_grad or id(x) in self.severed for x in given):
            return
        name = getattr(func, "__name__", "")
        if name in READING:
            where = type(self.modules[self.stack[-1].index]).__name__ if self.stack else "the network"
            self.reads.append(f"{where}: {name.strip('_')}")
        for made in pytree.tree_leaves(result):
            if isinstance(made, torch.Tensor) and not made.requires_grad:
                self.severed[id(made)] = made

    def mutated(self) -> list[NodeKey]:
        return [key for key, (tensor, version) in self.seen.items() if tensor._version != version]

    def _outputs(self, event: Event, result: Any, arguments: Any) -> None:
        leaves, event.spec = pytree.tree_flatten(result)
        event.outputs = [self._leaf(leaf) for leaf in leaves]
        given = {id(leaf): n for n, leaf in enumerate(pytree.tree_leaves(arguments)) if isinstance(leaf, torch.Tensor)}
        for value, leaf in zip(leaves, event.outputs):
            if leaf.kind == "data":
                leaf.written = given.get(id(value))

    def _leaf(self, value: Any) -> Leaf:
        if isinstance(value, torch.Tensor):
            if value.requires_grad and value.grad_fn is not None:
                key = _node_key(value)
                self.seen.setdefault(key, (value, value._version))
                return Leaf("data", node=key, shape=tuple(value.shape), dtype=value.dtype, axes=memory_order(value))
            return Leaf("constant", shape=tuple(value.shape), dtype=value.dtype)
        if value is None or isinstance(value, (bool, int, float, str, torch.Size, torch.dtype, torch.device)):
            return Leaf("plain", value=value)
        return Leaf("opaque", value=type(value).__name__)


class _FlopCounter(TorchDispatchMode):
    """Floating point operations per kernel; kernels without a formula count their output elements."""

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry

        self.formulas = flop_registry
        self.events: list[tuple[int, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = self.formulas.get(func._overloadpacket)
        amount = 0.0
        if formula is not None:
            with contextlib.suppress(Exception):  # a formula that does not know a layout costs accuracy only
                amount = float(formula(*args, **kwargs, out_val=result))
        elif isinstance(result, torch.Tensor) and not func.is_view:
            amount = float(result.numel())
        if amount:
            self.events.append((torch._C._autograd._get_sequence_nr(), amount))
        return result


def _node_key(tensor: torch.Tensor) -> NodeKey:
    return (tensor.grad_fn, tensor.output_nr)


def memory_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Axes from the slowest to the fastest in memory."""
    strides = tensor.stride()
    return tuple(sorted(range(len(strides)), key=lambda axis: -strides[axis]))


def _logits_leaf(output: Any, path: OutputPath) -> Leaf:
    tensor = dict(tensors_in(output))[path]
    if not tensor.requires_grad or tensor.grad_fn is None:
        raise TraceProblem(
            "the output does not depend on the input in a way autograd can follow (does forward detach "
            "it, take it for indices, or leave torch?)"
        )
    return Leaf("data", node=_node_key(tensor), shape=tuple(tensor.shape), dtype=tensor.dtype)
