"""What a module really runs, op by op, as affine functions of network states.

The module is called once with `Traced` tensors. They have a shape but no numbers, so nothing it does can depend on
values unseen; every aten op reaches `Trace`, which looks its rule up by the op itself. Hooks, wrappers, classes named
like torch's and patched forwards need no rule of their own: only what they run counts. Beside the symbols a few sample
rows are carried through the same ops by torch, and each op's rule is compared with them.

A `Traced` is a view (int64 positions) into a `Cell`; writing in place changes the cell, so all views see it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from stabilitykit_lipschitz import folding
from stabilitykit_lipschitz.folding import Affine
from stabilitykit_lipschitz.network import Layer
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.slopes import Activation


class UnsupportedModule(ValueError):
    """Something that has no rule; the message names it."""


class Contradicted(UnsupportedModule):
    """A module whose numbers or gradients are not those of its operations."""


@dataclass
class Cell:
    """value: per sample, flat (n,); sample: what torch computed for the sample rows, (B * n,) float64.
    unreadable: why no rule may read it, or "". softmax: ``value`` holds the logits of a softmax."""

    value: Any
    sample: torch.Tensor
    unreadable: str = ""
    softmax: bool = False

    @property
    def size(self) -> int:
        return self.value.size


class Traced(torch.Tensor):
    """A tensor without numbers: ``positions`` (int64, any strides) in ``held``'s samples."""

    held: Cell
    positions: torch.Tensor
    tracer: Trace

    @staticmethod
    def __new__(cls, cell: Cell, index: torch.Tensor, trace: Trace) -> Traced:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, index.size(), strides=index.stride(), storage_offset=index.storage_offset(), dtype=torch.float64
        )
        made.held, made.positions, made.tracer = cell, index, trace
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Traced(shape={tuple(self.positions.shape)})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not all(t in (Traced, *PLAIN) for t in types):
            return NotImplemented  # a subclass of the user's: its own rule decides
        trace = next(t.tracer for t in tree_iter((args, kwargs)) if isinstance(t, Traced))
        with torch._C.DisableTorchFunctionSubclass():
            return trace.function(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        raise UnsupportedModule(f"{func}: the traced tensor is used outside the forward pass")


Rules = Mapping[Any, Callable[["Trace", Any, dict], Any]]
Functions = Mapping[Any, Callable[..., Any]]
PLAIN = (torch.Tensor, nn.Parameter, nn.Buffer)
# What would read numbers without an op.
READS = {
    getattr(torch.Tensor, name)
    for name in (
        *("numpy", "tolist", "__array__", "data_ptr", "storage", "untyped_storage", "_typed_storage", "__dlpack__"),
        *("__reduce_ex__", "__deepcopy__", "apply_", "map_", "map2_", "share_memory_", "pin_memory", "__setstate__"),
    )
} | {torch.Tensor.data.__set__}  # type: ignore[attr-defined]


def storage(tensor: torch.Tensor) -> int:
    """Identity of the memory a plain tensor views."""
    return tensor.untyped_storage()._cdata


def named_arguments(func: Any, args: tuple, kwargs: dict) -> dict[str, Any]:
    """All arguments of an aten op by their names, defaults filled in."""
    values = dict(zip((a.name for a in func._schema.arguments), args)) | kwargs
    return {a.name: values.get(a.name, a.default_value) for a in func._schema.arguments}


def promoted(func: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Arguments with float32 and float64 brought together, casts between them left out."""

    def lift(value: Any) -> Any:
        is_mixed = isinstance(value, torch.Tensor) and type(value) in PLAIN and value.dtype == torch.float32
        return value.double() if is_mixed else value

    floats = {t.dtype for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor) and t.is_floating_point()}
    if len(floats) > 1 and not func._schema.is_mutable:
        args, kwargs = tree_map(lift, (args, kwargs))
    if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.float32:
        kwargs = {**kwargs, "dtype": torch.float64}
    return args, kwargs


class InDouble(TorchDispatchMode):
    """Runs a float64 module whose code mentions float32 in float64 throughout."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = promoted(func, args, kwargs or {})
        return func(*args, **kwargs)


class Trace(TorchDispatchMode):
    """Interprets one forward pass.

    rows: the sample inputs (B, *shape) float64. names: the modules of the copy that runs. outside: storages of the
    module it was copied from, which must not be reached. rules, functions: what aten ops and whole functions do.
    """

    algebra: Any = folding  # how values are combined: affine maps here, gains in `layerwise`

    def __init__(
        self, rows: torch.Tensor, names: dict[int, str], outside: set[int], rules: Rules, functions: Functions
    ) -> None:
        super().__init__()
        self.rules, self.functions = rules, functions
        self.batch = len(rows)
        self.names, self.outside = names, outside
        self.states = [rows.reshape(self.batch, -1).numpy()]
        self.layers: list[Layer] = []
        self.errors: dict[tuple[int, int], float] = {}
        self.problem: UnsupportedModule | None = None
        self.made: dict[int, torch.Tensor] = {}  # storages born in this pass, kept alive so that none is reused
        self.largest = np.abs(self.states[0]).max(1, initial=0.0)[:, None]
        shape = tuple(rows.shape[1:])
        with torch._C._DisableTorchDispatch():
            self.input = self.place(self.algebra.of_state(0, (prod(shape),)), rows, tuple(rows.shape))

    # -- entry points --------------------------------------------------------------------------------------------

    def function(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """A torch function or method on traced tensors, before it is taken apart into ops."""
        return self._guarded(lambda: self._function(func, args, kwargs))

    def _function(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if func in READS:
            self.refuse(f"reads numbers of a tensor that depends on the input ({func.__name__})")
        if func in self.functions:
            return self.functions[func](self, *args, **kwargs)
        return func(*args, **kwargs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._guarded(lambda: self.call(func, *args, **(kwargs or {})))

    def _guarded(self, run: Any) -> Any:
        """A refusal is remembered: code that catches it and goes another way must not be believed."""
        if self.problem is not None:
            raise self.problem
        try:
            return run()
        except UnsupportedModule as error:
            self.problem = error
            raise

    def call(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """One aten op."""
        args, kwargs = promoted(func, args, kwargs)
        tensors = [t for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)]
        for t in tensors:
            if type(t) not in (Traced, *PLAIN):
                self.refuse(f"computes with a tensor of class {type(t).__name__}; expected plain torch tensors")
        plain = [t for t in tensors if not isinstance(t, Traced)]
        if any(storage(t) in self.outside for t in plain):
            self.refuse(
                "reaches weights of the module that was given instead of the copy under analysis (a closure or a "
                "global name); expected a forward that uses self"
            )
        if len(plain) == len(tensors):
            return self._constant(func, args, kwargs, tensors)
        given = named_arguments(func, args, kwargs)
        if func._schema.is_mutable and func not in self.rules:
            return self._in_place(func, given)
        if func.is_view:
            return self.view(func, *args, **kwargs)
        if func not in self.rules:
            self.refuse(f"runs {func}, which has no Lipschitz rule: expected " + KNOWN)
        try:
            return self.rules[func](self, func, given)
        except UnsupportedModule:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise UnsupportedModule(f"{self.where()}: {error}") from error

    def _constant(self, func: Any, args: tuple, kwargs: dict, tensors: list[torch.Tensor]) -> Any:
        """An op on weights alone: run it, unless it is random or changes what outlives the call."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.refuse(f"draws random numbers in eval mode ({func})")
        if func._schema.is_mutable:
            for a, value in zip(func._schema.arguments, args):
                if a.alias_info is not None and a.alias_info.is_write and storage(value) not in self.made:
                    self.refuse(f"writes into a tensor that outlives the call ({func}): its next result may differ")
        result = func(*args, **kwargs)
        before = {storage(t) for t in tensors}
        for t in tree_iter(result):
            if isinstance(t, torch.Tensor) and storage(t) not in before:
                self.made[storage(t)] = t
        return result

    def _in_place(self, func: Any, given: dict) -> Traced:
        """h.op_(...) is h[...] = op(h, ...), seen by every view of h."""
        target = given.get("self")
        name = func._schema.name.removeprefix("aten::")
        pure = getattr(getattr(torch.ops.aten, name[:-1], None), func._overloadname, None)
        if not isinstance(target, Traced):
            self.refuse("writes numbers that depend on the input into a tensor that does not; expected torch.cat")
        if not name.endswith("_") or pure not in self.rules:
            self.refuse(f"runs {func}, which has no Lipschitz rule: expected " + KNOWN)
        self.write(target, self.rules[pure](self, pure, given))
        return target

    # -- reading and making tensors ------------------------------------------------------------------------------

    def view(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """An op that returns a view: torch applies it to the positions."""
        if func in (torch.ops.aten.view.dtype, torch.ops.aten._neg_view.default, torch.ops.aten._conj.default):
            self.refuse(f"runs {func}, which reinterprets numbers")
        base = next(t for t in args if isinstance(t, Traced))
        if not isinstance(args[0], Traced) or sum(isinstance(t, Traced) for t in tree_iter((args, kwargs))) > 1:
            self.refuse(f"runs {func} with sizes that depend on the input")
        moved = func(args[0].positions, *args[1:], **kwargs)
        return tree_map(lambda index: Traced(base.held, index, self), moved)

    def order(self, index: torch.Tensor, size: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(coordinates (M,) within one sample, permutation that brings the flat tensor to sample-major order or None
        when it is in that order). All samples must hold the same coordinates in the same order."""
        flat = index.reshape(-1).numpy()
        if len(flat) % self.batch:
            self.refuse("mixes the samples of a batch")
        inside, perm = flat.reshape(self.batch, -1), None
        steps = size * np.arange(self.batch)[:, None]
        if not (inside // max(size, 1) == np.arange(self.batch)[:, None]).all():
            perm = np.argsort(flat // max(size, 1), kind="stable")
            inside = flat[perm].reshape(self.batch, -1)
        inside = inside - steps
        if not (inside == inside[:1]).all() or (inside.size and not 0 <= inside.min() <= inside.max() < size):
            self.refuse("mixes the samples of a batch")
        return inside[0], perm

    def read(self, traced: Traced, shape: Iterable[int] | None = None) -> tuple[Any, np.ndarray | None]:
        """(per sample, flat; permutation as of `order`), broadcast to ``shape``."""
        if traced.held.unreadable:
            self.refuse(traced.held.unreadable)
        index = traced.positions if shape is None else traced.positions.expand(tuple(shape))
        rows, perm = self.order(index, traced.held.size)
        value = traced.held.value
        if len(rows) != value.size or not (rows == np.arange(value.size)).all():
            value = self.algebra.gather(rows, value, (len(rows),))
        return value, perm

    def sample(self, traced: Traced) -> torch.Tensor:
        return traced.held.sample[traced.positions]

    def execute(self, func: Any, given: dict) -> Any:
        """The op on the sample rows, by torch."""
        with torch._C._DisableTorchDispatch():
            real = tree_map(lambda t: self.sample(t) if isinstance(t, Traced) else t, given)
            positional = [real[a.name] for a in func._schema.arguments if not a.kwarg_only]
            return func(*positional, **{a.name: real[a.name] for a in func._schema.arguments if a.kwarg_only})

    def place(self, value: Any, sample: torch.Tensor, shape: tuple[int, ...], perm: np.ndarray | None = None) -> Traced:
        """A new tensor of ``shape``; sample: torch's result in that shape, compared with the rule's ``value``."""
        flat = sample.reshape(-1)
        if perm is not None:
            flat = flat[torch.from_numpy(perm)]
        self._compare(value, flat.numpy().reshape(self.batch, -1))
        index = torch.arange(len(flat))
        if perm is not None:
            index = torch.from_numpy(np.argsort(perm))
        return Traced(Cell(value, flat.clone()), index.reshape(shape), self)

    def opaque(self, like: torch.Tensor, reason: str) -> Traced:
        """A result that no rule may read."""
        cell = Cell(self.algebra.constant(np.zeros(like.numel())), like.reshape(-1).double(), reason)
        return Traced(cell, torch.arange(like.numel()).reshape(like.shape), self)

    def write(self, target: Traced, source: Traced) -> None:
        cell = target.held
        if cell.unreadable:
            self.refuse(cell.unreadable)
        rows, perm = self.order(target.positions, cell.size)
        value, other = self.read(source, target.shape)
        same = perm is other is None or (perm is not None and other is not None and (perm == other).all())
        if not same or len(np.unique(rows)) != len(rows):
            self.refuse("writes in place across the samples of a batch")
        if len(rows) == cell.size and (rows == np.arange(cell.size)).all():
            cell.value = value
        else:
            order = np.arange(cell.size)
            order[rows] = cell.size + np.arange(len(rows))
            cell.value = self.algebra.stack([cell.value, value], order, (cell.size,))
        new = cell.sample.clone()
        new[target.positions] = self.sample(source).expand(target.shape)
        cell.sample = new

    def constant(self, value: Any, shape: tuple[int, ...], perm: np.ndarray | None) -> np.ndarray:
        """A weight or number broadcast to ``shape``, per sample in the order of ``perm``: (M,) float64."""
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
        if tensor.is_complex() or tensor.is_quantized:
            self.refuse(f"has weights of type {tensor.dtype}; expected real floating-point numbers")
        flat = tensor.detach().double().expand(shape).reshape(-1).numpy()
        rows = (flat if perm is None else flat[perm]).reshape(self.batch, -1)
        if not (rows == rows[:1]).all() and not np.isnan(rows).any():
            self.refuse("treats the samples of a batch differently")
        return rows[0].copy()

    def activate(
        self, traced: Traced, activation: Activation | Normalisation, result: torch.Tensor, perm: Any, value: Any
    ) -> Traced:
        """A new layer: ``activation`` of ``value``; result: torch's, in the tensor's shape and order ``perm``."""
        out = self.layer(activation, value, self._rows(result, perm))
        return self.place(out, result, tuple(result.shape), perm)

    def _rows(self, tensor: torch.Tensor, perm: np.ndarray | None) -> np.ndarray:
        flat = tensor.reshape(-1).numpy()
        return (flat if perm is None else flat[perm]).reshape(self.batch, -1)

    def layer(self, activation: Activation | Normalisation, value: Affine, result: np.ndarray) -> Affine:
        """The new state; result: torch's values (B, N), compared with the activation's own."""
        self.agree(activation, self.predicted(value)[0], result)
        size, level, name = value.size, len(self.layers) + 1, self._module() or activation.name
        shared = isinstance(activation, Normalisation)
        if isinstance(activation, Normalisation):
            beta = np.full(size, np.inf if activation.eps == 0 else float(activation.eps**-0.5) * (1 + 1e-15))
            alpha = -beta
        else:
            alpha, beta = activation.bounds(size)
        blocks = folding.dense_blocks(value, f"the input of {name!r}")
        self.layers.append(Layer(blocks, value.bias, activation, alpha, beta, shared, name))
        for state, error in value.errors.items():
            self.errors[level, state] = error
        self.states.append(result.copy())
        return folding.of_state(level, (size,))

    def agree(self, activation: Activation | Normalisation, z: np.ndarray, result: np.ndarray) -> None:
        """Refuses where torch's ``result`` at ``z`` (both (B, N)) is not the activation's."""
        with np.errstate(all="ignore"):
            expected = activation.value(z)
            wrong = np.abs(expected - result) > 1e-9 * (np.abs(z) + np.abs(result)) + activation.blur
            wrong &= np.isfinite(expected) & np.isfinite(result)
        if wrong.any():
            self.refuse(f"does not compute what {activation.name} computes")

    def predicted(self, value: Affine) -> tuple[np.ndarray, np.ndarray]:
        """(value at the sample rows (B, n), the size of the terms it is summed from)."""
        with np.errstate(all="ignore"):
            total = np.tile(value.bias, (self.batch, 1))
            size = np.abs(total)
            for k, m in value.maps.items():
                total = total + (m @ self.states[k].T).T
                size = size + (abs(m) @ np.abs(self.states[k]).T).T
        return total, size

    def _compare(self, value: Affine, sample: np.ndarray) -> None:
        expected, size = self.predicted(value)
        if expected.shape != sample.shape:
            self.refuse("mixes the samples of a batch")
        with np.errstate(all="ignore"):
            wrong = np.abs(expected - sample) > 1e-9 * size + 1e-12 * self.largest
            wrong &= np.isfinite(expected) & np.isfinite(sample)
            self.largest = np.fmax(self.largest, np.abs(sample).max(1, initial=0.0)[:, None])
        if wrong.any():
            self.refuse("does not act on each sample by the affine map of its rule")

    # -- messages ------------------------------------------------------------------------------------------------

    def _module(self) -> str:
        """Path of the innermost module that is running; its hooks count as its own."""
        frame = sys._getframe(1)
        while frame is not None:
            held = frame.f_locals.get("self")
            if isinstance(held, nn.Module) and id(held) in self.names:
                return self.names[id(held)]
            frame = frame.f_back  # type: ignore[assignment]
        return ""

    def where(self) -> str:
        frame = sys._getframe(1)
        while frame is not None:
            held = frame.f_locals.get("self")
            if isinstance(held, nn.Module) and id(held) in self.names:
                name = self.names[id(held)]
                return f"module {name!r} ({type(held).__name__})" if name else type(held).__name__
            frame = frame.f_back  # type: ignore[assignment]
        return "the model"

    def refuse(self, reason: str) -> NoReturn:
        raise UnsupportedModule(f"{self.where()} {reason}")


KNOWN = (
    "affine operations (linear, convolution, average pooling, add, scale, reshape, cat, normalisation by stored "
    "statistics), LayerNorm or RMSNorm, a slope-restricted activation or a final softmax over classes"
)
