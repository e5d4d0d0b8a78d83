"""Tables of the property ``certified_radius``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stabilitykit import Table
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.displacement import Displacement, Moves
from stabilitykit_lipschitz.local_radius import LocalRadius
from stabilitykit_lipschitz.radii import Radii

QUANTILES = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
# State errors of the curves, evenly apart by ratio.
GRID = 25


def order_statistic(values: np.ndarray, quantile: float) -> float:
    """The quantile of ``values``, float64 (n,), that is one of them: of two neighbours the lower."""
    return float(np.quantile(values, quantile, method="lower"))


def class_name(context: Context, number: int) -> str:
    """The class of an output, by name where the network's outputs are the dataset's classes."""
    names = context.dataset.class_names
    return str(names[number]) if context.trajectory.num_classes == len(names) else f"output {number}"


def depth_table(context: Context, radii: Radii) -> Table:
    """One row per depth: quantiles of the radii, the smallest with its image, the median in lengths of the state."""
    rows: list[list[Any]] = []
    blind = set(context.trajectory.blind)
    for t, name in enumerate(context.depth_names):
        if t not in radii.methods:
            empty = [None] * (len(QUANTILES) + 3)
            rows.append([t, name, t in blind, "no certified bound", *empty, radii.reasons.get(t, "")])
            continue
        values, first = radii.radius[t], int(radii.order(t)[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = values / radii.length[t]
        relative = np.where(np.isnan(relative), np.inf, relative)
        found = [order_statistic(values, q) for q in QUANTILES.values()]
        smallest = [float(values[first]), int(context.indices[first])]
        rows.append([t, name, t in blind, radii.methods[t], *smallest, *found, order_statistic(relative, 0.5), ""])
    columns = ["depth", "at", "blind", "method", "smallest", "image", *QUANTILES, "relative median", "note"]
    return Table(columns, rows, f"Certified radius of the decision at every depth, {len(context.indices)} images")


def grid_of(radii: Radii, more: Sequence[float]) -> list[float]:
    """State errors from the smallest to the largest positive radius of any depth, and those of ``more``."""
    values = radii.radius[radii.depths]
    values = values[np.isfinite(values) & (values > 0)]
    found = set(map(float, more))
    if len(values):
        low, high = order_statistic(values, 0.01), float(values.max())
        found |= {float(r) for r in np.geomspace(low, high, GRID)}
    return sorted(found)


def share_table(context: Context, radii: Radii, more: Sequence[float]) -> Table:
    """One row per depth and state error r: the share of decisions whose radius is larger."""
    names = context.depth_names
    rows = [[t, names[t], r, float((radii.radius[t] > r).mean())] for t in radii.depths for r in grid_of(radii, more)]
    return Table(
        ["depth", "at", "r", "share"], rows, "Share of decisions that provably survive a state error of r (l2)"
    )


def image_table(context: Context, radii: Radii, depth: int, count: int) -> Table:
    """The ``count`` images of smallest radius at ``depth``."""
    rows = []
    for row in map(int, radii.order(depth)[:count]):
        about = context.describe_images([int(context.indices[row])])
        rows.append(
            [
                about["indices"][0],
                about["classes"][0],
                class_name(context, int(radii.decided[depth, row])),
                class_name(context, int(radii.runner_up[depth, row])),
                float(radii.margin[depth, row]),
                float(radii.bound[depth, row]),
                float(radii.radius[depth, row]),
            ]
        )
    columns = ["index", "class", "decided", "runner_up", "margin", "lipschitz", "radius"]
    return Table(columns, rows, f"Images of the smallest certified radius at depth {depth}")


def precision_table(context: Context, radii: Radii, moved: Sequence[Displacement]) -> Table:
    """One row per format and depth: radii beside what the format moves, certified and changed decisions."""
    title = "Certified radii beside what number formats move the states (l2)"
    return _moves_table(context, radii, [(found, found.together) for found in moved], title)


def alone_table(context: Context, radii: Radii, moved: Sequence[Displacement]) -> Table:
    """The same where the block before that depth alone runs in the format (the stem at depth 0)."""
    title = "Certified radii beside what each block alone in a number format moves its state (l2)"
    return _moves_table(context, radii, [(found, found.alone) for found in moved], title)


def _moves_table(context: Context, radii: Radii, moves: Sequence[tuple[Displacement, Moves]], title: str) -> Table:
    rows = []
    for found, move in moves:
        for t in radii.depths:
            radius, away = radii.radius[t, found.rows], move.moved[t]
            with np.errstate(divide="ignore", invalid="ignore"):
                room = radius / away
            room = np.where(np.isnan(room), 0.0 if np.isinf(away).any() else np.inf, room)
            rows.append(
                [
                    found.format,
                    t,
                    context.depth_names[t],
                    len(found.rows),
                    order_statistic(radius, 0.5),
                    order_statistic(away, 0.5),
                    float(away.max()),
                    float(move.certified[t].mean()),
                    float(move.flipped[t].mean()),
                    order_statistic(room, 0.5),
                ]
            )
    columns = ["format", "depth", "at", "n", "median radius", "moved median", "moved max", "certified", "flipped"]
    return Table([*columns, "room"], rows, title)


def local_table(context: Context, found: Sequence[LocalRadius]) -> Table:
    """One row per depth and image: the radius from global constants (None: there are none) and that from local ones."""
    rows = [
        [each.depth, context.depth_names[each.depth], int(context.indices[each.row]), each.known, each.radius]
        for each in found
    ]
    title = "Certified radii from Lipschitz constants of a ball about the state"
    return Table(["depth", "at", "image", "global", "local"], rows, title)
