"""Columns per image: the nearest image of another class, and how near it comes."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabilitykit.evaluation.context import Context
from stabilitykit.search import nearest_of_other_groups
from stabilitykit.search.nearest.trajectories import LONG
from stabilitykit_expansivity.constants import REDUCTIONS, refined

# Processor seconds that the search may be expected to take where it is done unasked.
LIMIT = 60.0


def expected_seconds(images: int, depths: int, outputs: int, space: str) -> float:
    """Processor seconds that the three searches take about, as measured where few pairs are ruled out.

    For each pair of images and depth 30 to 60 ns for 10 outputs, 120 for 30, about half of that among probabilities;
    trajectories of long readouts are searched by matrix products: 36 ns for 100 outputs, 91 for 1,000.

    Arguments:
        space: of distances, "probabilities" or "logits".
    """
    nanoseconds = 29 + (0.1 if outputs >= LONG else 3) * outputs
    if space == "probabilities" and outputs < LONG:
        nanoseconds /= 2
    return float(images) ** 2 * depths * nanoseconds * 1e-9


def nearest_columns(context: Context, groups: np.ndarray, mode: str) -> tuple[dict[str, Any], list[str]]:
    """``nearest_REDUCTION`` (dataset index) and ``nearest_REDUCTION_distance`` per image, exactly, and notes.

    Depths that are left out (blind ones, and those before the first) do not count.

    Arguments:
        groups: int64 (N,), the class of each image.
        mode: ``"auto"`` (where it takes at most about a minute of processor time), ``"always"`` or ``"never"``.
    """
    trajectory = context.trajectory
    seeing = trajectory.seeing
    if mode == "never" or not len(seeing):
        return {}, []
    values = trajectory.seen
    seconds = expected_seconds(len(trajectory), len(seeing), trajectory.num_classes, trajectory.space)
    if mode == "auto" and seconds > LIMIT:
        return {}, [
            f"no nearest image of another class per image: {len(trajectory)} images with {trajectory.num_classes} "
            f"outputs at {len(seeing)} depths may take {seconds / 60:.1g} minutes of processor time, more than one; "
            "nearest=always searches them"
        ]
    columns: dict[str, Any] = {}
    found = nearest_of_other_groups(values, groups, REDUCTIONS)
    for reduction in REDUCTIONS:
        rows, distance = found[reduction]
        distance, _ = refined(trajectory, np.arange(len(rows)), rows, distance, reduction)
        columns[f"nearest_{reduction}"] = context.indices[rows]
        columns[f"nearest_{reduction}_distance"] = distance
    return columns, []
