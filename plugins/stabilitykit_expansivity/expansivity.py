"""The property ``expansivity``: Definition 1's constants, their witnesses, class pairs, N-curve, depths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stabilitykit import Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.base.results import to_plain
from stabilitykit.base.text import place_text
from stabilitykit.dynamics.digits import SUBTRACTION, digits_note
from stabilitykit.dynamics.trajectory import ALL_BLIND, Trajectory
from stabilitykit.evaluation.context import Context
from stabilitykit.search import ClosestPair, closest_pair, median_cross_distances
from stabilitykit.search.results import ClosestPairs
from stabilitykit_expansivity import curve as curves
from stabilitykit_expansivity import depth as profiles
from stabilitykit_expansivity import recompute
from stabilitykit_expansivity.constants import (
    PREFIX,
    REDUCTIONS,
    REFERENCES,
    Constant,
    constant,
    digits,
    refined,
    search,
)
from stabilitykit_expansivity.foretold import foretold
from stabilitykit_expansivity.groups import READINGS, Groups, choose_groups
from stabilitykit_expansivity.per_image import nearest_columns

# Pairs behind a median over a subsample: its error is far below the spread between subsamples.
SUBSET_PAIRS = 20_000
# A comparison measures at least about so many subsamples: the search that is faster each time repays its start.
SUBSETS = 10
NEARER = (
    f"Of pairs whose distances differ by less than {SUBTRACTION:.1g} the search, which subtracts probabilities, may "
    "have taken the farther one; the interval says by how much at most"
)
OVER_SAMPLE = "over the sample: an upper bound of the infimum over the whole space, falling with N"


class Expansivity(Property):
    """How near do the trajectories of images of different class come (Definition 1)?

    The T+1 l2 distances of a pair are reduced by max (Definition 1), min (Table 2) or mean (Figure 2), and
    the minimum over all pairs of different class is taken, exactly and in float64.
    """

    name = "expansivity"
    parallel = True

    def __init__(
        self,
        pairs: str = "labels",
        curve: int = 5,
        median_pairs: int = 200_000,
        table_rows: int = 5_000,
        show: int = 6,
        nearest: str = "auto",
        first_depth: int = 0,
        extrapolate: int = 0,
    ) -> None:
        """See the options of the component.

        Arguments:
            pairs: images differ by ``"labels"``, by final ``"predictions"``, or where their final readouts are
                ``"distinct"``.
            curve: points of the subsample curve.
            median_pairs: pairs behind each median distance; with fewer pairs the median is exact.
            table_rows: rows of ``class_pairs`` per reduction.
            show: closest class pairs (min) whose images are listed in ``result.images``.
            nearest: search for every image's nearest one of another class: ``"auto"``, ``"always"`` or ``"never"``.
            first_depth: depths before it are left out, like blind ones.
            extrapolate: a larger N that max and mean are foretold for; 0: none.
        """
        self.pairs = pairs
        self.curve = curve
        self.median_pairs = median_pairs
        self.table_rows = table_rows
        self.show = show
        self.nearest = nearest
        self.first_depth = first_depth
        self.extrapolate = extrapolate

    def evaluate(self, context: Context) -> PropertyResult:
        """Measure; CellProblem unless at least two classes have an image."""
        context = context.starting_at(self.first_depth)
        groups = choose_groups(context, self.pairs)
        trajectory = context.trajectory
        if not len(trajectory.seeing):
            return self._undefined(context, groups)
        matrices: dict[str, ClosestPairs] = {}
        if groups.by == "distinct":  # as many classes as images: there is no table of them
            whole = {r: closest_pair(trajectory.seen, groups.ids, r, searches=len(REDUCTIONS)) for r in REDUCTIONS}
        else:
            matrices = {r: search(trajectory, groups.ids, len(groups.names), r, context.world) for r in REDUCTIONS}
            whole = {r: matrix.overall() for r, matrix in matrices.items()}
        constants = {r: constant(trajectory, whole[r], r) for r in REDUCTIONS}
        profile = profiles.depths(trajectory, groups.ids, context.seed, self.median_pairs)
        points = curves.curve(trajectory.seen, groups.ids, whole, self.curve, context.seed, context.progress)
        points = curves.told(trajectory, points)

        result = PropertyResult([_measurement(context, trajectory, groups, c) for c in constants.values()])
        result.measurements += [_normalised(context, result, c, profile) for c in constants.values()]
        if self.extrapolate:
            result.measurements += foretold(context, groups.ids, whole, self.extrapolate)
        if matrices:
            result.tables["class_pairs"] = self._class_pairs(context, groups, matrices, result.notes)
        result.tables["depth"] = _depth_table(context, profile)
        if points:
            result.tables["curve"] = _curve_table(context, points)
            slopes = {r: curves.exponent(points, r) for r in REDUCTIONS}
            result.notes += [
                f"{r}: falls about as N^{a:.3f} over the subsample curve" for r, a in slopes.items() if a is not None
            ]
        _add_decisions(context, trajectory, result)
        result.per_image, notes = nearest_columns(context, groups.ids, self.nearest)
        result.notes += notes
        result.images = self._images(context, constants, matrices.get("min"))
        if trajectory.excluded:
            result.notes.append(trajectory.left_out(context.depth_names))
        return result

    def _undefined(self, context: Context, groups: Groups) -> PropertyResult:
        """No constant, with the reason; the tables of depths and decisions all the same."""
        trajectory = context.trajectory
        result = PropertyResult(
            [
                Measurement(
                    f"{PREFIX}{r}{more}",
                    None,
                    Kind.EXACT,
                    len(trajectory),
                    unit,
                    reference=REFERENCES[r],
                    note=ALL_BLIND,
                )
                for more, unit in (("", trajectory.unit), (".normalised", "ratio"))
                for r in REDUCTIONS
            ]
        )
        profile = profiles.depths(trajectory, groups.ids, context.seed, self.median_pairs)
        result.tables["depth"] = _depth_table(context, profile)
        _add_decisions(context, trajectory, result)
        result.notes.append(ALL_BLIND)
        return result

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """The three constants recomputed in float64 from model and data at their witnesses."""
        return recompute.constants(context, result, self.first_depth)

    def verify_sample(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Normalised values, accuracy, prediction depth, and every row of the tables; no pair is searched for."""
        context = context.starting_at(self.first_depth)
        return recompute.sample(context, result, choose_groups(context, self.pairs).ids, self.median_pairs)

    def per_image(self, context: Context) -> Mapping[str, np.ndarray]:
        """Correctness and prediction depth of every image."""
        context = context.starting_at(self.first_depth)
        chosen = profiles.decisions(context.trajectory)
        settled = profiles.prediction_depth(chosen, context.trajectory.seeing)
        found = {"prediction_depth.mean": settled.astype(np.float64)}
        if context.trajectory.num_classes == len(context.dataset.class_names):
            found["accuracy"] = (chosen[-1] == context.labels).astype(np.float64)
        return found

    def on_subset(self, context: Context, rows: np.ndarray) -> Mapping[str, float]:
        """The three constants over ``rows``, plain and normalised; nothing where these hold one class only."""
        context = context.starting_at(self.first_depth)
        groups = choose_groups(context, self.pairs).ids[rows]
        if len(np.unique(groups)) < 2 or not len(context.trajectory.seeing):
            return {}
        values = np.ascontiguousarray(context.trajectory.seen[:, rows])
        pairs = {r: closest_pair(values, groups, r, searches=SUBSETS) for r in REDUCTIONS}
        medians = [m.value for m in median_cross_distances(values, groups, context.seed, max_pairs=SUBSET_PAIRS)]
        scales = {r: profiles.scale(medians, r, pair.block) for r, pair in pairs.items()}
        found = {PREFIX + r: _told(context.trajectory, rows, pair, r) for r, pair in pairs.items()}
        normalised = {f"{PREFIX}{r}.normalised": found[PREFIX + r] / scales[r] for r in REDUCTIONS if scales[r] > 0}
        return found | normalised

    def _class_pairs(
        self, context: Context, groups: Groups, matrices: Mapping[str, ClosestPairs], notes: list[str]
    ) -> Table:
        """Long form of the K x K matrices, closest first; image a is of class a."""
        orders, sizes = context.dataset.order_in_class, groups.sizes
        names, seeing = context.depth_names, context.trajectory.seeing
        rows: list[list[Any]] = []
        for reduction, matrix in matrices.items():
            a, b = np.nonzero(np.triu(matrix.first >= 0, 1))
            values, depths = refined(
                context.trajectory, matrix.first[a, b], matrix.second[a, b], matrix.value[a, b], reduction
            )
            nearest = np.argsort(values, kind="stable")
            if len(nearest) > self.table_rows:
                notes.append(
                    f"class_pairs keeps the {self.table_rows} closest of {len(nearest)} class pairs "
                    f"({reduction}); raise table_rows for all"
                )
            for p in nearest[: self.table_rows]:
                first, second = int(matrix.first[a[p], b[p]]), int(matrix.second[a[p], b[p]])
                if groups.ids[first] != a[p]:
                    first, second = second, first
                i, j = int(context.indices[first]), int(context.indices[second])
                block = int(depths[p] if depths[p] >= 0 else seeing[matrix.block[a[p], b[p]]])
                row = [
                    groups.names[a[p]],
                    groups.names[b[p]],
                    reduction,
                    values[p],
                    i,
                    j,
                    orders[i],
                    orders[j],
                    block,
                    sizes[a[p]],
                    sizes[b[p]],
                    names[block],
                ]
                rows.append(to_plain(row))
        columns = [
            "class_a",
            "class_b",
            "reduction",
            "value",
            "index_a",
            "index_b",
            "order_a",
            "order_b",
            "block",
            "n_a",
            "n_b",
            "at",
        ]
        return Table(columns, rows, f"Closest pair of every two classes (by {groups.by})")

    def _images(self, context: Context, constants: Mapping[str, Constant], closest: ClosestPairs | None) -> list[int]:
        """Dataset indices worth showing: the witnesses, then the closest class pairs."""
        rows = [row for c in constants.values() for row in c.rows]
        if closest is not None:
            a, b = np.nonzero(np.triu(closest.first >= 0, 1))
            for p in np.argsort(closest.value[a, b], kind="stable")[: self.show]:
                rows += [int(closest.first[a[p], b[p]]), int(closest.second[a[p], b[p]])]
        return [int(context.indices[row]) for row in dict.fromkeys(rows)]


def _told(trajectory: Trajectory, rows: np.ndarray, pair: ClosestPair, reduction: str) -> float:
    """The reduced distance of a pair of ``rows`` as it is reported."""
    first, second = rows[[pair.first]], rows[[pair.second]]
    return float(refined(trajectory, first, second, np.array([pair.value]), reduction)[0][0])


def _measurement(context: Context, trajectory: Trajectory, groups: Groups, found: Constant) -> Measurement:
    witness: dict[str, Any] = context.describe_images(context.indices[list(found.rows)])
    if groups.by == "predictions":
        witness["predicted"] = [groups.names[int(groups.ids[row])] for row in found.rows]
    witness |= context.at(found.block) | {"distances": list(found.distances)}
    note = f"{READINGS[groups.by]}; {OVER_SAMPLE}"
    if trajectory.excluded:
        witness["left_out"] = list(trajectory.excluded)
        note += "; " + trajectory.left_out(context.depth_names)
    if found.kind is not Kind.EXACT:
        note += (
            "; searched in float32 copies (over 1 GiB), the witness recomputed in float64"
            if trajectory.rounded
            else f"; computed from logits. {NEARER}"
        )
    logits = np.ascontiguousarray(trajectory.logits[:, list(found.rows)])
    known = digits(logits, trajectory.space, found.reduction, trajectory.excluded, context.extraction.dtype)
    if flag := digits_note(known, context.extraction.dtype):
        witness["digits"], note = known, f"{note}; {flag}"
    return Measurement(
        PREFIX + found.reduction,
        found.value,
        found.kind,
        len(trajectory),
        trajectory.unit,
        witness,
        REFERENCES[found.reduction],
        found.interval,
        note=note,
    )


def _normalised(
    context: Context, result: PropertyResult, found: Constant, profile: list[profiles.Depth]
) -> Measurement:
    trajectory, names = context.trajectory, context.depth_names
    median = profiles.scale(
        [depth.median.value for depth in profile], found.reduction, found.block, trajectory.excluded
    )
    at = f"at depth {place_text(found.block, names[found.block])}"
    where = "averaged over depths" if found.reduction == "mean" else at
    exact = all(depth.median.exact for depth in profile) and found.kind is Kind.EXACT
    pairs = profile[0].median.pairs
    note = f"divided by the median cross-class distance {where}, {median:.6g}, of {pairs} pairs"
    if trajectory.excluded:
        note += "; " + trajectory.left_out(names)
    if flag := digits_note(result[PREFIX + found.reduction].witness.get("digits"), context.extraction.dtype):
        note += f"; {flag}"
    value = found.value / median if median > 0 else None
    witness = dict(result[PREFIX + found.reduction].witness) | {"median": median}
    return Measurement(
        f"{PREFIX}{found.reduction}.normalised",
        value,
        Kind.EXACT if exact else Kind.ESTIMATE,
        len(trajectory),
        "ratio",
        witness,
        REFERENCES[found.reduction],
        note=note if value is not None else note + ": undefined",
    )


def _depth_table(context: Context, profile: list[profiles.Depth]) -> Table:
    rows = []
    names, blind = context.depth_names, context.trajectory.blind
    for depth in profile:
        seen = context.describe_images(context.indices[[depth.closest.first, depth.closest.second]])
        rows.append(
            [
                depth.block,
                depth.closest.value,
                *seen["indices"],
                *seen["classes"],
                *seen["orders"],
                depth.median.value,
                depth.median.exact,
                len(context.trajectory),
                names[depth.block],
                depth.block in blind,
            ]
        )
    columns = [
        "block",
        "closest",
        "index_i",
        "index_j",
        "class_i",
        "class_j",
        "order_i",
        "order_j",
        "median",
        "median_exact",
        "N",
        "at",
        "blind",
    ]
    return Table(columns, rows, "Closest and median cross-class distance at each depth (0: before any block)")


def _curve_table(context: Context, points: list[curves.CurvePoint]) -> Table:
    rows: list[list[Any]] = []
    names, seeing = context.depth_names, context.trajectory.seeing
    for p in points:
        pair = [None, None] if p.rows is None else context.indices[list(p.rows)].tolist()
        block = None if p.block is None else int(seeing[p.block])
        rows.append([p.size, p.reduction, p.value, *pair, block, None if block is None else names[block]])
    return Table(
        ["N", "reduction", "value", "index_i", "index_j", "block", "at"],
        rows,
        f"Constants over nested random subsamples (seed {context.seed})",
    )


def _add_decisions(context: Context, trajectory: Trajectory, result: PropertyResult) -> None:
    """Accuracy of g after each block (if outputs are the dataset's classes), agreement, prediction depth."""
    chosen = profiles.decisions(trajectory)
    settled = profiles.prediction_depth(chosen, trajectory.seeing)
    count, names = len(trajectory), context.depth_names
    comparable = trajectory.num_classes == len(context.dataset.class_names)
    accuracy = (chosen == context.labels).mean(axis=1)
    rows = [
        to_plain(
            [
                t,
                accuracy[t] if comparable else None,
                (chosen[t] == chosen[-1]).mean(),
                (settled <= t).mean(),
                count,
                names[t],
                t in trajectory.blind,
            ]
        )
        for t in range(len(chosen))
    ]
    result.tables["accuracy"] = Table(
        ["block", "accuracy", "agrees_with_final", "decided", "N", "at", "blind"],
        rows,
        "Decisions of the readout after each block",
    )
    if comparable:
        result.measurements.append(
            Measurement(
                "accuracy",
                float(accuracy[-1]),
                Kind.EXACT,
                count,
                "share",
                reference="share of images whose final decision is their label",
            )
        )
    else:
        result.notes.append(
            f"no accuracy: the readout has {trajectory.num_classes} outputs, the dataset "
            f"{len(context.dataset.class_names)} classes"
        )
    result.measurements.append(
        Measurement(
            "prediction_depth.mean",
            float(settled.mean()),
            Kind.EXACT,
            count,
            "blocks",
            reference="Baldock, Maennel and Neyshabur 2021, with this readout",
            note="; ".join(
                filter(
                    None,
                    ["first depth from which the readout's decision stays the final one", trajectory.left_out(names)],
                )
            ),
        )
    )
