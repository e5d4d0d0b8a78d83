"""The trajectory of a pair: read from the cache or extracted, each process of a run its share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stabilitykit.base.errors import DataProblem, PluginProblem, StabilityKitError
from stabilitykit.base.results import to_plain
from stabilitykit.dynamics.trajectory import Trajectory, extract
from stabilitykit.evaluation.blame import blaming, culprit_of
from stabilitykit.evaluation.cache import TrajectoryCache, scratch_array
from stabilitykit.evaluation.settings import EXTRACT_DTYPES
from stabilitykit.machine.distributed import row_bounds

if TYPE_CHECKING:
    from stabilitykit.dynamics.readout import Readout
    from stabilitykit.evaluation.subject import Pair


def extracted(pair: Pair) -> Trajectory:
    """Logits of the evaluated images along depth; every process computes its rows and gets all of them."""
    model, readout, settings = pair.model, pair.readout, pair.settings
    what = pair.damage()
    if what:  # readouts of a changed model must not reach the others, let alone the cache
        raise PluginProblem(f"modified {what} before it asked for the trajectory")
    classes = model.num_classes if settings.readout == "head" else len(pair.dataset.class_names)
    bounds = row_bounds(len(pair.indices), settings.batch_size, pair.world.size)
    mine = pair.indices[bounds[pair.world.rank] : bounds[pair.world.rank + 1]]
    shape = (model.num_blocks + 1, len(mine), classes)
    key = _cache_record(pair, readout, mine)
    if settings.channels_last:
        model.module.to(memory_format=torch.channels_last)

    def fill(out: np.ndarray, start: int, on_batch: Callable[[int], None]) -> None:
        with _bar(pair.progress, "trajectories", shape[1], start) as advance:

            def tick(rows: int) -> None:
                advance(rows)
                on_batch(rows)

            try:
                extract(
                    model,
                    readout,
                    pair.dataset,
                    mine,
                    out,
                    batch_size=settings.batch_size,
                    device=pair.device,
                    dtype=EXTRACT_DTYPES[settings.extract_dtype],
                    start=start,
                    channels_last=settings.channels_last,
                    on_batch=tick,
                    forward=pair.forward,
                )
            except BaseException as error:  # bad images are the dataset's fault, the rest the model's
                culprit = (
                    pair.dataset_choice
                    if isinstance(error, DataProblem)
                    else culprit_of(error, pair.model_choice, pair.parts(None, pair.model_choice))
                )
                with blaming(culprit):
                    raise

    logits, info = np.empty(shape, model.readout_dtype), {"key": ""}
    trouble: StabilityKitError | None = None
    try:
        if len(mine) and pair.cache is None:
            logits = scratch_array(shape, model.readout_dtype)
            fill(logits, 0, lambda rows: None)
        elif len(mine) and pair.cache is not None:
            logits, info = TrajectoryCache(pair.cache).get(key, shape, fill, model.readout_dtype)
    except StabilityKitError as error:
        trouble = error
    # Every rank hears of one rank's trouble; waiting for its rows would hang the others.
    troubles = [t for t in pair.world.all_gather(trouble) if t is not None]
    if troubles:
        raise troubles[0]
    if pair.world.size > 1:
        whole = scratch_array((shape[0], len(pair.indices), classes), model.readout_dtype)
        whole[:, bounds[pair.world.rank] : bounds[pair.world.rank + 1]] = logits
        pair.world.share_rows(whole, bounds, pair.device)
        logits = whole
    record = {
        "cache_key": info["key"],
        "shape": list(logits.shape),
        "batch_size": settings.batch_size,
        "extract_dtype": settings.extract_dtype,
        "compile": settings.compile,
        "device": pair.device.type,
    }
    labels = np.asarray(pair.dataset.labels)[pair.indices].astype(np.int64)
    for array in (logits, labels):
        array.flags.writeable = False
    names = [str(c) for c in pair.dataset.class_names]
    return Trajectory(logits, labels, pair.indices, settings.space, names, record)


def _cache_record(pair: Pair, readout: Readout, indices: np.ndarray) -> dict[str, Any]:
    """Everything the logits of ``indices`` depend on: the key under which they are kept."""
    import hashlib
    import inspect

    from stabilitykit.dynamics import readout as readout_module
    from stabilitykit.dynamics import trajectory as trajectory_module

    code = hashlib.sha256()
    for thing in (trajectory_module, readout_module, type(pair.model)):
        try:
            code.update(Path(inspect.getsourcefile(thing) or "").read_bytes())
        except (OSError, TypeError):
            code.update(repr(thing).encode())  # defined interactively: no source to key on
    return {
        "what": "logits",
        "model": pair.fingerprint,
        "dataset": pair.dataset.fingerprint(),
        "indices": hashlib.sha256(indices.astype(np.int64).tobytes()).hexdigest(),
        "preprocessing": to_plain(dict(pair.model.preprocessing)),
        "readout": readout.fingerprint(),
        "batch_size": pair.settings.batch_size,
        "dtype": pair.settings.extract_dtype,
        "channels_last": pair.settings.channels_last,
        "compile": pair.settings.compile,
        "device": pair.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "plugin": pair.model_choice.plugin,
        "code": code.hexdigest(),
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
