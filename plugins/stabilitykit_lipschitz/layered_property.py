"""The property ``lipschitz`` by layer-wise bounds (option ``method=layerwise``): readouts that are no chain, too.

Heads of a course execute the transitions that are left, lenses a translator: each readout is run once on traced tensors
(`layerwise`), whatever it consists of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from stabilitykit import Kind, Measurement, PropertyResult, Table
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.layered import layerwise_interval
from stabilitykit_lipschitz.layerwise import LayerReading
from stabilitykit_lipschitz.readouts import readouts_of
from stabilitykit_lipschitz.whole_readout import several_parts, shared, whole_readout

REFERENCE = "Table 2; norms layer by layer"
COLUMNS = ["depth", "realised", "certified upper", "method", "at", "note"]


class _Found(NamedTuple):
    depths: tuple[int, ...]
    interval: LipschitzInterval | None
    reason: str


def layered_lipschitz(context: Context, p: int, q: int, units: tuple[str, str]) -> PropertyResult:
    """``lipschitz``, ``lipschitz.probabilities`` and ``lipschitz.realised``: the largest over depths 1..T, and the
    table of all readouts. Where some depth has no bound, ``lipschitz.certified`` is the largest of the others.

    Arguments:
        p, q: positions of the norms in `pairs.NORMS`.
        units: of logits and of probabilities.
    """
    found = [_bound(context, depths, p, q) for depths in _groups(context)]
    rows = {t: _row(context, t, each) for each in found for t in each.depths}
    result = PropertyResult([], {"readouts": Table(COLUMNS, [rows[t] for t in sorted(rows)], "Lip(g) per readout")})
    missing = [each for each in found if each.interval is None and each.depths[-1] > 0]
    later = [each for each in found if each.interval is not None and each.depths[-1] > 0]
    if missing:
        note = "; ".join(f"no bound at depths {list(each.depths)}: {each.reason}" for each in missing)
        result.notes.append(note)
        n = len(context.indices)
        for name, unit in zip(("lipschitz", "lipschitz.probabilities"), units, strict=True):
            result.measurements.append(Measurement(name, None, Kind.UPPER, n, unit, {}, REFERENCE, note=note))
    if later:
        result.measurements += _measured(context, later, units, "lipschitz.certified" if missing else "lipschitz")
    return result


def _groups(context: Context) -> list[tuple[int, ...]]:
    """Depths in groups of one readout each."""
    groups: list[tuple[int, ...]] = []
    for depths, head in readouts_of(context):
        groups += [depths] if head is not None else shared(context, depths)
    return groups


def _module(context: Context, depth: int) -> nn.Module:
    head = context.readout.head(depth)
    return whole_readout(context, depth) if head is None else head


def _bound(context: Context, depths: tuple[int, ...], p: int, q: int) -> _Found:
    if depths[0] in several_parts(context):
        return _Found(depths, None, "its state is several tensors")
    try:
        shape = tuple(context.model.shape_at(depths[0]))
        interval = layerwise_interval(_module(context, depths[0]), shape, None, p, q, None, context.seed)
    except ValueError as error:
        return _Found(depths, None, str(error).partition("; expected")[0])
    if math.isinf(interval.upper):
        return _Found(depths, None, "; ".join(interval.notes) or "its slopes are not bounded")
    return _Found(depths, interval, "")


def _row(context: Context, t: int, found: _Found) -> list[Any]:
    at, interval = context.depth_names[t], found.interval
    if interval is None:
        return [t, None, None, "no certified bound", at, found.reason]
    return [t, interval.lower, interval.upper, interval.method, at, "; ".join(interval.notes)]


def _measured(context: Context, found: list[_Found], units: tuple[str, str], name: str) -> list[Measurement]:
    intervals = [(each.depths[0], each.interval) for each in found if each.interval is not None]
    depth, top = max(intervals, key=lambda each: each[1].upper)
    where, low = max(intervals, key=lambda each: each[1].lower)
    assert low.witness_input is not None and low.witness_other is not None
    pair = [[float(v) for v in np.ravel(x)] for x in (low.witness_input, low.witness_other)]
    about = f"norms layer by layer, largest over depths 1 and later, at depth {depth} ({context.depth_names[depth]})"
    n, at = len(context.indices), {"depth": depth, "at": context.depth_names[depth]}
    realised = {"depth": where, "at": context.depth_names[where], "pair": pair}
    interval = (low.lower, top.upper)
    return [
        Measurement(name, top.upper, Kind.UPPER, n, units[0], at, REFERENCE, interval, note=about),
        Measurement(
            f"{name}.probabilities",
            0.5 * top.upper,
            Kind.UPPER,
            n,
            units[1],
            at,
            REFERENCE,
            note=f"half of it, as softmax is 1/2-Lipschitz in every norm; {about}",
        ),
        Measurement(
            f"{name}.realised",
            low.lower,
            Kind.LOWER,
            n,
            units[0],
            realised,
            REFERENCE,
            (low.lower, None),
            note="slope between the two states stored as witness, in float64, less what rounding may add",
        ),
    ]


def layered_again(context: Context, result: PropertyResult, p: int, q: int) -> Mapping[str, float | str | None]:
    """Bounds from the readout anew; the slope between the two stored states from torch's outputs."""

    @cache
    def reading(depth: int) -> LayerReading:
        return LayerReading(_module(context, depth), tuple(context.model.shape_at(depth)))

    again: dict[str, float | str | None] = {}
    for measurement in result.measurements:
        if measurement.value is None:
            continue
        depth = int(measurement.witness["depth"])
        if "pair" not in measurement.witness:
            upper = float(reading(depth).table[p, q])
            again[measurement.name] = 0.5 * upper if measurement.name.endswith(".probabilities") else upper
            continue
        x, y = (np.asarray(v, dtype=np.float64) for v in measurement.witness["pair"])
        at, there = reading(depth).values(np.stack([x, y]))
        slope = np.linalg.norm(at - there, pairs.NORMS[q]) / np.linalg.norm(x - y, pairs.NORMS[p])
        slack = 1e-6 * slope + 1e-300
        again[measurement.name] = measurement.value if abs(slope - measurement.value) <= slack else float(slope)
    return again
