"""Run a part of an unmodified network: everything before a state replaced by zeros, the state put in its place.

The network's own forward is executed. Calls that end before the state are not entered: they return zeros of the
right shape, or the state's tensors where the record says so. So what is computed reads nothing but the
state; the certificate checks that the result is the network's, bit for bit.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from stabilitykit import CellProblem
from stabilitykit_adapters.following import (
    Follower,
    Routes,
    as_written,
    differentiable,
    evaluating,
    makes_tensor,
    recorded_below,
)
from stabilitykit_adapters.outputs import pick
from stabilitykit_adapters.program import Program, Template
from stabilitykit_adapters.segments import Segment
from stabilitykit_adapters.tracing import Event, Leaf


class ReplayProblem(CellProblem):
    """The network did not take the course that was recorded; the message says where."""


class _Reached(BaseException):
    """Unwinds the forward pass once everything wanted is there."""


class Replayer:
    """Executes segments of one module. Not safe for one module from several threads at once."""

    def __init__(self, module: nn.Module, program: Program) -> None:
        self.module = module
        self.program = program
        self.modules = list(module.modules())
        self._routes = Routes(self.modules)

    def __deepcopy__(self, memo: dict[int, Any]) -> Replayer:
        return Replayer(copy.deepcopy(self.module, memo), self.program)

    def __reduce__(self) -> Any:
        return Replayer, (self.module, self.program)

    def run(
        self, part: Segment, tensors: Sequence[torch.Tensor], batch: int, *, fill: float = 0.0
    ) -> tuple[torch.Tensor, ...]:
        """Execute ``part`` on ``tensors`` (one per injected vertex) -> captured tensors, or (logits,).

        Runs in eval mode and in the caller's grad mode; differentiable with respect to the tensors. The module
        is left as it was. Tensors may be written to where the network works in place. ``fill`` stands in for
        what is skipped: with NaN, a segment that read any of it would show it.

        Raises:
            ReplayProblem: the forward pass left the recorded course.
        """
        try:
            return self._run(part, tensors, batch, fill)
        except ReplayProblem:
            # Networks that cache tables build them in their first pass on a device; recorded was a later one.
            with torch.no_grad(), evaluating(self.modules):
                self.forward(
                    torch.zeros(
                        self.program.shapes[self.program.input_vertex].at(2),
                        dtype=tensors[0].dtype,
                        device=tensors[0].device,
                    )
                )
            return self._run(part, tensors, batch, fill)

    def _run(self, part: Segment, tensors: Sequence[torch.Tensor], batch: int, fill: float) -> tuple[torch.Tensor, ...]:
        execution = _Execution(self.modules, self.program, part, tensors, batch, fill)
        start = execution.start()
        if self.program.input_vertex in part.capture:
            execution.captured[self.program.input_vertex] = start
            if len(set(part.capture)) == 1:
                return (start,) * len(part.capture)
            start = start.clone()
        gradients = differentiable() if execution.wants_gradients else contextlib.nullcontext()
        with evaluating(self.modules), as_written(), gradients, self._routes.to(execution), execution:
            try:
                output = self.module(start)
            except _Reached:
                return tuple(execution.captured[v] for v in part.capture)
        if part.capture:
            raise ReplayProblem("its course depends on the data: the pass ended before the wanted state was computed")
        if execution.missing:
            raise ReplayProblem("its course depends on the data: the pass never came to where the state belongs")
        return (pick(output, self.program.output_path),)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The network's plain forward pass in the mode it is in -> logits (B, K), nothing routed."""
        with as_written():
            return pick(self.module(inputs), self.program.output_path)


class _Execution(Follower):
    def __init__(
        self,
        modules: list[nn.Module],
        program: Program,
        part: Segment,
        tensors: Sequence[torch.Tensor],
        batch: int,
        fill: float,
    ) -> None:
        super().__init__()
        self.modules, self.program, self.part, self.batch, self.fill = modules, program, part, batch, fill
        self.given = dict(zip(part.inject, tensors))
        self.missing = set(part.inject) - {program.input_vertex}
        self.captured: dict[int, torch.Tensor] = {}
        self.device, self.dtype = tensors[0].device, tensors[0].dtype
        self.own = False  # true while our own tensor operations run, which the mode must not count

    def start(self) -> torch.Tensor:
        """The model's input: given, or zeros."""
        given = self.given.get(self.program.input_vertex)
        if given is not None:
            return given
        return self._zeros(self.program.shapes[self.program.input_vertex], self.program.dtype)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.switches_gradients(func):
            return None
        frame = self.frame
        if self.own or frame is None:
            return func(*args, **kwargs)
        event = self.program.ops.get((frame.path, frame.ops))
        skipped = event is not None and event.end <= self.part.point and event.skippable and event.carries_data
        if event is not None and skipped and _same(event, func):
            frame.ops += 1
            return self._rebuild(event, args, kwargs, func)
        result = func(*args, **kwargs)
        if makes_tensor(result, func):
            key = frame.operation()
            if event is None or not _same(event, func):
                expected = "nothing more" if event is None else event.name
                raise ReplayProblem(
                    f"its course depends on the data or on the mode it runs in: in "
                    f"{self.program.name(frame.path) or 'the model'} it called {getattr(func, '__name__', func)}, "
                    f"when it was recorded {expected}"
                )
            hits = self.part.captures_in_ops.get(key)
            if hits:
                self._capture(hits, args[0] if result is None else result)
        return result

    def call(self, index: int, proceed: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.next_path()
        event = self.program.calls.get(path)
        if event is None or self.program.modules[path] != index:
            name = self.program.names[index]
            raise ReplayProblem(
                f"its course depends on the data or on the mode it runs in: it called {name}, which it did not call "
                "there when it was recorded"
            )
        if event.end <= self.part.point and event.skippable:
            self.own = True
            try:
                return self._rebuild(event, args, kwargs)
            finally:
                self.own = False
        result = self.run(path, index, proceed, args, kwargs)
        hits = self.part.captures_in_calls.get(path)
        if hits:
            self._capture(hits, result)
        return result

    def _capture(self, hits: Sequence[tuple[int, int]], result: Any) -> None:
        leaves = pytree.tree_leaves(result)
        for position, vertex in hits:
            if vertex not in self.captured:
                # Another part of the state may still be computed, by operations that write to this one.
                tensor = leaves[position]
                self.own = True
                self.captured[vertex] = tensor.clone() if len(self.part.capture) > 1 else tensor
                self.own = False
        if len(self.captured) == len(set(self.part.capture)):
            raise _Reached

    def _rebuild(self, event: Event, args: Any, kwargs: Any, func: Any = None) -> Any:
        arguments = pytree.tree_leaves((args, kwargs)) if any(x.written is not None for x in event.outputs) else []
        leaves = [self._leaf(leaf, arguments) for leaf in event.outputs]
        if getattr(func, "__name__", "") == "__setitem__":
            return None
        return pytree.tree_unflatten(leaves, event.spec)

    def _leaf(self, leaf: Leaf, arguments: list[Any]) -> Any:
        if leaf.kind == "plain":
            return leaf.value.at(self.batch)[0] if isinstance(leaf.value, Template) else leaf.value
        vertex = leaf.vertex
        given = self.given.get(vertex) if vertex is not None else None
        if given is not None:
            self.missing.discard(vertex)
        if leaf.written is None:
            return given if given is not None else self._zeros(leaf.value, leaf.dtype)
        # The network works in place and may go on using the tensor it passed in: that one must hold the state.
        target = arguments[leaf.written]
        if given is not None and target is not given:
            if recorded_below():
                target.copy_(given)
            elif given.requires_grad:
                target.data = torch.empty_like(given)
                target.copy_(given)
            else:
                target.data = given
        return target

    def _zeros(self, shape: Template, dtype: torch.dtype | None) -> torch.Tensor:
        # One element seen everywhere: no memory, and nothing is computed from it. Not a view of that element:
        # a view could not be given the state's memory where the network works in place.
        sizes = shape.at(self.batch)
        if dtype == self.program.dtype:
            dtype = self.dtype  # the network may have been converted since it was recorded
        if recorded_below():
            return torch.full(sizes, self.fill, dtype=dtype, device=self.device)
        element = torch.full((1,), self.fill, dtype=dtype, device=self.device)
        return torch.empty(0, dtype=dtype, device=self.device).set_(
            element.untyped_storage(), 0, sizes, (0,) * len(sizes)
        )


def _same(event: Event, func: Any) -> bool:
    return event.name == getattr(func, "__name__", str(func))
