"""Is a trajectory that was kept the one this network gives? Some of its rows, computed anew, say so."""

from __future__ import annotations

import hashlib
import inspect
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stabilitykit.dynamics.model import Model

# Two runs of one batch on a device that is not deterministic may differ by this multiple of what two others did.
DRIFT_FACTOR = 4.0


class Proof:
    """Rows of a trajectory computed anew, in the batches in which they were extracted: at most two batches.

    The first batch, and the last one or another by chance, so that repeated use sees ever more of a trajectory.

    Arguments:
        compute: ``compute(start, stop)`` -> readouts (T+1, stop - start, K), float32 or float64, of a
            whole batch of rows.
        rows: N, rows of the whole trajectory.
        batch_size: rows of a batch; the last one may have fewer.
        exact: the device is deterministic: equal networks give equal bits.
    """

    def __init__(
        self, compute: Callable[[int, int], np.ndarray], rows: int, batch_size: int, *, exact: bool = True
    ) -> None:
        self._compute, self._rows, self._size, self.exact = compute, rows, batch_size, exact
        self._done: dict[int, np.ndarray] = {}  # by first row

    def reproduces(self, array: np.ndarray, rows: int, drift: float) -> bool:
        """Do the first ``rows`` rows of ``array`` (T+1, N, K) hold what the network computes, as far as is looked at?

        ``array`` is float32 or float64 as it was kept. On a deterministic device the bits must be equal, elsewhere the
        difference is at most DRIFT_FACTOR times ``drift``, which was recorded with the rows.
        """
        return all(self._same(self._batch(first), array, first, drift) for first in self._chosen(rows))

    def drift(self, array: np.ndarray) -> float:
        """The largest difference between ``array`` and its first batch computed again; 0 if exact.

        ``array`` (T+1, N, K), float32 or float64, was just extracted.
        """
        if self.exact:
            return 0.0
        again = self._batch(0)
        return float(np.abs(again - array[:, : again.shape[1]]).max(initial=0.0))

    def digest(self, array: np.ndarray | None = None) -> str:
        """Hex digest of what the network computes on the first and the last batch.

        Read off ``array`` (T+1, N, K), float32 or float64, where the whole trajectory is known, else computed.
        """
        digest = hashlib.sha256()
        for first in sorted({0, (self._rows - 1) // self._size * self._size}):
            rows = self._batch(first) if array is None else array[:, first : first + self._size]
            digest.update(np.ascontiguousarray(rows).data)
        return digest.hexdigest()

    def _chosen(self, rows: int) -> list[int]:
        """First rows of the batches to look at among the first ``rows`` rows: never more than two in all."""
        whole = [first for first in range(0, rows, self._size) if min(first + self._size, self._rows) <= rows]
        others = whole[1:]
        if others and not any(first in self._done for first in others) and len(self._done) < 2:
            chance = random.Random()  # seeded by the system: the seed of a run chooses other things
            self._batch(others[-1] if chance.random() < 0.5 else chance.choice(others))
        return [first for first in whole if first == 0 or first in self._done]

    def _batch(self, first: int) -> np.ndarray:
        if first not in self._done:
            self._done[first] = self._compute(first, min(first + self._size, self._rows))
        return self._done[first]

    def _same(self, again: np.ndarray, array: np.ndarray, first: int, drift: float) -> bool:
        kept = array[:, first : first + again.shape[1]]
        if again.shape != kept.shape or again.dtype != kept.dtype:
            return False
        if self.exact or drift == 0.0:
            return again.tobytes() == np.ascontiguousarray(kept).tobytes()
        return bool(np.abs(again - kept).max(initial=0.0) <= DRIFT_FACTOR * drift)


def code_digest(model: Model, *things: object) -> str:
    """Hex digest of what is written about a network: source files of its classes, and its modules with their settings.

    Part of an address only: what a network computes is seen by a :class:`Proof`. ``things`` are further modules or
    classes whose source counts.
    """
    digest = hashlib.sha256()
    parts = [part for _, part in model.module.named_modules()]
    classes = dict.fromkeys([type(model), *(type(part) for part in parts)])
    own = [c for c in classes if not c.__module__.startswith("torch.")]  # torch's version is in the address
    for source in dict.fromkeys(map(_source, (*things, *own))):
        digest.update(source)
    settings = [
        {name: value for name, value in vars(part).items() if isinstance(value, (bool, int, float, str, tuple))}
        for part in parts
    ]
    digest.update(re.sub(r"0x[0-9a-f]+", "", f"{model.module!r} {settings}").encode("utf-8", "replace"))
    return digest.hexdigest()


def _source(thing: object) -> bytes:
    try:
        return Path(inspect.getsourcefile(thing) or "").read_bytes()  # type: ignore[arg-type]
    except (OSError, TypeError):
        return re.sub(r"0x[0-9a-f]+", "", repr(thing)).encode()  # defined interactively: no source to go by
