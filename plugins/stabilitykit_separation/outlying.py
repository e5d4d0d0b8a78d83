"""The property ``outlying``: images whose trajectory is nearer to another class than to any image of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.dynamics.trajectory import ALL_BLIND
from stabilitykit.evaluation.context import Context
from stabilitykit.search import best_tracers, nearest_of_other_groups

REFERENCE = "nearest neighbours under d_T, the largest distance over depth"
SHARE, FARTHEST = "outlying.share", "outlying.max"


@dataclass(frozen=True)
class Neighbours:
    """The nearest image of the own class and of another one, per image, under d_T.

    Attributes:
        own, other: int64 (N,), rows, -1 where there is none.
        own_distance, other_distance: float64 (N,), NaN where there is none.
    """

    own: np.ndarray
    own_distance: np.ndarray
    other: np.ndarray
    other_distance: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """float64 (N,): distance to the own class over that to another; NaN where either is missing or both are 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = self.own_distance / self.other_distance
        return found


def neighbours(values: np.ndarray, labels: np.ndarray) -> Neighbours:
    """Nearest images under the largest distance over depth, exactly; of equal ones the lowest index.

    Arguments:
        values: (depths, N, K) float32 or float64. labels: int64 (N,).
    """
    count = values.shape[1]
    own, own_distance = np.full(count, -1, dtype=np.int64), np.full(count, np.nan)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        # The best tracer of an image's own orbit, itself excepted, is its nearest neighbour under d_T.
        orbits = np.repeat(np.arange(len(rows))[:, None], len(values), axis=1)
        found, apart = best_tracers(np.ascontiguousarray(values[:, rows]), orbits)
        own[rows], own_distance[rows] = np.where(found >= 0, rows[found], -1), apart
    other, other_distance = nearest_of_other_groups(values, labels, ("max",))["max"]
    return Neighbours(own, own_distance, other, other_distance)


class Outlying(Property):
    """Distance of every image to the nearest of its own class against that to the nearest of another."""

    name = "outlying"

    def __init__(self, rows: int = 20, show: int = 3, first_depth: int = 0) -> None:
        """See the options of the component."""
        self.rows, self.show, self.first_depth = rows, show, first_depth

    def evaluate(self, context: Context) -> PropertyResult:
        """``outlying.share`` (nearer to another class), ``outlying.max`` (largest ratio); table ``outlying``; columns
        per image."""
        context = context.starting_at(self.first_depth)
        trajectory = context.trajectory
        if len(np.unique(context.labels)) < 2:
            raise CellProblem(
                f"outlying: compares distances to the own and to other classes, and all {len(trajectory)} evaluated "
                "images are of one class; raise --limit or choose a dataset with at least two classes"
            )
        if not len(trajectory.seeing):
            return _undefined(len(trajectory), ALL_BLIND)
        found = neighbours(trajectory.seen, context.labels)
        ratio = found.ratio
        order = np.argsort(-np.where(np.isnan(ratio), -1.0, ratio), kind="stable")
        order = order[~np.isnan(ratio[order])]
        if not len(order):
            return _undefined(len(trajectory), "no image has both another one of its class and a distance above 0")
        result = PropertyResult([_share(context, found, order), _farthest(context, found, int(order[0]))])
        result.tables["outlying"] = _table(context, found, order[: self.rows])
        shown = [row for i in order[: self.show] for row in (i, found.own[i], found.other[i])]
        result.images = [int(context.indices[row]) for row in dict.fromkeys(map(int, shown))]
        result.per_image = {
            "own_class_nearest": _indices(context, found.own),
            "own_class_distance": found.own_distance,
            "other_class_nearest": _indices(context, found.other),
            "other_class_distance": found.other_distance,
        }
        alone = int((found.own < 0).sum())
        if alone:
            result.notes.append(f"{alone} images are the only ones of their class and have no distance to it")
        if trajectory.excluded:
            result.notes.append(trajectory.left_out(context.depth_names))
        return result

    def per_image(self, context: Context) -> Mapping[str, np.ndarray]:
        """Is each image nearer to another class than to its own."""
        context = context.starting_at(self.first_depth)
        if len(np.unique(context.labels)) < 2 or not len(context.trajectory.seeing):
            return {}
        found = neighbours(context.trajectory.seen, context.labels)
        if (found.own < 0).any():
            return {}  # the share is over some images only
        return {SHARE: (found.own_distance > found.other_distance).astype(np.float64)}

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """The witness of the largest ratio, from model and data."""
        found: dict[str, float | str | None] = {}
        for m in result.measurements:
            if m.name != FARTHEST or m.value is None or not math.isfinite(m.value):
                found[m.name] = None
                continue
            own, other = _apart(context, m.witness)
            stored = (m.witness["own_distance"], m.witness["other_distance"])
            relative, absolute = context.rerun.tolerance
            if not np.allclose((own, other), stored, rtol=relative, atol=absolute):
                found[m.name] = f"its distances are {own!r} and {other!r}, not {stored[0]!r} and {stored[1]!r}"
            else:
                found[m.name] = own / other if other > 0 else None
        return found

    def verify_sample(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """The share from the columns of one number per image; these are measured again by ``verify`` of the run."""
        if "own_class_distance" not in result.per_image or SHARE not in {m.name for m in result.measurements}:
            return {}
        own, other = (np.array(result.per_image[f"{k}_class_distance"], dtype=np.float64) for k in ("own", "other"))
        known = np.isfinite(own)
        return {SHARE: float((own[known] > other[known]).mean())}


def _apart(context: Context, witness: Mapping[str, Any]) -> tuple[float, float]:
    """(d_T to the own class's image, d_T to the other's) of a witness of three images, from model and data."""
    rows = context.rows_of(witness["indices"])
    some, place = np.unique(rows, return_inverse=True)
    values = context.readouts(some)[:, place]
    kept = [t for t in range(len(values)) if t not in witness.get("left_out", ())]
    apart = np.sqrt(np.square(values[kept][:, 1:] - values[kept][:, :1]).sum(axis=2)).max(axis=0)
    return float(apart[0]), float(apart[1])


def _indices(context: Context, rows: np.ndarray) -> list[int | None]:
    return [int(context.indices[row]) if row >= 0 else None for row in rows]


def _witness(context: Context, found: Neighbours, row: int) -> dict[str, Any]:
    trajectory = context.trajectory
    about: dict[str, Any] = context.describe_images(context.indices[[row, found.own[row], found.other[row]]])
    about |= {"own_distance": float(found.own_distance[row]), "other_distance": float(found.other_distance[row])}
    return about | ({"left_out": list(trajectory.excluded)} if trajectory.excluded else {})


def _share(context: Context, found: Neighbours, order: np.ndarray) -> Measurement:
    trajectory = context.trajectory
    known = np.isfinite(found.own_distance)
    away = known & (found.own_distance > found.other_distance)
    kind = Kind.ESTIMATE if trajectory.rounded else Kind.EXACT
    note = f"{int(away.sum())} of {int(known.sum())} images; {REFERENCE}"
    if trajectory.excluded:
        note += "; " + trajectory.left_out(context.depth_names)
    witness = _witness(context, found, int(order[0]))
    return Measurement(SHARE, float(away[known].mean()), kind, int(known.sum()), "share", witness, REFERENCE, note=note)


def _farthest(context: Context, found: Neighbours, row: int) -> Measurement:
    trajectory = context.trajectory
    kind = Kind.ESTIMATE if trajectory.rounded else Kind.EXACT
    note = "distance to the nearest image of its own class over that to the nearest of another, largest over images"
    if trajectory.excluded:
        note += "; " + trajectory.left_out(context.depth_names)
    witness = _witness(context, found, row)
    return Measurement(FARTHEST, float(found.ratio[row]), kind, len(trajectory), "ratio", witness, REFERENCE, note=note)


def _table(context: Context, found: Neighbours, rows: np.ndarray) -> Table:
    names = context.dataset.class_names
    chosen = context.trajectory.predictions if context.trajectory.num_classes == len(names) else None
    listed = []
    for row in map(int, rows):
        about = context.describe_images(context.indices[[row, found.own[row], found.other[row]]])
        index, own, other = about["indices"]
        apart = [float(found.own_distance[row]), float(found.other_distance[row]), float(found.ratio[row])]
        taken = None if chosen is None else str(names[int(chosen[row])])
        listed.append([index, about["classes"][0], about["orders"][0], taken, own, other, about["classes"][2], *apart])
    columns = ["image", "class", "order", "taken for", "own nearest", "other nearest", "other class"]
    columns += ["own distance", "other distance", "ratio"]
    return Table(columns, listed, f"Images farthest from their own class, distances d_T in {context.trajectory.unit}")


def _undefined(n: int, reason: str) -> PropertyResult:
    return PropertyResult(
        [
            Measurement(name, None, Kind.EXACT, n, unit, {}, REFERENCE, note=reason)
            for name, unit in ((SHARE, "share"), (FARTHEST, "ratio"))
        ],
        notes=[reason],
    )
