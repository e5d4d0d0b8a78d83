"""Lip(g_a - g_b) of a readout that is no matrix: norms layer by layer, and the rows of its last one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from torch import nn

from stabilitykit_lipschitz.gains import Gain
from stabilitykit_lipschitz.layerwise import LayerReading
from stabilitykit_lipschitz.margins import MarginBounds
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.operators import Dense, Selection
from stabilitykit_lipschitz.rounding import UNIT

# What rounding may move the module's own float64 outputs by, as a share of their size and of Lip(g) ||h||.
ROUNDING = 1e-9


class LayeredMargins:
    """Certified upper bounds of Lip(g_a - g_b), l2, of a module without a matrix of its layers.

    Where the last layer is linear they are ||w_a - w_b|| times the layer-wise bound of what it reads, else the smaller
    of sqrt(2) Lip(g) from l2 to l2 and 2 Lip(g) from l2 to l-infinity. Bounds are proven, rounding included; the
    outputs are the module's own in float64, whose rounding :data:`ROUNDING` covers without a proof.

    Arguments:
        module: states (B, *shape) -> logits (B, K); it is copied, in float64.
        shape: of one state.

    Raises:
        ValueError: something it does has no rule, or no finite bound.
    """

    method = "layer-wise, rounding of margins not proven"

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        self._reading = LayerReading(module, shape)
        table, value = self._reading.table, self._reading.value
        self._gain = float(table[1, 1])
        if not math.isfinite(self._gain):
            raise ValueError("; ".join(self._reading.notes) or "its slopes are not bounded")
        self._apart = min(math.sqrt(2) * (1 + 1e-15) * self._gain, 2.0 * float(table[1, 2]))
        self._rows, self._before = _last_rows(value)

    def prepare(self, decided: Iterable[int]) -> None:
        """Bound Lip(g_a - g_b) for every a of ``decided`` and all b at once."""
        if self._rows is not None:
            self._rows.prepare(decided)

    def of(self, a: int) -> np.ndarray:
        """float64 (K,): bounds of Lip(g_a - g_b) for all b; 0 for b = a."""
        bounds = np.full(self._reading.outputs, self._apart)
        if self._rows is not None:
            bounds = np.minimum(bounds, self._rows.of(a) * self._before * (1 + 4 * UNIT))
        bounds[a] = 0.0
        return bounds

    def logits(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits (B, K) of ``states`` (B, n) in float64, by how much rounding may have moved each, (B, K))."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = self._reading.values(states)
            size = np.abs(values).max(axis=1) + self._gain * np.linalg.norm(states, axis=1)
        return values, np.broadcast_to(ROUNDING * size[:, None], values.shape)


def _last_rows(value: Gain) -> tuple[MarginBounds | None, float]:
    """(distances between the rows of the last layer, the l2 bound of what it reads) where that layer is linear."""
    index = None
    if isinstance(value.linear, Selection) and value.of is not None and (value.linear.index >= 0).all():
        index, value = value.linear.index, value.of
    last = value.linear
    if not isinstance(last, Dense) or last.parts > 1 or value.of is None:
        return None, math.inf
    rows = last.matrix if index is None else last.matrix[index]
    errors = {(1, 0): last.error} if last.error else {}
    return MarginBounds(Network(rows.shape[1], (), {0: rows}, np.zeros(len(rows)), errors=errors)), float(
        value.of.table[1, 1]
    )
