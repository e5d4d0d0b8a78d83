"""The trajectory of a model on a dataset: read from the cache or extracted, each process of a run its share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stabilitykit.base.errors import DataProblem, StabilityKitError
from stabilitykit.base.results import to_plain
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import Readout
from stabilitykit.dynamics.trajectory import Forward, Trajectory, extract
from stabilitykit.evaluation.blame import blaming, culprit_of
from stabilitykit.evaluation.cache import TrajectoryCache, scratch_array
from stabilitykit.evaluation.proof import Proof, code_digest
from stabilitykit.evaluation.selection import Choice
from stabilitykit.machine.distributed import World, row_bounds


@dataclass(frozen=True)
class Request:
    """A trajectory asked for: whose readouts, of which images, how, where, and whom to blame when it fails.

    Attributes:
        indices: int64 (N,) dataset indices, ascending.
        forward: the compiled forward pass, or None.
        fingerprint: of the model.
        cache: folder for trajectories; None: none.
        model_choice, dataset_choice: what the model and the dataset were built from.
    """

    model: Model
    dataset: Dataset
    indices: np.ndarray
    readout: Readout
    extraction: Extraction
    forward: Forward | None
    fingerprint: str
    device: torch.device
    cache: Path | None
    world: World
    progress: Callable[..., Iterator[Any]]
    model_choice: Choice
    dataset_choice: Choice

    @property
    def classes(self) -> int:
        """K, the dimension of the readouts."""
        return len(self.dataset.class_names) if self.readout.kind == "probe" else self.model.num_classes

    def culprit(self, error: BaseException) -> Choice:
        """Bad images are the dataset's fault, the rest the model's unless the traceback says otherwise."""
        if isinstance(error, DataProblem):
            return self.dataset_choice
        parts = [(self.dataset, self.dataset_choice), (self.model, self.model_choice)]
        return culprit_of(error, self.model_choice, parts)


def extracted(asked: Request) -> Trajectory:
    """Logits of the images along depth; every process computes its rows and gets all of them.

    Raises:
        StabilityKitError: one of the processes could not extract its rows.
    """
    model, world = asked.model, asked.world
    names, classes = [str(c) for c in asked.dataset.class_names], asked.classes
    bounds = row_bounds(len(asked.indices), asked.extraction.batch_size, world.size)
    mine = asked.indices[bounds[world.rank] : bounds[world.rank + 1]]
    shape = (model.num_blocks + 1, len(mine), classes)

    def fill(out: np.ndarray, start: int, on_batch: Callable[[int], None]) -> None:
        with _bar(asked.progress, "trajectories", shape[1], start) as advance:

            def tick(rows: int) -> None:
                advance(rows)
                on_batch(rows)

            _extract(asked, mine, out, start, tick)

    logits: np.ndarray = np.empty(shape, model.readout_dtype)
    trouble: StabilityKitError | None = None
    try:
        if len(mine) and asked.cache is None:
            logits = scratch_array(shape, model.readout_dtype)
            fill(logits, 0, lambda rows: None)
        elif len(mine) and asked.cache is not None:
            logits, _ = TrajectoryCache(asked.cache).get(
                _cache_record(asked, mine), shape, fill, model.readout_dtype, proof_of(asked, mine)
            )
    except StabilityKitError as error:
        trouble = error
    # Every rank hears of one rank's trouble; waiting for its rows would hang the others.
    troubles = [t for t in world.all_gather(trouble) if t is not None]
    if troubles:
        raise troubles[0]
    if world.size > 1:
        whole = scratch_array((shape[0], len(asked.indices), classes), model.readout_dtype)
        whole[:, bounds[world.rank] : bounds[world.rank + 1]] = logits
        world.share_rows(whole, bounds, asked.device)
        logits = whole
    labels = np.asarray(asked.dataset.labels)[asked.indices].astype(np.int64)
    for array in (logits, labels):
        array.flags.writeable = False
    return Trajectory(logits, labels, asked.indices, asked.extraction.space, names, dtype=asked.extraction.reduced)


def proof_of(asked: Request, indices: np.ndarray) -> Proof:
    """What the network given now computes on some of the images ``indices``, int64 (N,), in batches as extracted."""

    def compute(start: int, stop: int) -> np.ndarray:
        out = np.empty((asked.model.num_blocks + 1, stop - start, asked.classes), asked.model.readout_dtype)
        _extract(asked, indices[start:stop], out, 0, None)
        return out

    return Proof(compute, len(indices), asked.extraction.batch_size, exact=asked.device.type == "cpu")


def _extract(
    asked: Request, indices: np.ndarray, out: np.ndarray, start: int, on_batch: Callable[[int], None] | None
) -> None:
    if asked.extraction.channels_last:
        asked.model.module.to(memory_format=torch.channels_last)
    try:
        extract(
            asked.model,
            asked.readout,
            asked.dataset,
            indices,
            out,
            asked.extraction,
            device=asked.device,
            start=start,
            on_batch=on_batch,
            forward=asked.forward,
        )
    except BaseException as error:
        with blaming(asked.culprit(error)):
            raise


def _cache_record(asked: Request, indices: np.ndarray) -> dict[str, Any]:
    """Everything the logits of ``indices`` depend on: the key under which they are kept."""
    import hashlib

    from stabilitykit.dynamics import readout as readout_module
    from stabilitykit.dynamics import trajectory as trajectory_module

    return {
        "what": "logits",
        "model": asked.fingerprint,
        "dataset": asked.dataset.fingerprint(),
        "indices": hashlib.sha256(indices.astype(np.int64).tobytes()).hexdigest(),
        "preprocessing": to_plain(dict(asked.model.preprocessing)),
        "readout": asked.readout.fingerprint(),
        **asked.extraction.logits_record(),
        "device": asked.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "plugin": asked.model_choice.plugin,
        "code": code_digest(asked.model, trajectory_module, readout_module),
    }


class _bar:
    """A progress display driven by absolute positions, on top of an iterator-style reporter."""

    def __init__(self, progress: Callable[..., Iterator[Any]], text: str, total: int, start: int) -> None:
        self.iterator = progress(range(start, total), text, total - start)
        self.position = start

    def __enter__(self) -> Callable[[int], None]:
        return self._advance

    def _advance(self, rows: int) -> None:
        while self.position < rows:
            next(self.iterator, None)
            self.position += 1

    def __exit__(self, *error: object) -> None:
        for _ in self.iterator if error[0] is None else ():
            pass
