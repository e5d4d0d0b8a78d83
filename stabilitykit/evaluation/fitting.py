"""Readouts that are trained first, and where the states they are trained on are kept meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stabilitykit.base.errors import StabilityKitError, UsageProblem
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import Readout
from stabilitykit.dynamics.states import Allocate
from stabilitykit.evaluation.cache import SCRATCH_BYTES, scratch_array
from stabilitykit.evaluation.settings import Settings

SCRATCH_VARIABLE = "STABILITYKIT_SCRATCH"
FREE_SHARE = 0.5
"""Of the free disk space, how much states may take."""


def fitted(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    settings: Settings,
    *,
    num_classes: int,
    held_out: bool,
    device: torch.device,
    folder: Path | None,
    progress: Callable[..., Iterator[Any]],
) -> Readout:
    """The probes or the lens that ``settings`` ask for, trained.

    Arguments:
        indices: int64 (n,): the images of ``dataset`` to train on.
        num_classes: K of probes.
        held_out: also judge probes by images that some were not trained on.
        folder: where states are kept while training; None: the temporary folder. Nothing is left there.

    Raises:
        CellProblem: a readout that cannot be trained for this model.
    """
    given: dict[str, Any] = {
        "epochs": settings.probe_epochs,
        "steps": settings.probe_steps,
        "batch_size": settings.extraction.batch_size,
        "seed": settings.seed,
        "device": device,
        "allocate": room_for_states(folder, model.name),
        "progress": progress,
    }
    if settings.extraction.readout == "lens":
        from stabilitykit.dynamics.lens import fit_lens

        return fit_lens(model, dataset, indices, **given)
    from stabilitykit.dynamics.probe import fit_probes

    return fit_probes(model, dataset, indices, num_classes=num_classes, held_out=held_out, **given)


def room_for_states(folder: Path | None, owner: str) -> Allocate:
    """Finds room for states in memory or, above 256 MiB, in half of the free space of the disk.

    ``STABILITYKIT_SCRATCH`` (gigabytes) sets another limit; 0 keeps nothing. Without room a line on stderr says what
    that costs: the network then runs once per epoch. The numbers are the same.
    """

    def room(shape: tuple[int, int], dtype: str) -> np.ndarray | None:
        size = prod(shape) * np.dtype(dtype).itemsize
        limit = _limit()
        place = Path(tempfile.gettempdir()) if folder is None else folder
        reason = f"more than ${SCRATCH_VARIABLE} allows"
        try:
            place.mkdir(parents=True, exist_ok=True)
            if limit is None:
                free = shutil.disk_usage(place).free
                limit = max(FREE_SHARE * free, SCRATCH_BYTES)
                reason = f"{place} has {free / 1e9:.1f} GB free, of which half may be taken"
            if size <= limit:
                return scratch_array(shape, dtype, place)
        except (OSError, StabilityKitError, MemoryError) as error:
            reason = str(error)
        print(
            f"warning: {owner}: the states to train the readout on take {size / 1e9:.1f} GB ({reason}); the network "
            f"runs once per epoch instead, which gives the same readout (--cache DIR or TMPDIR choose another disk, "
            f"${SCRATCH_VARIABLE} the gigabytes that may be taken)",
            file=sys.stderr,
        )
        return None

    return room


def _limit() -> float | None:
    """Bytes that $STABILITYKIT_SCRATCH allows; None where it is not set."""
    given = os.environ.get(SCRATCH_VARIABLE)
    if not given:
        return None
    try:
        limit = float(given) * 1e9
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UsageProblem(f"${SCRATCH_VARIABLE} is a number of gigabytes >= 0; got {given!r}")
    return limit
