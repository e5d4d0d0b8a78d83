"""The property ``entropy``: how fast does the number of distinguishable trajectories grow with depth and resolution?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.dynamics.trajectory import ALL_BLIND
from stabilitykit.evaluation.context import Context
from stabilitykit_separation.separated import SeparatedSets, orbit_distances, pair_sample

REFERENCE = "(n, eps)-separated sets: Bowen 1971, Dinaburg 1970"
# A witness lists at most so many images.
MOST_MEMBERS = 2_000
ALL = "all"


class TrajectoryEntropy(Property):
    """h_T(eps) = log s_T(eps) / T, where s_T(eps) is the size of a greedy (T, eps)-separated set of trajectories.

    Two images are (T, eps)-separated where d_T(x, y), the largest distance of their readouts over depth, is above eps.
    """

    name = "entropy"

    def __init__(
        self,
        quantiles: str = "0.01+0.02+0.05+0.1+0.2+0.3+0.5+0.7+0.9",
        at: float = 0.1,
        pairs: int = 200_000,
        first_depth: int = 0,
    ) -> None:
        """See the options of the component."""
        given = [float(q) for q in quantiles.replace("+", " ").split()]
        self.quantiles = sorted({*given, float(at)})
        self.at, self.pairs, self.first_depth = float(at), pairs, first_depth

    def evaluate(self, context: Context) -> PropertyResult:
        """``entropy`` and ``separated_set`` of all images at the headline's eps, ``entropy.within_class`` (the largest
        over classes), ``entropy.eps``; table ``curve``: per eps and class."""
        context = context.starting_at(self.first_depth)
        trajectory = context.trajectory
        if len(trajectory) < 2:
            raise CellProblem("entropy: needs at least two images to tell apart; raise --limit")
        if not trajectory.depth:
            raise CellProblem("entropy: needs at least one block (T >= 1)")
        if not len(trajectory.seeing):
            return _undefined(len(trajectory), trajectory.unit)
        eps = self.radii(trajectory.seen, context.seed)
        sets = SeparatedSets(trajectory.seen)
        groups = [(ALL, np.arange(len(trajectory)))]
        groups += [
            (str(name), rows)
            for label, name in enumerate(context.dataset.class_names)
            if len(rows := np.flatnonzero(context.labels == label))
        ]
        found = {(q, k): sets.greedy(eps[q], rows) for q in self.quantiles for k, (_, rows) in enumerate(groups)}
        blocks = trajectory.depth
        table = [
            [q, eps[q], name, len(rows), len(found[q, k]), _entropy(len(found[q, k]), blocks)]
            for k, (name, rows) in enumerate(groups)
            for q in self.quantiles
        ]
        widest = max(range(1, len(groups)), key=lambda k: (len(found[self.at, k]), -k))
        result = PropertyResult(
            self._headline(context, eps[self.at], found[self.at, 0], groups[widest], found[self.at, widest])
        )
        result.tables["curve"] = Table(
            ["quantile", "eps", "class", "N", "s_T", "h_T"],
            table,
            f"Greedy (T, eps)-separated sets, T = {blocks}, eps in {trajectory.unit}: lower bounds of the largest ones",
        )
        result.images = [int(i) for i in context.indices[found[self.at, 0][:12]]]
        if trajectory.excluded:
            result.notes.append(trajectory.left_out(context.depth_names))
        return result

    def radii(self, values: np.ndarray, seed: int) -> dict[float, float]:
        """quantile -> eps, of the distances d_T of pairs of values (depths, N, K)."""
        apart = orbit_distances(values, *pair_sample(values.shape[1], self.pairs, seed))
        return {q: float(np.quantile(apart, q)) for q in self.quantiles}

    def _headline(
        self, context: Context, eps: float, members: np.ndarray, widest: tuple[str, np.ndarray], inner: np.ndarray
    ) -> list[Measurement]:
        trajectory = context.trajectory
        n, blocks, unit = len(trajectory), trajectory.depth, trajectory.unit
        every = n * (n - 1) // 2
        drawn = "all" if every <= self.pairs else f"{self.pairs} drawn (seed {context.seed}) of {every}"
        rounded = trajectory.rounded
        lower = Kind.ESTIMATE if rounded else Kind.LOWER
        told = [
            f"eps = {eps:.6g} is the {self.at:g} quantile of d_T over {drawn} pairs, T = {blocks} blocks",
            "greedy in the order of the images: a lower bound of the largest (T, eps)-separated set, and no fewer "
            "than the largest (T, 2 eps)-separated one of the sample",
        ]
        if trajectory.excluded:
            told.append(trajectory.left_out(context.depth_names))
        if rounded:
            told.append("from float32 copies of the readouts (over 1 GiB)")
        note = "; ".join(told)

        def witness(chosen: np.ndarray, size: int, name: str) -> dict[str, Any]:
            about: dict[str, Any] = {"eps": eps, "T": blocks, "size": len(chosen), "class": name, "of": size}
            if trajectory.excluded:
                about["left_out"] = list(trajectory.excluded)
            if len(chosen) <= MOST_MEMBERS:
                about |= context.describe_images(context.indices[chosen])
            return about

        name, rows = widest
        whole = witness(members, n, ALL)
        kind = Kind.ESTIMATE if rounded or every > self.pairs else Kind.EXACT
        size = Measurement("separated_set", len(members), lower, n, "images", whole, REFERENCE, note=note)
        return [
            Measurement(
                "entropy", _entropy(len(members), blocks), lower, n, "nats per block", whole, REFERENCE, note=note
            ),
            size,
            Measurement(
                "entropy.within_class",
                _entropy(len(inner), blocks),
                lower,
                len(rows),
                "nats per block",
                witness(inner, len(rows), name),
                REFERENCE,
                note=f"largest over classes, of {name!r}; {note}",
            ),
            Measurement("entropy.eps", eps, kind, n, unit, {}, REFERENCE, note=note),
        ]

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """That the images of each witness are separated, from model and data; their number gives the value."""
        found: dict[str, float | str | None] = {}
        for m in result.measurements:
            witness = m.witness
            if m.value is None or not witness.get("indices"):
                found[m.name] = None
                continue
            values = context.readouts(context.rows_of(witness["indices"]))
            kept = [t for t in range(len(values)) if t not in witness.get("left_out", ())]
            members = len(witness["indices"])
            near = _nearest(values[kept]) if kept else 0.0
            if len(set(witness["indices"])) != members or witness["size"] != members:
                found[m.name] = f"its witness lists {members} images for a set of {witness['size']}"
            elif near <= witness["eps"] * (1 - context.rerun.tolerance[0]) - context.rerun.tolerance[1]:
                found[m.name] = f"two images of its set are {near!r} apart, and eps is {witness['eps']!r}"
            else:
                blocks = len(values) - 1
                found[m.name] = float(members) if m.name == "separated_set" else _entropy(members, blocks)
        return found

    def verify_sample(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """eps from all pairs in numpy."""
        context = context.starting_at(self.first_depth)
        names = {m.name: m for m in result.measurements}
        if "entropy.eps" not in names or names["entropy.eps"].value is None:
            return {}
        values = context.trajectory.seen
        first, second = pair_sample(len(context.trajectory), self.pairs, context.seed)
        apart = np.zeros(len(first))
        for points in values:
            gaps = points[first].astype(np.float64) - points[second].astype(np.float64)
            apart = np.maximum(apart, np.sqrt(np.square(gaps).sum(axis=1)))
        return {"entropy.eps": float(np.quantile(apart, self.at))}


def _entropy(size: int, blocks: int) -> float:
    return math.log(size) / blocks


def _nearest(values: np.ndarray) -> float:
    """The smallest d_T of two of the trajectories, (depths, n, K); infinity for one."""
    nearest = math.inf
    for i in range(1, values.shape[1]):
        apart = np.sqrt(np.square(values[:, :i] - values[:, i : i + 1]).sum(axis=2)).max(axis=0)
        nearest = min(nearest, float(apart.min()))
    return nearest


def _undefined(n: int, unit: str) -> PropertyResult:
    names = {"entropy": "nats per block", "separated_set": "images", "entropy.eps": unit}
    return PropertyResult(
        [Measurement(name, None, Kind.LOWER, n, unit, {}, REFERENCE, note=ALL_BLIND) for name, unit in names.items()],
        notes=[ALL_BLIND],
    )
