"""The property ``certified_radius``: within which distance of a state its decision provably stays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult
from stabilitykit.dynamics.decisions import decisions_along_depth
from stabilitykit.dynamics.lowprecision import FORMATS
from stabilitykit.evaluation.context import Context
from stabilitykit.plugins.component import words_of
from stabilitykit_lipschitz.displacement import Displacement
from stabilitykit_lipschitz.local_radius import LocalRadius, local_radii
from stabilitykit_lipschitz.radii import Radii, measured_radii
from stabilitykit_lipschitz.radius_again import radius_again
from stabilitykit_lipschitz.radius_measurements import NAME, REFERENCE, UNIT, at_the_end, local_measurement
from stabilitykit_lipschitz.radius_tables import (
    alone_table,
    depth_table,
    local_table,
    order_statistic,
    precision_table,
    share_table,
)

NONE = "none"


class CertifiedRadius(Property):
    """Certified radii of decisions in state space, at every depth. Options as in the schema."""

    name = NAME

    def __init__(
        self,
        precision: str = "bf16+int8",
        at: float | None = None,
        samples: int | None = None,
        local: int = 0,
        local_by: str = "sdp",
        rows: int = 50,
        tol: float = 1e-4,
        seconds: float = 60.0,
    ) -> None:
        words = words_of(precision, (*FORMATS, NONE), f"{NAME}: precision")
        self.formats = [word for word in words if word != NONE]
        self.solved = local_by == "sdp"
        self.at, self.samples, self.local, self.rows, self.tol, self.seconds = at, samples, local, rows, tol, seconds

    def evaluate(self, context: Context) -> PropertyResult:
        """``certified_radius`` (median at depth T), ``.smallest``, ``.share`` (option ``at``), ``.share.FORMAT`` and
        ``.local``; tables ``depth``, ``shares``, ``images``, ``precision``, ``alone``, ``local``; column per image."""
        if context.model.replayed:
            return self._undefined(context, "recorded readouts hold no network; give the model itself")
        if context.trajectory.num_classes < 2:
            return self._undefined(context, "the readout has one output: there is no other decision")
        radii = Radii(decisions_along_depth(context.trajectory))
        notes: list[str] = []
        moved = self._displacements(context, notes)
        near: list[LocalRadius] = []
        for bounded in measured_radii(context, radii, self.seconds, self.tol):
            for found in moved:
                found.measure(bounded, radii)
            near += local_radii(context, bounded, radii, self.local, self.tol, self.solved)
        last = len(radii.decided) - 1
        if last not in radii.methods:
            result = self._undefined(context, f"depth {last}: {radii.reasons.get(last, 'no bound')}")
        else:
            result = at_the_end(context, radii, last, moved, self.at, self.rows)
        result.notes += notes
        result.tables["depth"] = depth_table(context, radii)
        if radii.depths:
            result.tables["shares"] = share_table(context, radii, [] if self.at is None else [self.at])
            if moved:
                result.tables["precision"] = precision_table(context, radii, moved)
                result.tables["alone"] = alone_table(context, radii, moved)
        if near:
            result.tables["local"] = local_table(context, sorted(near))
            result.measurements.append(local_measurement(context, sorted(near)))
        wrong = sum(found.contradictions for found in moved)
        if wrong:
            result.notes.append(
                f"{wrong} decisions changed within their radius: a bound is wrong, believe none of them"
            )
        return result

    def _displacements(self, context: Context, notes: list[str]) -> list[Displacement]:
        rows = np.arange(len(context.indices))
        wanted = context.sample_size(self.samples)
        if wanted < len(rows):
            rows = np.sort(np.random.default_rng([context.seed, 11]).choice(rows, wanted, replace=False))
        found = []
        for format in self.formats:
            try:
                found.append(Displacement(context, format, rows))
            except CellProblem as problem:
                notes.append(f"{format}: {problem}")
        return found

    def _undefined(self, context: Context, reason: str) -> PropertyResult:
        n = len(context.indices)
        return PropertyResult(
            [Measurement(NAME, None, Kind.LOWER, n, UNIT, {}, REFERENCE, note=f"undefined: {reason}")], notes=[reason]
        )

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Radii of the images that stand as witnesses, from model and data; shares rest on all images: left open."""
        found: dict[str, float | str | None] = {}
        for m in result.measurements:
            if m.name in (NAME, f"{NAME}.smallest") and m.value is not None:
                again = radius_again(context, m, self.seconds, self.tol)
                if again is not None:
                    found[m.name] = again
        return found

    def per_image(self, context: Context) -> Mapping[str, np.ndarray]:
        """Does each final decision survive a state error of ``at``."""
        if self.at is None or context.model.replayed or context.trajectory.num_classes < 2:
            return {}
        radii = Radii(decisions_along_depth(context.trajectory))
        for _ in measured_radii(context, radii, self.seconds, self.tol):
            pass
        last = len(radii.decided) - 1
        if last not in radii.methods:
            return {}
        return {f"{NAME}.share": (radii.radius[last] > self.at).astype(np.float64)}

    def verify_sample(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """The median and the smallest from the column of one radius per image."""
        column = result.per_image.get(NAME)
        if column is None:
            return {}
        values = np.array([np.inf if v is None else v for v in column], dtype=np.float64)
        return {NAME: order_statistic(values, 0.5), f"{NAME}.smallest": float(values.min())}
