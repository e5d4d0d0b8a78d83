"""A float64 copy of a module in eval mode, so that the module itself is never touched."""

from __future__ import annotations

import types
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from stabilitykit_lipschitz.trace import PLAIN, UnsupportedModule, storage


def weights_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def storages(model: nn.Module) -> set[int]:
    """Identities of the memory that holds its weights."""
    return {storage(t) for _, t in weights_of(model)}


def evaluation_copy(model: nn.Module) -> nn.Module:
    """The module in eval mode, on the CPU, in float64.

    Functions it holds (patched forwards, hooks) are bound to the copy where they named the original in a closure or as
    a global. Raises: UnsupportedModule for weights without numbers (lazy, meta), of other number kinds, or of classes
    with behaviour of their own.
    """
    for name, weight in weights_of(model):
        if torch.nn.parameter.is_lazy(weight):
            raise UnsupportedModule(f"{name!r} has no shape yet (a lazy module); run the model on one batch first")
        if type(weight) not in PLAIN:
            raise UnsupportedModule(f"{name!r} is a {type(weight).__name__}; expected a plain torch tensor")
        if weight.is_meta:
            raise UnsupportedModule(f"{name!r} is on the meta device and has no numbers; load its weights first")
        if weight.is_complex() or weight.is_quantized:
            raise UnsupportedModule(f"{name!r} has numbers of type {weight.dtype}; expected real floating-point ones")
    memo: dict[int, Any] = {}
    # weight_norm of old keeps a computed tensor, which deepcopy would refuse
    kept = [t for m in model.modules() for t in vars(m).values() if isinstance(t, torch.Tensor) and not t.is_leaf]
    for tensor in kept:
        memo[id(tensor)] = tensor.detach().clone()
    try:
        copy = deepcopy(model, memo)
    except Exception as error:  # a module may hold anything: open files, locks, generators
        raise UnsupportedModule(
            f"{type(model).__name__} cannot be copied ({error}); expected a module of weights"
        ) from error
    binder = _Binder(memo, {id(m) for m in model.modules()})
    for module in copy.modules():
        for holder in (vars(module), *(h for h in vars(module).values() if isinstance(h, dict))):
            for key, value in list(holder.items()):
                if isinstance(value, types.FunctionType):
                    holder[key] = binder.bound(value)
    copy = copy.cpu().double().eval()
    for weight in copy.parameters():
        weight.requires_grad_(False)
    return copy


class _Binder:
    """Functions of the original, made anew with the copy in the place of the original."""

    def __init__(self, memo: dict[int, Any], originals: set[int]) -> None:
        self.memo, self.originals = memo, originals
        self.done: dict[int, Any] = {}

    def bound(self, value: Any) -> Any:
        """``value`` itself, or its counterpart where it reaches the original module."""
        if isinstance(value, (nn.Module, torch.Tensor)):
            return self.memo.get(id(value), value)
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.bound(value.__self__))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if type(value) in (list, tuple):
            return type(value)(self.bound(v) for v in value)
        return value

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        if id(function) in self.done:
            return self.done[id(function)]
        if not self._reaches(function, set()):
            return function
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        scope = dict(function.__globals__)
        made = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, cells)
        self.done[id(function)] = made
        made.__kwdefaults__ = function.__kwdefaults__
        made.__defaults__ = self.bound(function.__defaults__)
        for cell, old in zip(cells, function.__closure__ or ()):
            cell.cell_contents = self.bound(old.cell_contents)
        for name in function.__code__.co_names:
            if name in scope:
                scope[name] = self.bound(scope[name])
        return made

    def _reaches(self, value: Any, seen: set[int]) -> bool:
        if isinstance(value, nn.Module):
            return id(value) in self.originals
        if isinstance(value, torch.Tensor):
            return id(value) in self.memo
        if isinstance(value, types.MethodType):
            return self._reaches(value.__self__, seen)
        if type(value) in (list, tuple):
            return any(self._reaches(v, seen) for v in value)
        if not isinstance(value, types.FunctionType) or id(value) in seen:
            return False
        seen.add(id(value))
        held = [c.cell_contents for c in value.__closure__ or ()] + list(value.__defaults__ or ())
        held += [value.__globals__[n] for n in value.__code__.co_names if n in value.__globals__]
        return any(self._reaches(v, seen) for v in held)
