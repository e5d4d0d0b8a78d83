"""Rules of ops that move, repeat, drop or replace coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils._pytree import tree_iter, tree_map

from stabilitykit_lipschitz.trace import Trace, Traced

aten = torch.ops.aten
SELECTIONS = (
    *(aten.clone.default, aten._unsafe_view.default, aten.index.Tensor, aten.index_select.default, aten.flip.default),
    *(aten.roll.default, aten.cat.default, aten.stack.default, aten.repeat.default, aten.pixel_shuffle.default),
    *(aten.pixel_unshuffle.default, aten.channel_shuffle.default, aten.native_channel_shuffle.default),
    *(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.replication_pad1d.default),
    *(aten.replication_pad2d.default, aten._reshape_copy.default, aten.view_copy.default, aten.lift.default),
)
FACTORIES = (
    *(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default),
    *(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default),
)


def select(trace: Trace, func: Any, given: dict) -> Any:
    """Ops that move, repeat or drop coordinates, found by moving their positions; constants among them stay."""
    parts: list[Traced] = []

    def positions(t: Any) -> Any:
        """0 stands for a constant; positions are exact in float64."""
        if not isinstance(t, Traced):
            is_number = isinstance(t, torch.Tensor) and t.is_floating_point()
            return torch.zeros_like(t, dtype=torch.float64) if is_number else t
        start = sum(p.held.size for p in parts)
        parts.append(t)
        return 1.0 + t.positions.double() % t.held.size + start + (t.positions // t.held.size) * width

    traced = [t for t in tree_iter(given) if isinstance(t, Traced)]
    for t in traced:
        if t.held.unreadable:
            trace.refuse(t.held.unreadable)
    width = sum(t.held.size for t in traced)
    with torch._C._DisableTorchDispatch():
        moved = run(func, tree_map(positions, given))
        fixed = run(func, tree_map(lambda t: torch.zeros(t.shape).double() if isinstance(t, Traced) else t, given))
    index = moved.reshape(-1).long()
    if (index == 0).any():
        if len(index) % trace.batch:
            trace.refuse("mixes the samples of a batch")
        rows, perm = index.numpy().reshape(trace.batch, -1), None
        steps = width * np.arange(trace.batch)[:, None]
        rows = np.where(rows > 0, rows - steps, 0)
        if not (rows == rows[:1]).all() or rows.min() < 0 or rows.max() > width:
            trace.refuse("mixes the samples of a batch")
        order = rows[0] - 1
    else:
        order, perm = trace.order(index - 1, width)
    values = [p.held.value for p in parts]
    if (order < 0).any():
        values.append(trace.algebra.constant(np.zeros(1)))
        order = np.where(order < 0, width, order)
    shape = (len(order),)
    value = (
        trace.algebra.gather(order, values[0], shape) if len(values) == 1 else trace.algebra.stack(values, order, shape)
    )
    if fixed.any():
        value = trace.algebra.shifted(value, trace.constant(fixed, tuple(fixed.shape), perm))
    return trace.place(value, trace.execute(func, given), tuple(moved.shape), perm)


def run(func: Any, given: dict) -> Any:
    schema = func._schema.arguments
    positional = [given[a.name] for a in schema if not a.kwarg_only]
    return func(*positional, **{a.name: given[a.name] for a in schema if a.kwarg_only})


def cast(trace: Trace, func: Any, given: dict) -> Any:
    if given["dtype"] not in (None, torch.float32, torch.float64):
        trace.refuse(f"rounds a tensor to {given['dtype']}, which makes it a step function")
    device = given["device"]
    if device is not None and torch.device(device).type != "cpu":
        trace.refuse(f"moves a tensor to {device} inside its forward; expected it to stay where its input is")
    return select(trace, aten.clone.default, {"self": given["self"], "memory_format": None})


def filled(trace: Trace, func: Any, given: dict) -> Traced:
    """copy, fill and zero: the new content, broadcast."""
    target = given["self"]
    source = given.get("src", given.get("value", 0.0))
    if isinstance(source, Traced):
        return source
    _, perm = trace.order(target.positions, target.held.size)
    shape = tuple(target.shape)
    value = trace.algebra.constant(trace.constant(source, shape, perm))
    return trace.place(value, torch.as_tensor(source, dtype=torch.float64).expand(shape), shape, perm)


def same(trace: Trace, func: Any, given: dict) -> Any:
    """Shapes and fresh constants: nothing of the numbers is used."""
    return trace.execute(func, given)


def pad(trace: Trace, x: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """torch's padding; a circular one reads positions around the end instead of writing into a new tensor."""
    if mode != "circular":
        return functional.pad(x, pad, mode, value)
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2])):
        size = x.shape[-1 - axis]
        if not 0 <= before <= size or not 0 <= after <= size:
            trace.refuse("pads around the end by a negative number or more than once")
        x = x.index_select(-1 - axis, torch.arange(-before, size + after) % size)
    return x
