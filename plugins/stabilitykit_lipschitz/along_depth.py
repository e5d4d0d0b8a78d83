"""t -> Lip(g_t): what the bounds of the readouts of all depths are on average, and how much they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from stabilitykit import Kind, Measurement
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.interval import LipschitzInterval

REFERENCE = "Table 2, per readout"


class Bounded(Protocol):
    """The bound of one readout and the depths it serves."""

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths it serves, ascending."""

    @property
    def interval(self) -> LipschitzInterval:
        """Its Lipschitz constant lies there."""


def along_depth(context: Context, bounded: Sequence[Bounded], name: str, unit: str) -> list[Measurement]:
    """``NAME.mean`` and ``NAME.spread`` over depths 1..T where several readouts serve them; else nothing.

    The spread is the standard deviation over depths (not of a sample: divided by T).
    """
    if len(bounded) < 2:
        return []
    bounds = {t: b.interval for b in bounded for t in b.depths if t > 0}
    depths = sorted(bounds)
    upper = [bounds[t].upper for t in depths]
    lower = [bounds[t].lower for t in depths]
    n, names = len(context.indices), context.depth_names
    witness = {"depths": depths, "upper": upper, "realised": lower}
    low, high = (f(depths, key=lambda t: bounds[t].upper) for f in (min, max))
    told = (
        f"over depths {depths[0]} to {depths[-1]}: from {bounds[low].upper:.6g} at depth {low} ({names[low]}) "
        f"to {bounds[high].upper:.6g} at depth {high} ({names[high]})"
    )
    mean = Measurement(
        f"{name}.mean",
        _mean(upper),
        Kind.UPPER,
        n,
        unit,
        witness,
        REFERENCE,
        (_mean(lower), _mean(upper)),
        note=f"mean of the certified bounds of Lip(g_t), and so a bound of their mean, {told}",
    )
    note = f"standard deviation of the certified bounds of Lip(g_t), {told}"
    return [mean, Measurement(f"{name}.spread", _spread(upper), Kind.ESTIMATE, n, unit, witness, REFERENCE, note=note)]


def along_depth_again(measurement: Measurement) -> float:
    """``mean`` or ``spread`` from the bounds per depth that its witness lists; these are certified again one by one
    only where the whole property is measured again."""
    upper = [float(v) for v in measurement.witness["upper"]]
    return _spread(upper) if measurement.name.endswith(".spread") else _mean(upper)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
