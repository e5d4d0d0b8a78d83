"""Columns per image: the nearest image of another class, and how near it comes."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabilitykit.evaluation.context import Context
from stabilitykit.search import nearest_of_other_groups
from stabilitykit_expansivity.constants import REDUCTIONS, refined

# Products of two numbers up to which the search is done unasked: minutes on one core.
WORK = 2e12


def nearest_columns(context: Context, groups: np.ndarray, mode: str) -> tuple[dict[str, Any], list[str]]:
    """``nearest_REDUCTION`` (dataset index) and ``nearest_REDUCTION_distance`` per image, exactly, and notes.

    Depths that are left out (blind ones, and those before the first) do not count.

    Arguments:
        groups: int64 (N,), the class of each image.
        mode: ``"auto"`` (not where it would take longer than the network itself), ``"always"`` or ``"never"``.
    """
    trajectory = context.trajectory
    seeing = trajectory.seeing
    if mode == "never" or not len(seeing):
        return {}, []
    values = trajectory.seen
    work = float(len(trajectory)) ** 2 * len(seeing) * trajectory.num_classes
    if mode == "auto" and work > WORK:
        return {}, [
            f"no nearest image of another class per image: {len(trajectory)} images with {trajectory.num_classes} "
            f"outputs at {len(seeing)} depths are {work:.1g} products, above {WORK:.0g}; nearest=always searches them"
        ]
    columns: dict[str, Any] = {}
    found = nearest_of_other_groups(values, groups, REDUCTIONS)
    for reduction in REDUCTIONS:
        rows, distance = found[reduction]
        distance, _ = refined(trajectory, np.arange(len(rows)), rows, distance, reduction)
        columns[f"nearest_{reduction}"] = context.indices[rows]
        columns[f"nearest_{reduction}_distance"] = distance
    return columns, []
