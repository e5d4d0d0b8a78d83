"""Follow a forward pass: route the calls of a network's modules, count the operations of every body."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Path = tuple[int, ...]
"""Which call: child numbers from the outermost forward down. Stable when earlier siblings are skipped."""

OpKey = tuple[Path, int]
"""Which operation: the call whose body holds it, and its number among that body's operations."""


@contextlib.contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Eval mode inside, every module's own mode put back afterwards."""
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def without_parameter_gradients(module: nn.Module) -> Iterator[None]:
    """Parameters require no gradient inside; put back afterwards."""
    wanting = [p for p in module.parameters() if p.requires_grad]
    try:
        for parameter in wanting:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


class _Plainly:
    """Stands in for torch's reentrant CheckpointFunction: calls the function, keeps its operations."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """The network runs the operations it is written in, the same ones each time.

    nn.MultiheadAttention stays off its inference-only kernel, which rounds differently from the one traced; what is
    wrapped in torch.compile runs uncompiled, because compiled code can be neither followed nor cut; what is
    checkpointed to save memory (reentrant, which hides its operations from autograd) runs plainly.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # Nothing can be compiled where the compiler was never imported, and importing it takes seconds.
    compiler = (
        torch.compiler.set_stance("force_eager")
        if "torch._dynamo.eval_frame" in sys.modules
        else contextlib.nullcontext()
    )
    checkpointing = sys.modules.get("torch.utils.checkpoint")
    reentrant = getattr(checkpointing, "CheckpointFunction", None)
    try:
        if reentrant is not None:
            checkpointing.CheckpointFunction = _Plainly  # type: ignore[union-attr]
        with compiler:
            yield
    finally:
        if reentrant is not None:
            checkpointing.CheckpointFunction = reentrant  # type: ignore[union-attr]
        torch.backends.mha.set_fastpath_enabled(before)


def recorded_below() -> bool:
    """Whether the operations are being recorded for a compiler, which sees neither storages nor ``tensor.data``."""
    tracer = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return tracer is not None and tracer.get_proxy_mode() is not None


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """inference_mode in the network's own code has no effect inside (no_grad: see :class:`Follower`)."""
    kind = torch.inference_mode
    before = kind.__enter__, kind.__exit__
    try:
        kind.__enter__, kind.__exit__ = lambda self: None, lambda self, *_: None  # type: ignore[method-assign, assignment]
        yield
    finally:
        kind.__enter__, kind.__exit__ = before  # type: ignore[method-assign]


class Frame:
    """A call that is running: its path and how many calls and operations its body has made so far.

    Operations count only while ``counting``: hooks run outside the body, and may come and go.
    """

    __slots__ = ("children", "counting", "index", "ops", "path")

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        self.index = index
        self.children = 0
        self.ops = 0
        self.counting = False

    def child(self) -> Path:
        path = (*self.path, self.children)
        self.children += 1
        return path

    def operation(self) -> OpKey:
        key = (self.path, self.ops)
        self.ops += 1
        return key


class Follower(TorchFunctionMode):
    """Follows a forward pass: knows at every moment which call's body is running. Base of recorder and replayer.

    Where gradients are wanted outside, no_grad in the network's own code has no effect: autograd is how its dataflow
    is seen, and how a readout is differentiated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[Frame] = []
        self.wants_gradients = torch.is_grad_enabled()

    def switches_gradients(self, function: Any) -> bool:
        """Whether a call turns gradients on or off and is to be left out."""
        return self.wants_gradients and function is torch._C._set_grad_enabled

    def call(self, index: int, proceed: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module is called: ``proceed(*args, **kwargs)`` runs it, hooks included."""
        raise NotImplementedError

    def next_path(self) -> Path:
        return self.stack[-1].child() if self.stack else ()

    def run(self, path: Path, index: int, proceed: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a call inside a frame of its own."""
        self.stack.append(Frame(path, index))
        try:
            return proceed(*args, **kwargs)
        finally:
            self.stack.pop()

    def body(self, index: int, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module's forward begins; one called directly (``m.forward(x)``) belongs to the caller's body."""
        frame = self.stack[-1] if self.stack else None
        if frame is None or frame.index != index or frame.counting:
            return forward(*args, **kwargs)
        frame.counting = True
        try:
            return forward(*args, **kwargs)
        finally:
            frame.counting = False

    @property
    def frame(self) -> Frame | None:
        """The call whose body is running, None in hooks and outside."""
        return self.stack[-1] if self.stack and self.stack[-1].counting else None


class Routes:
    """Routes the calls of a network's modules through a :class:`Follower`, and leaves no trace afterwards.

    Compiled (script) modules cannot be routed; their results are seen by the caller.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = list(modules)
        self.follower: Follower | None = None
        self._entries = [
            (module.__dict__, self._call(index, module), self._body(index, module))
            for index, module in enumerate(self.modules)
            if not isinstance(module, torch.jit.ScriptModule)
        ]

    @contextlib.contextmanager
    def to(self, follower: Follower) -> Iterator[None]:
        before, compiled, outer = [], [], self.follower
        self.follower = follower
        try:
            for attributes, call, body in self._entries:
                if "forward" in attributes:
                    before.append((attributes, attributes["forward"]))
                # What nn.Module.__call__ looks up on the instance: the call with its hooks, and the body.
                attributes["_call_impl"], attributes["forward"] = call, body
                if attributes.get("_compiled_call_impl") is not None:
                    compiled.append((attributes, attributes.pop("_compiled_call_impl")))
            yield
        finally:
            self.follower = outer
            for attributes, _, _ in self._entries:
                attributes.pop("_call_impl", None)
                attributes.pop("forward", None)
            for attributes, old in before:
                attributes["forward"] = old
            for attributes, old in compiled:
                attributes["_compiled_call_impl"] = old

    def _call(self, index: int, module: nn.Module) -> Callable[..., Any]:
        proceed = module._call_impl

        def called(*args: Any, **kwargs: Any) -> Any:
            assert self.follower is not None
            return self.follower.call(index, proceed, args, kwargs)

        return called

    def _body(self, index: int, module: nn.Module) -> Callable[..., Any]:
        forward = module.forward  # bound before routing, so this is the module's own

        def body(*args: Any, **kwargs: Any) -> Any:
            assert self.follower is not None
            return self.follower.body(index, forward, args, kwargs)

        return body


def makes_tensor(result: Any, function: Any) -> bool:
    """Whether an operation counts: it returned a tensor, or wrote to one (``x[...] = y``)."""
    if isinstance(result, torch.Tensor):
        return True
    if isinstance(result, (list, tuple)):
        return any(isinstance(item, torch.Tensor) for item in result)
    return getattr(function, "__name__", "") == "__setitem__"
