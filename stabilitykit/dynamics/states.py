"""States of many images at many depths, visited again and again: kept once, or computed anew in every pass.

What trains on states (probes, lenses) sees the same batches in both cases, computed from the same inputs: where the
states are kept changes the time it takes, not one bit of the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stabilitykit.base.errors import CellProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model, state_of, state_parts
from stabilitykit.dynamics.readout import state_vector
from stabilitykit.dynamics.trajectory import batches_of

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

# Room for an array (rows, columns) of a dtype; None: there is none.
Allocate = Callable[[tuple[int, int], str], np.ndarray | None]
Progress = Callable[..., Iterator[Any]]
MEMORY_BYTES = 1 << 28
"""Up to here :func:`in_memory` keeps states."""


def in_memory(shape: tuple[int, int], dtype: str) -> np.ndarray | None:
    """An array (rows, columns) of ``dtype`` in memory, None where it would take more than MEMORY_BYTES."""
    return np.empty(shape, dtype) if prod(shape) * np.dtype(dtype).itemsize <= MEMORY_BYTES else None


@dataclass(frozen=True)
class Layout:
    """How a state h_t is laid out in a vector: the shapes and dtypes of its parts, without the batch."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]

    @property
    def size(self) -> int:
        """n, the number of elements of one image's state."""
        return sum(map(prod, self.shapes))

    def state(self, vectors: torch.Tensor) -> State:
        """Vectors (B, n) float32 -> the state (B, ...) in the network's own dtypes."""
        parts = vectors.split([prod(shape) for shape in self.shapes], dim=1)
        return state_of([p.reshape(-1, *s).to(d) for p, s, d in zip(parts, self.shapes, self.dtypes)])


@dataclass(frozen=True)
class Batch:
    """States of the images of one batch.

    Attributes:
        number: of the batch, the same in every pass.
        rows: of :attr:`StateBatches.indices`.
        labels: int64 (B,).
        vectors: for every depth asked for, float32 (B, n_t).
        final: logits (B, K) float32 of the network; (B, 0) where they were not asked for.
    """

    number: int
    rows: slice
    labels: torch.Tensor
    vectors: Sequence[torch.Tensor]
    final: torch.Tensor


class StateBatches:
    """States at some depths of the images ``dataset[indices]``, in random batches drawn once.

    Every image is in one batch, sizes differ by at most one; :meth:`visits` visits them in another order in every
    pass. The model's modules are put into eval mode.

    Arguments:
        indices: (N,) integers, N >= 1: the images of ``dataset``.
        depths: whose states are given, ascending.
        logits: also give the network's own output.
        seed: of the batches and their orders.

    Attributes:
        indices: int64 (N,): the images in the order of the rows.
        bounds: the rows of every batch.
        layouts: of the states, one for each of ``depths``.
        first: the batch number 0.
        passes: how often the network has gone through all images.

    Raises:
        CellProblem: there is no image.
    """

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        indices: np.ndarray,
        depths: Sequence[int],
        *,
        logits: bool = False,
        batch_size: int = 100,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(indices) == 0:
            raise CellProblem(f"dataset {dataset.name} holds no image to train a readout on")
        model.module.eval()
        self.model, self.dataset, self.depths, self.device = model, dataset, list(depths), torch.device(device)
        self._generator = np.random.default_rng(seed)
        self._logits = logits
        self._kept: np.ndarray | None = None
        order = self._generator.permutation(len(indices))
        self.indices = np.asarray(indices, dtype=np.int64)[order]
        self._labels = torch.as_tensor(np.asarray(dataset.labels)[self.indices].astype(np.int64), device=self.device)
        count, parts = len(indices), ceil(len(indices) / batch_size)
        edges = [count * number // parts for number in range(parts + 1)]
        self.bounds = [slice(start, stop) for start, stop in pairwise(edges)]
        self.passes = 0
        self.layouts: list[Layout] = []
        self.first = next(self._computed([0], learn=True))

    @property
    def width(self) -> int:
        """Numbers kept of one image."""
        return sum(layout.size for layout in self.layouts) + self.first.final.shape[1]

    def keep(self, allocate: Allocate, progress: Progress | None = None) -> bool:
        """Compute all states once and keep them in what ``allocate`` gives -> whether there was room.

        Without room every pass runs the network.
        """
        room = allocate((len(self.indices), self.width), "float32")
        if room is None:
            return False
        numbers = range(len(self.bounds))
        for batch in (progress or no_progress)(self._computed(numbers), "states", len(numbers)):
            column = 0
            for part in (*batch.vectors, batch.final):
                room[batch.rows, column : column + part.shape[1]] = part.cpu().numpy()
                column += part.shape[1]
        self._kept = room
        return True

    def in_order(self) -> Iterator[Batch]:
        """All batches, by number."""
        return self._visit(range(len(self.bounds)))

    def visits(self, steps: int) -> Iterator[Batch]:
        """``steps`` batches, pass after pass, each in the next random order; the last pass ends where they do."""
        while steps > 0:
            numbers = self._generator.permutation(len(self.bounds)).tolist()[:steps]
            yield from self._visit(numbers)
            steps -= len(numbers)

    def _visit(self, numbers: Sequence[int]) -> Iterator[Batch]:
        if self._kept is None:
            yield from self._computed(numbers)
            return
        sizes = [*(layout.size for layout in self.layouts), self.first.final.shape[1]]
        for number in numbers:
            rows = self.bounds[number]
            parts = torch.from_numpy(self._kept[rows]).split(sizes, dim=1)
            # Copies lie in memory as what was computed does: products of matrices may round otherwise elsewhere.
            *vectors, final = (part.clone(memory_format=torch.contiguous_format).to(self.device) for part in parts)
            yield Batch(number, rows, self._labels[rows], vectors, final)

    def _computed(self, numbers: Sequence[int], *, learn: bool = False) -> Iterator[Batch]:
        wanted = [self.bounds[number] for number in numbers]
        inputs_of = batches_of(self.model, self.dataset, self.indices, wanted, self.device)
        for number, (rows, inputs) in zip(numbers, inputs_of):
            vectors: list[torch.Tensor] = []
            with torch.no_grad():  # no inference mode: its tensors are refused where gradients are wanted
                state = self.model.initial_state(inputs)
                for t in range(self.model.num_blocks + 1):
                    if t:
                        state = self.model.block(t - 1, state)
                    if t in self.depths:
                        vectors.append(state_vector(state).float())
                        if learn:
                            self.layouts.append(_layout(state))
                final = self.model.readout(state).float() if self._logits else inputs.new_zeros(len(inputs), 0).float()
            yield Batch(number, rows, self._labels[rows], vectors, final)
        self.passes += len(numbers) == len(self.bounds) and not learn


def _layout(state: State) -> Layout:
    parts = state_parts(state)
    return Layout(tuple(tuple(part.shape[1:]) for part in parts), tuple(part.dtype for part in parts))
