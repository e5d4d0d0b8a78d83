"""How many digits of eps, delta and their quotients can be trusted; the smallest jump with the digits it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stabilitykit import Kind, Measurement
from stabilitykit.dynamics.digits import LIMIT, SUBTRACTION, digits_note, digits_of, distances_from_logits
from stabilitykit.dynamics.space import Space, to_space
from stabilitykit.evaluation.context import Context
from stabilitykit_shadowing.bracket_lower import LowerSide
from stabilitykit_shadowing.orbits import distances

JUMP = "smallest_jump"


def smallest_jump(context: Context, lower: LowerSide, cautions: str) -> Measurement:
    """The smallest distance of two images after some block.

    Found by subtracting probabilities; below LIMIT it is computed from the logits of the pair that was found, and
    another pair may be nearer: an upper bound of the smallest jump then, with an interval.

    Arguments:
        cautions: what else to say of the sample's numbers.
    """
    trajectory = context.trajectory
    number, *rows = lower.nearest
    block = int(trajectory.seeing[number])
    value, interval = lower.smallest, None
    kind = Kind.ESTIMATE if trajectory.rounded else Kind.LOWER
    told = "no pseudo-orbit through sample states but the true ones has a smaller delta (rounded down by 1e-12)"
    logits = np.ascontiguousarray(trajectory.logits[:, rows])
    if trajectory.space == "probabilities" and value < LIMIT and not trajectory.rounded:
        value = pair_distance(logits[block], trajectory.space)
        kind, interval = Kind.UPPER, (min(max(0.0, lower.smallest - SUBTRACTION), value), value)
        told = (
            "pseudo-orbits through sample states but the true ones have at least the delta of the lower end; computed "
            f"from logits: the search, which subtracts probabilities, tells pairs apart only beyond {SUBTRACTION:.1g}"
        )
    apart = distances(trajectory.values[:, rows[0]], trajectory.values[:, rows[1]])
    apart[block] = value if interval else apart[block]
    witness = context.describe_images(context.indices[rows]) | context.at(block) | {"distances": apart.tolist()}
    return Measurement(
        JUMP,
        value,
        kind,
        len(trajectory),
        trajectory.unit,
        witness,
        "Definition 2",
        interval=interval,
        note=told + cautions,
    )


def pair_distance(logits: np.ndarray, space: Space) -> float:
    """The distance of two readouts as :func:`smallest_jump` reports it, logits (2, K), float32 or float64."""
    first, second = to_space(logits, space)
    apart = float(distances(first, second))
    if space == "logits" or apart >= LIMIT:
        return apart
    return float(distances_from_logits(logits[0], logits[1], space))


def at_least(context: Context, delta: float) -> float:
    """A lower bound of a jump that subtracting probabilities gave, less what that may be off by where it matters."""
    lost = context.space == "probabilities" and delta < LIMIT
    return max(0.0, delta - SUBTRACTION) if lost else delta


def flagged(context: Context, measurements: list[Measurement]) -> list[Measurement]:
    """The measurements, those with fewer than four trustworthy digits with ``digits`` in the witness and a note.

    A quotient has the digits of the worse of its eps and delta. Nothing is said of orbits off the sample and of
    refined tracers.
    """
    dtype = context.extraction.dtype
    base = next((m.witness.get("eps_orbit") for m in measurements if m.name == "Sh_profile"), None)
    found = []
    for m in measurements:
        parts = {key: m.witness.get(key) for key in ("eps_orbit", "delta_orbit")}
        if m.name in ("Sh_exact", "Sh_all.lower", "Sh_all.upper"):
            parts["eps_orbit"] = base  # they are at the eps of Sh_profile
        known = [_of_pair(context, m.witness["block"], m.witness["indices"])] if m.name == JUMP else []
        known += [_of_orbit(context, part, key == "eps_orbit") for key, part in parts.items() if part]
        digits = min((count for count in known if count is not None), default=None)
        flag = digits_note(digits, dtype) if m.value is not None else ""
        if flag:
            m = replace(m, witness={**m.witness, "digits": digits}, note=f"{m.note}; {flag}")
        found.append(m)
    return found


def _of_orbit(context: Context, orbit: Mapping[str, Any], traced: bool) -> int | None:
    """Digits of the orbit's eps (``traced``) or delta, at the depth that attains it."""
    if "indices" not in orbit or (traced and ("moved" in orbit or not orbit["distances"])):
        return None
    images = orbit["indices"]
    if traced:
        depth = int(np.argmax(orbit["distances"]))
        return _of_pair(context, depth, [images[depth], orbit["tracer"]])
    depth = int(np.argmax(orbit["jumps"])) + 1
    return _of_pair(context, depth, images[depth - 1 : depth + 1])


def _of_pair(context: Context, depth: int, images: list[int]) -> int | None:
    trajectory = context.trajectory
    first, second = trajectory.logits[depth, context.rows_of(images)]
    rounding = 2.0**-23 if trajectory.rounded else 0.0
    return digits_of(first, second, trajectory.space, context.extraction.dtype, rounding)
