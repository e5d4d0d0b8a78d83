"""Between the tensors a network passes around and states (B, *shape) in one coordinate system along a run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from stabilitykit_adapters.program import Program, Template
from stabilitykit_adapters.replay import Replayer
from stabilitykit_adapters.runs import Run
from stabilitykit_adapters.segments import point_of, segment


def to_image_first(tensor: torch.Tensor, shape: Template) -> torch.Tensor:
    """A network's tensor -> (B, *shape of one image); a view where possible."""
    axis = shape.batch_axis
    assert axis is not None
    if axis:
        return tensor.movedim(axis, 0)
    factor = shape.slopes[0]
    return tensor if factor == 1 else tensor.unflatten(0, (tensor.shape[0] // factor, factor))


def from_image_first(state: torch.Tensor, shape: Template) -> torch.Tensor:
    """Inverse of :func:`to_image_first`."""
    axis = shape.batch_axis
    assert axis is not None
    if axis:
        return state.movedim(0, axis)
    return state if shape.slopes[0] == 1 else state.flatten(0, 1)


def in_memory_order(tensor: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """The same tensor, its memory laid out with ``axes`` from the slowest to the fastest.

    Kernels differ between layouts, and so do the last bits of what they compute.
    """
    back = sorted(range(len(axes)), key=lambda position: axes[position])
    return tensor.permute(*axes).contiguous().permute(*back)


class Coordinates:
    """Per block the order in which its coordinates stand in the last block's.

    Stages that are joined by a permutation (patching, channels last) hold the same numbers in another order. States
    are given out in the order of h_T, the one the tail reads.
    """

    def __init__(self, replayer: Replayer, program: Program, run: Run) -> None:
        self.orders: list[_Order | None] = [None] * run.depth
        order: torch.Tensor | None = None
        for t in range(run.depth - 1, 0, -1):
            before, after = run.blocks[t - 1].end, run.blocks[t].start
            if before != after:
                step = _permutation(replayer, program, before[0], after[0])
                order = step if order is None else step[order]
                if torch.equal(order, torch.arange(order.numel(), device=order.device)):
                    order = None
            if order is not None:
                local = program.shapes[before[0]].per_image
                assert local is not None
                self.orders[t - 1] = _Order(order, local, run.shape[0])

    def copies(self, t: int) -> bool:
        """Whether a state changes coordinates before block t by more than a permutation of axes."""
        order = self.orders[t]
        return order is not None and order.axes is None

    def to_canonical(self, t: int, state: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """A state in the coordinates of block t -> those of h_T, shape (B, *shape)."""
        order = self.orders[t]
        if order is not None:
            return order.apply(state)
        return state if state.shape[1:] == tuple(shape) else state.reshape(state.shape[0], *shape)

    def from_canonical(self, t: int, state: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Inverse of :meth:`to_canonical`: into the coordinates of block t, shape (B, *shape)."""
        order = self.orders[t]
        if order is not None:
            return order.undo(state)
        return state if state.shape[1:] == tuple(shape) else state.reshape(state.shape[0], *shape)


class _Order:
    """A permutation of coordinates between two shapes; a permutation of axes (perhaps merged) stays a view.

    Views matter: a copy would lie in memory in another order than in the plain forward pass, and reductions
    after it would round differently.
    """

    def __init__(self, order: torch.Tensor, local: tuple[int, ...], canonical: tuple[int, ...]) -> None:
        self.local, self.canonical = local, canonical
        self.axes: tuple[int, ...] | None = None
        numbered = torch.arange(order.numel(), device=order.device).reshape(local)
        if len(local) <= 4:
            for axes in itertools.permutations(range(len(local))):
                if torch.equal(numbered.permute(axes).flatten(), order):
                    self.axes = axes
                    return
        self.order, self.inverse = order, torch.argsort(order)

    def apply(self, state: torch.Tensor) -> torch.Tensor:
        if self.axes is not None:
            moved = state.permute(0, *(a + 1 for a in self.axes))
            return moved.reshape(state.shape[0], *self.canonical)
        return state.flatten(1)[:, self.order.to(state.device)].reshape(state.shape[0], *self.canonical)

    def undo(self, state: torch.Tensor) -> torch.Tensor:
        if self.axes is not None:
            back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
            moved = state.reshape(state.shape[0], *(self.local[a] for a in self.axes))
            return moved.permute(0, *(a + 1 for a in back))
        return state.flatten(1)[:, self.inverse.to(state.device)].reshape(state.shape[0], *self.local)


def _permutation(replayer: Replayer, program: Program, before: int, after: int) -> torch.Tensor:
    """Index p with after.flat = before.flat[p] for one image, read off a state of numbered coordinates."""
    shape = program.shapes[before]
    local = shape.per_image
    assert local is not None
    count = int(torch.Size(local).numel())
    # float64 holds every index exactly; the step only moves coordinates, so any dtype will do.
    device = next((p.device for p in replayer.module.parameters()), torch.device("cpu"))
    numbered = torch.arange(count, dtype=torch.float64, device=device).reshape(1, *local)
    batch = torch.cat([numbered, numbered])
    part = segment(program, point_of(program, (before,)), (before,), (after,))
    (moved,) = replayer.run(part, (from_image_first(batch, shape),), 2)
    return to_image_first(moved, program.shapes[after])[0].flatten().round().to(torch.int64)
