"""Trajectories G[t, i, :] = g_t(h_t(i)): readouts of every image at every depth, streamed in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stabilitykit.base.errors import CellProblem, DataProblem
from stabilitykit.base.watch import code_of
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.model import Model, state_parts
from stabilitykit.dynamics.readout import Readout
from stabilitykit.dynamics.space import Space, to_space

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

# Inputs (B, C, H, W) -> logits (B, K) at depths 0..T.
Forward = Callable[[torch.Tensor], Sequence[torch.Tensor]]
# Why nothing is measured where no depth tells images apart.
ALL_BLIND = (
    "at every depth all readouts coincide, so no two images are told apart: an untrained network, a head of zeros, "
    "or images that are equal"
)
# By how much of the largest logit another batch size moves logits (float32: `runs.provenance.LOGIT_BOUND`), by the
# precision they were extracted in. Of 16 bits: one unit in its last place, below which no two numbers are told apart.
ROUNDING = {
    "float32": 1e-5,
    "float64": 1e-14,
    "bfloat16": torch.finfo(torch.bfloat16).eps,
    "float16": torch.finfo(torch.float16).eps,
}
# Above this many bytes of float64 the values are kept in float32 (recorded in `storage`), memory-mapped where cached.
FLOAT64_LIMIT = 1 << 30
# Recorded readouts are the same in any batch: about so many bytes of them are replayed at once.
REPLAYED_BYTES = 1 << 22
# Images by whose readouts most depths are seen to tell images apart.
FEW = 256


@dataclass(frozen=True)
class Trajectory:
    """Readouts of N images at depths t = 0..T (t = 0: before any block).

    Attributes:
        logits: float32 or float64 (T+1, N, K), possibly memory-mapped: what the network gave.
        labels: int64 (N,).
        indices: int64 (N,), the dataset index of each row.
        space: ``"probabilities"`` or ``"logits"``: what ``values`` holds.
        class_names: K names.
        first: the first depth that counts (:meth:`starting_at`).
        dtype: the precision of 16 bits the network ran in, a key of :data:`ROUNDING`; None: that of ``logits``.
    """

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    space: Space
    class_names: list[str]
    first: int = 0
    dtype: str | None = None

    def starting_at(self, first: int) -> Trajectory:
        """The same trajectory of which the depths below ``first`` do not count: they are left out like blind ones.

        Raises:
            CellProblem: there is no such depth.
        """
        if first == self.first:
            return self
        if not 0 <= first <= self.depth:
            raise CellProblem(f"first_depth={first}: the depths are 0..{self.depth}; give one of them")
        later = replace(self, first=first)
        later.__dict__["values"] = self.values  # a cached property: not computed twice
        return later

    @cached_property
    def values(self) -> np.ndarray:
        """(T+1, N, K) in ``space``: float64, or float32 above 1 GiB (see ``storage``). Read-only: all share it."""
        values = self._computed_values()
        values.flags.writeable = False
        return values

    def _computed_values(self) -> np.ndarray:
        if self.space == "logits":
            return self.logits if self.storage == "float32" else np.ascontiguousarray(self.logits, dtype=np.float64)
        values: np.ndarray = np.empty(self.logits.shape, dtype=self.storage)
        for t in range(len(values)):
            for start in range(0, len(self), 4096):
                part = slice(start, start + 4096)
                values[t, part] = to_space(self.logits[t, part], self.space)
        return values

    @property
    def storage(self) -> str:
        """dtype of ``values``: ``"float64"``, or ``"float32"`` for large trajectories."""
        return "float64" if self.logits.size * 8 <= FLOAT64_LIMIT else "float32"

    @property
    def rounded(self) -> bool:
        """True where ``values`` are float32 copies: a distance between two of them is off by up to 2^-23."""
        return self.storage == "float32" and self.space != "logits"

    @property
    def depth(self) -> int:
        """T, the number of blocks."""
        return int(self.logits.shape[0]) - 1

    def __len__(self) -> int:
        """N, the number of images."""
        return int(self.logits.shape[1])

    @property
    def num_classes(self) -> int:
        """K, the dimension of the readout."""
        return int(self.logits.shape[-1])

    @cached_property
    def predictions(self) -> np.ndarray:
        """int64 (N,): argmax of the final readout (lowest class on ties)."""
        classes: np.ndarray = np.asarray(self.logits[-1]).argmax(axis=1).astype(np.int64)
        return classes

    @cached_property
    def decisions(self) -> np.ndarray:
        """(T+1, N), uint8, uint16 or uint32, the smallest that holds K: argmax of the readout at each depth (lowest
        class on ties). Read-only: all share it."""
        kind = np.min_scalar_type(self.num_classes)
        chosen: np.ndarray = np.stack([np.asarray(logits).argmax(axis=1).astype(kind) for logits in self.logits])
        chosen.flags.writeable = False
        return chosen

    @cached_property
    def blind(self) -> tuple[int, ...]:
        """Depths at which all readouts of the sample coincide (a class token before the first block, a head of zeros):
        they tell nothing apart, and are left out of min, mean, normalised values and headlines. Coincide: up to what
        the size of a batch moves them, see :func:`coincide`."""
        return tuple(t for t, logits in enumerate(self.logits) if coincide(logits, dtype=self.dtype))

    @cached_property
    def excluded(self) -> tuple[int, ...]:
        """Depths that take no part in searches and constants: those before :attr:`first`, and :attr:`blind` ones."""
        return tuple(sorted({*range(self.first), *self.blind}))

    @cached_property
    def seeing(self) -> np.ndarray:
        """int64 (S,), the depths that are not :attr:`excluded`, ascending: searches run over them."""
        return np.setdiff1d(np.arange(len(self.logits)), self.excluded)

    @cached_property
    def seen(self) -> np.ndarray:
        """``values[seeing]``, (S, N, K), float64 or float32: the very same array where none is excluded, and no copy
        where the others stand together."""
        seeing = self.seeing
        if len(seeing) and seeing[-1] - seeing[0] + 1 == len(seeing):
            return self.values[seeing[0] : seeing[-1] + 1] if self.excluded else self.values
        chosen: np.ndarray = self.values[seeing]
        return chosen

    def left_out(self, names: Sequence[str]) -> str:
        """Words for notes: which depths are left out, by number and name (``names``: T+1), and why; empty for none."""
        blind = [t for t in self.blind if t >= self.first]
        groups = [(range(self.first), f"before first_depth={self.first}"), (blind, "where all readouts coincide")]
        told = []
        for depths, why in groups:
            if depths:
                listed = ", ".join(f"{t} ({names[t]})" for t in depths)
                told.append(f"left out: depth{'s' if len(depths) > 1 else ''} {listed}, {why}")
        return "; ".join(told)

    @property
    def unit(self) -> str:
        """Unit of distances between values."""
        return "probability (l2)" if self.space == "probabilities" else "logit (l2)"


def coincide(logits: np.ndarray, slack: float = 1.0, dtype: str | None = None) -> bool:
    """Whether the readouts (N, K), float32 or float64, of N images are one up to :data:`ROUNDING`, times ``slack``.

    ``dtype`` is the precision they were extracted in, a key of :data:`ROUNDING`; None: their own.

    The last batch of a sample is smaller than the others, and equal rows come out of it with other last bits.
    """
    if not len(logits):
        return True
    part = slack * ROUNDING[dtype or logits.dtype.name]
    if len(logits) > FEW and part < 0.25:
        # All are larger than a few by at most their spread s: would they coincide, s <= part * (size + s).
        spread, size = _spread_and_size(logits[:FEW])
        if spread > 2 * part * size:
            return False
    spread, size = _spread_and_size(logits)
    return spread <= part * size


def _spread_and_size(logits: np.ndarray) -> tuple[float, float]:
    """The largest difference between two images in one number, and the largest of all numbers, of (N, K) readouts."""
    largest, smallest = logits.max(axis=0), logits.min(axis=0)
    return float((largest - smallest).max()), float(max(largest.max(), -smallest.min()))


def batches(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    batch_size: int,
    device: torch.device | str,
    *,
    start: int = 0,
    prefetch: bool = True,
    channels_last: bool = False,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Preprocessed inputs of ``dataset[indices]`` in fixed batches from row ``start``, a multiple of the batch size.

    The next batch is decoded in a thread while the network works on this one.

    Returns:
        Pairs (rows as a slice into ``indices``, float inputs (B, C, H, W) of the model's dtype on ``device``).

    Raises:
        DataProblem: NaN or infinite pixels; the message names the image.
    """
    firsts = range(start, len(indices), batch_size)
    wanted = [slice(first, min(first + batch_size, len(indices))) for first in firsts]
    yield from batches_of(model, dataset, indices, wanted, device, prefetch=prefetch, channels_last=channels_last)


def batches_of(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    wanted: Sequence[slice],
    device: torch.device | str,
    *,
    prefetch: bool = True,
    channels_last: bool = False,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """:func:`batches` of given rows.

    Arguments:
        indices: int64 (N,) dataset indices.
        wanted: slices into ``indices``, one a batch, in the order in which they are computed.

    Returns:
        Pairs (rows, float inputs (B, C, H, W) of the model's dtype on ``device``), one for each of ``wanted``.

    Raises:
        DataProblem: NaN or infinite pixels; the message names the image.
    """
    device = torch.device(device)
    pin = device.type == "cuda"

    def load(rows: slice) -> torch.Tensor:
        chosen = indices[rows].tolist()
        with code_of(dataset):
            images = dataset.images(chosen)
        check_images(dataset, chosen, images)
        inputs = model.preprocess(images)
        if not isinstance(inputs, torch.Tensor) or inputs.shape[:1] != (len(chosen),):
            raise CellProblem(
                f"model {model.name}: preprocess gave {_shape(inputs)} for {len(chosen)} images, "
                f"expected a tensor ({len(chosen)}, ...)"
            )
        if model.readout_dtype == "float64" and inputs.is_floating_point():
            inputs = inputs.double()
        finite = torch.isfinite(inputs.reshape(inputs.shape[0], -1)).all(dim=1)
        if not bool(finite.all()):
            bad = int(indices[rows][int((~finite).nonzero()[0])])
            raise DataProblem(f"dataset {dataset.name}: image {bad} holds NaN or infinite pixels; remove or repair it")
        if channels_last and inputs.ndim == 4:
            inputs = inputs.to(memory_format=torch.channels_last)
        return inputs.pin_memory() if pin else inputs

    if not prefetch or len(wanted) < 2:
        for rows in wanted:
            yield rows, load(rows).to(device, non_blocking=pin)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    try:
        pending = pool.submit(copy_context().run, load, wanted[0])
        for position, rows in enumerate(wanted):
            with code_of(dataset):
                inputs = pending.result()
            if position + 1 < len(wanted):
                pending = pool.submit(copy_context().run, load, wanted[position + 1])
            yield rows, inputs.to(device, non_blocking=pin)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after an interruption, a hanging dataset is not waited for


@torch.inference_mode()
def batch_logits(
    model: Model,
    readout: Readout,
    inputs: torch.Tensor,
    dtype: torch.dtype | None = None,
    forward: Forward | None = None,
) -> np.ndarray:
    """Logits along depth of one batch; no state is kept.

    Arguments:
        inputs: (B, C, H, W), preprocessed, a float dtype.
        dtype: of the inputs and the network, where it is not the model's own.
        forward: stands in for the blocks run one by one (see :mod:`stabilitykit.dynamics.compiled`).

    Returns:
        (T+1, B, K) of ``model.readout_dtype``.
    """
    stored = torch.float64 if model.readout_dtype == "float64" else torch.float32
    with torch.autocast(inputs.device.type, dtype=dtype, enabled=dtype is not None):
        found = _along_depth(model, readout, inputs) if forward is None else forward(inputs)
        # Copied, and to one place: a readout that is a view of its state would keep the states of all depths, and small
        # arrays between the states would keep the allocator from giving a state the room of the one before.
        kept = None
        for t, logits in enumerate(found):
            if kept is None:
                kept = torch.empty((model.num_blocks + 1, *logits.shape), dtype=stored)
            kept[t] = logits
        assert kept is not None
        return kept.numpy()


def _along_depth(model: Model, readout: Readout, inputs: torch.Tensor) -> Iterable[torch.Tensor]:
    """T+1 readouts (B, K) of one batch: replayed where that gives them all at once, else block after block."""
    replayed = model.replay(inputs) if readout.kind == "head" else None
    return depth_logits(model, readout, inputs) if replayed is None else replayed


def depth_logits(model: Model, readout: Readout, inputs: torch.Tensor) -> Iterator[torch.Tensor]:
    """Logits (B, K), a float dtype, at depths 0..T of one batch, block after block.

    Raises:
        CellProblem: states or readouts that cannot be, with the depth.
    """
    state = model.initial_state(inputs)
    dimension = _dimension(model, 0, state, inputs)
    waiting = 0  # depths whose readouts are those of the next one
    for t in range(model.num_blocks + 1):
        if t:
            state = model.block(t - 1, state)
            before, dimension = dimension, _dimension(model, t, state, inputs)
            if before != dimension and model.steps[t - 1] != "transition":
                raise CellProblem(
                    f"model {model.name}: block {t - 1} leads from R^{before} to R^{dimension}; all blocks map R^n to "
                    "the same R^n, except where Model.steps says transition"
                )
        if t < model.num_blocks and readout.equals_next(t):
            waiting += 1
            continue
        logits = readout.logits(t, state)
        classes = logits.shape[-1] if readout.kind == "probe" else model.num_classes
        if tuple(logits.shape) != (len(inputs), classes) or not logits.is_floating_point():
            raise CellProblem(
                f"model {model.name}: the readout at depth {t} is {_shape(logits)}, expected floats "
                f"({len(inputs)}, {classes})"
            )
        for _ in range(waiting + 1):
            yield logits
        waiting = 0


def _dimension(model: Model, t: int, state: State, inputs: torch.Tensor) -> int:
    """n, the number of elements of one image's state h_t; CellProblem when it is no batch of states."""
    parts = state_parts(state)
    for part in parts:
        if not isinstance(part, torch.Tensor) or part.shape[:1] != inputs.shape[:1]:
            raise CellProblem(
                f"model {model.name}: the state at depth {t} is {_shape(part)}, expected a tensor "
                f"({len(inputs)}, ...) or a tuple of those"
            )
    return sum(part[0].numel() for part in parts)


def check_images(dataset: Dataset, wanted: list[int], images: Any) -> None:
    """DataProblem, naming the image, unless ``images`` are floating-point arrays (C, H, W), one per index."""
    whole = isinstance(images, np.ndarray) and images.ndim == 4
    try:
        count = len(images)
    except TypeError:
        count = -1
    if count != len(wanted):
        raise DataProblem(
            f"dataset {dataset.name}: images() gave {_shape(images) if count < 0 else count} for the "
            f"{len(wanted)} indices {wanted[0]}..{wanted[-1]}, expected one (C, H, W) array each"
        )
    for index, image in zip(wanted, images[:1] if whole else images):
        if getattr(image, "ndim", 0) != 3 or not _floating(image):
            raise DataProblem(
                f"dataset {dataset.name}: image {index} is {_shape(image)}, expected (C, H, W) floats in [0, 1]"
            )


def _floating(image: Any) -> bool:
    return image.is_floating_point() if isinstance(image, torch.Tensor) else image.dtype.kind == "f"


def _shape(thing: Any) -> str:
    if isinstance(thing, (np.ndarray, torch.Tensor)):
        return f"{thing.dtype} of shape {tuple(thing.shape)}"
    return f"a {type(thing).__name__}"


def extract(
    model: Model,
    readout: Readout,
    dataset: Dataset,
    indices: np.ndarray,
    out: np.ndarray,
    extraction: Extraction,
    *,
    device: torch.device | str = "cpu",
    start: int = 0,
    on_batch: Callable[[int], None] | None = None,
    forward: Forward | None = None,
) -> None:
    """Fill ``out`` (T+1, N, K), float32 or float64, from row ``start``; ``on_batch(rows_done)`` after every batch.

    Raises:
        DataProblem: NaN or infinite pixels.
        CellProblem: a readout is NaN or infinite, naming image and depth.
    """
    size = extraction.batch_size
    if model.replayed and readout.kind == "head" and forward is None:
        size *= max(1, REPLAYED_BYTES // (8 * math.prod(model.state_shape) * size))
    for rows, inputs in batches(
        model, dataset, indices, size, device, start=start, channels_last=extraction.channels_last
    ):
        logits = batch_logits(model, readout, inputs, extraction.autocast, forward)
        if not np.isfinite(logits).all():
            t, i, _ = np.argwhere(~np.isfinite(logits))[0]
            raise CellProblem(
                f"model {model.name}: the readout of image {indices[rows][i]} at depth {t} is NaN or "
                "infinite; check the weights and the preprocessing"
            )
        out[:, rows] = logits
        if on_batch is not None:
            on_batch(rows.stop)
