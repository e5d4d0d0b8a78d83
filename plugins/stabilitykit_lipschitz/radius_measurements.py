"""Measurements of the property ``certified_radius``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stabilitykit import Kind, Measurement, PropertyResult
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.displacement import Displacement
from stabilitykit_lipschitz.local_radius import LocalRadius
from stabilitykit_lipschitz.radii import Radii
from stabilitykit_lipschitz.radius_tables import class_name, image_table, order_statistic

NAME = "certified_radius"
REFERENCE = "Lipschitz margin (Tsuzuku, Sato and Sugiyama 2018)"
UNIT = "l2 of the state"
PICTURES = 10


def at_the_end(
    context: Context, radii: Radii, last: int, moved: Sequence[Displacement], at: float | None, rows: int
) -> PropertyResult:
    """The network's own decisions, at depth ``last``: measurements, images, table ``images`` of ``rows``, column."""
    order = radii.order(last)
    n = len(context.indices)
    about = (
        "distance to the decision boundary, rounded down"
        if radii.linear(last)
        else f"margin over a certified bound of Lip(g_a - g_b) ({radii.methods[last]})"
    )
    found = [
        Measurement(
            name,
            float(radii.radius[last, row]),
            _kind(radii, last),
            n,
            UNIT,
            _witness(context, radii, last, row),
            REFERENCE,
            note=f"{which} over images at depth {last}; {about}",
        )
        for name, which, row in (
            (NAME, "median", int(order[(n - 1) // 2])),
            (f"{NAME}.smallest", "smallest", int(order[0])),
        )
    ]
    if at is not None:
        found.append(_share(radii, last, at))
    found += [_survives(context, radii, last, displacement) for displacement in moved]
    return PropertyResult(
        found,
        {"images": image_table(context, radii, last, rows)},
        [int(context.indices[row]) for row in order[:PICTURES]],
        per_image={NAME: radii.radius[last]},
    )


def _kind(radii: Radii, depth: int) -> Kind:
    return Kind.EXACT if radii.linear(depth) else Kind.LOWER


def _witness(context: Context, radii: Radii, depth: int, row: int) -> dict[str, Any]:
    decided, other = int(radii.decided[depth, row]), int(radii.runner_up[depth, row])
    return {
        **context.describe_images([int(context.indices[row])]),
        **context.at(depth),
        "decided": class_name(context, decided),
        "runner_up": class_name(context, other),
        "outputs": [decided, other],
        "margin": float(radii.margin[depth, row]),
        "lipschitz": float(radii.bound[depth, row]),
    }


def _share(radii: Radii, last: int, at: float) -> Measurement:
    survives = radii.radius[last] > at
    note = f"{int(survives.sum())} of {len(survives)} decisions at depth {last} survive any state error of {at:g}"
    return Measurement(
        f"{NAME}.share",
        float(survives.mean()),
        _kind(radii, last),
        len(survives),
        "share",
        {"r": at},
        REFERENCE,
        note=note,
    )


def _survives(context: Context, radii: Radii, last: int, found: Displacement) -> Measurement:
    """The share of final decisions that are certified against what a format moves."""
    room = np.nan_to_num(radii.radius[last, found.rows] - found.together.moved[last], nan=-np.inf)
    least = int(np.argmin(room))
    witness = _witness(context, radii, last, int(found.rows[least]))
    witness |= {
        "radius": float(radii.radius[last, found.rows[least]]),
        "moved": float(found.together.moved[last, least]),
        "flipped": bool(found.together.flipped[last, least]),
    }
    note = (
        f"decisions at depth {last} whose radius exceeds what {found.format} moves their state; "
        f"{int(found.together.flipped[last].sum())} of {len(found.rows)} really change (readout in float64); "
        "the witness has the least room"
    )
    return Measurement(
        f"{NAME}.share.{found.format}",
        float(found.together.certified[last].mean()),
        Kind.LOWER,
        len(found.rows),
        "share",
        witness,
        REFERENCE,
        note=note,
    )


def local_measurement(context: Context, found: Sequence[LocalRadius]) -> Measurement:
    """The median of the local radii at the last depth that has some."""
    last = found[-1].depth
    values = np.array([each.radius for each in found if each.depth == last])
    return Measurement(
        f"{NAME}.local",
        order_statistic(values, 0.5),
        Kind.LOWER,
        len(values),
        UNIT,
        context.at(last),
        REFERENCE,
        note=f"median over {len(values)} images at depth {last}, from Lip(g_a - g_b) on the ball of that radius",
    )
