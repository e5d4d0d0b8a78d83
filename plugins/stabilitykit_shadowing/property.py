"""The property ``shadowing``: g-shadowing constants with their witnesses (Definition 2, Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult
from stabilitykit.base.text import place_text
from stabilitykit.dynamics.trajectory import ALL_BLIND
from stabilitykit.evaluation.context import Context
from stabilitykit_shadowing.bracket import lower_bounds
from stabilitykit_shadowing.chain_result import PREFIX as CHAIN
from stabilitykit_shadowing.chain_result import chain_again, chain_measurements
from stabilitykit_shadowing.classes import of_another_class, one_class
from stabilitykit_shadowing.digits import JUMP, at_least, flagged, pair_distance, smallest_jump
from stabilitykit_shadowing.exact_result import NAME as EXACT
from stabilitykit_shadowing.exact_result import ExactResult
from stabilitykit_shadowing.measure import Shadowed, bracket_of, shadow
from stabilitykit_shadowing.orbits import PseudoOrbits, nearest_orbits, over_all_depths, path_jumps
from stabilitykit_shadowing.report import Witnesses, bracket_table, constants_table, profile_table
from stabilitykit_shadowing.tracing import tracing_distances

# Two orders of summation differ by less than this, relatively.
ROUNDING = 1e-9
NEED_TWO = "needs at least two images to step between; raise --limit"


class Shadowing(Property):
    """Measure the shadowing of one family of pseudo-orbits; options as in the plugin's schema."""

    name = "shadowing"

    def __init__(
        self,
        family: str = "nearest",
        same_class: bool = False,
        unvisited: bool = False,
        format: str = "bf16",
        noise_scale: float = 0.01,
        tracers: str = "data",
        start_tracer: bool = True,
        refine_orbits: int = 256,
        refine_steps: int = 30,
        bracket: bool = True,
        exact: bool = True,
        chains: bool = False,
    ) -> None:
        self.family = family
        self.same_class, self.unvisited = same_class, unvisited
        self.format, self.noise_scale = format, noise_scale
        self.tracers, self.start_tracer = tracers, start_tracer
        self.refine_orbits, self.refine_steps = refine_orbits, refine_steps
        self.bracket, self.exact = bracket, exact
        self.chains = chains

    def evaluate(self, context: Context) -> PropertyResult:
        """Measurements ``Sh_profile``, ``Sh_paper``, ``Sh_best`` (estimates), ``Sh_all.lower`` and ``.upper`` (bounds
        of s(eps)/eps at Sh_profile's eps over all sample pseudo-orbits), ``Sh_exact`` (it, exactly), ``eps.*``,
        ``delta.*``, with ``chains`` ``Sh_chain.*``; tables ``profile``, ``bracket``, ``constants``, ``orbits``,
        ``exact``."""
        trajectory = context.trajectory
        values = trajectory.values
        if values.shape[1] < 2:
            raise CellProblem(f"shadowing {NEED_TWO}")
        if values.shape[0] < 2:
            raise CellProblem("shadowing needs at least one block (T >= 1)")
        if context.model.replayed and (self.family != "nearest" or self.tracers == "refined"):
            raise CellProblem(
                "recorded readouts hold no network to run: use family=nearest and tracers=data, or give "
                "the model itself"
            )
        if len(trajectory.seeing) < 2:
            only = ", ".join(place_text(t, context.depth_names[t]) for t in trajectory.seeing)
            reason = f"all readouts coincide at every depth but {only}, so no orbit steps" if only else ALL_BLIND
            return _undefined(len(trajectory), reason, "")
        orbits = self.orbits(context, values)
        if not len(orbits):
            kin = " of its class" if self.same_class else ""
            new = " that it has not visited" if self.unvisited else ""
            return _undefined(len(trajectory), f"no orbit finds another image{kin}{new} to step to at every depth")
        shadowed = data = shadow(values, orbits, start_tracer=self.start_tracer)
        if not len(shadowed.eps):
            return _undefined(len(trajectory), "no pseudo-orbit of the family has a tracer among the images")
        witnesses = Witnesses(context, values, shadowed)
        if self.tracers == "same_class":
            shadowed = shadow(values, orbits, start_tracer=self.start_tracer, groups=context.labels)
            if not len(shadowed.eps):
                return _undefined(len(trajectory), "no pseudo-orbit of the family has a tracer of its first class")
            witnesses = Witnesses(context, values, shadowed, among="data tracers of the orbit's first class")
        if self.tracers == "refined":
            shadowed, witnesses = self._refined(context, values, shadowed)
        result = self._constants(context, values, shadowed, witnesses)
        if self.bracket:
            self._add_bracket(context, values, data, result)
        result.measurements.append(of_another_class(context, data, _cautions(context)))
        result.measurements = flagged(context, result.measurements)
        if self.chains:
            result.measurements += chain_measurements(context, _cautions(context))
        result.tables["orbits"] = witnesses.table(result)
        result.images = witnesses.images(result)
        result.per_image = _per_image(len(trajectory), shadowed)
        missing = len(trajectory) - len(orbits)
        if missing:
            result.notes.append(f"{missing} of {len(trajectory)} images found no image to step to and start no orbit")
        if trajectory.blind:
            result.notes.append(trajectory.left_out(context.depth_names))
        return result

    def orbits(self, context: Context, values: np.ndarray, rows: np.ndarray | None = None) -> PseudoOrbits:
        """The family's pseudo-orbits, from all images or (state families only) from ``rows``."""
        if self.family == "nearest":
            trajectory = context.trajectory
            found = nearest_orbits(
                trajectory.seen, labels=context.labels, same_class=self.same_class, unvisited=self.unvisited
            )
            if not trajectory.blind:
                return found
            assert found.path is not None
            path = over_all_depths(found.path, trajectory.seeing, len(values))
            return PseudoOrbits(found.start, path_jumps(values, path), path=path)
        from stabilitykit_shadowing.states import NoiseFamily, PrecisionFamily, state_orbits

        if self.family == "precision":
            return state_orbits(PrecisionFamily(context, self.format), rows)
        return state_orbits(NoiseFamily(context, self.noise_scale), rows)

    def _refined(self, context: Context, values: np.ndarray, shadowed: Shadowed) -> tuple[Shadowed, Witnesses]:
        from stabilitykit_shadowing.refine import refine

        chosen = _orbits_that_matter(shadowed, self.refine_orbits)
        targets = np.asarray(shadowed.orbits.targets(values, chosen), dtype=np.float64)
        found = refine(context, shadowed.tracer[chosen], shadowed.eps[chosen], targets, self.refine_steps)
        eps = shadowed.eps.copy()
        eps[chosen] = found.eps
        refined = replace(shadowed, eps=eps)
        better = np.flatnonzero(found.moved > 0)
        extra = {int(chosen[b]): (float(found.moved[b]), found.distances[b]) for b in better}
        return refined, Witnesses(context, values, refined, extra, len(chosen))

    def _constants(
        self, context: Context, values: np.ndarray, shadowed: Shadowed, witnesses: Witnesses
    ) -> PropertyResult:
        trajectory = context.trajectory
        n, unit = len(trajectory), trajectory.unit
        constants = shadowed.constants()
        about = f"family {self.describe_family()}, {witnesses.describe_tracers()}" + _cautions(context)
        measurements = []
        for name, constant in constants.items():
            note = "; ".join(filter(None, [about, constant.note]))
            witness = witnesses.of(constant)
            measurements.append(
                Measurement(
                    name, constant.value, Kind.ESTIMATE, n, "ratio", witness, "Definition 2; Table 2", note=note
                )
            )
        exact = Kind.ESTIMATE if trajectory.rounded else Kind.EXACT
        traced = exact if self.tracers != "refined" or trajectory.rounded else Kind.UPPER
        for name, numbers, kind in (("eps", shadowed.eps, traced), ("delta", shadowed.delta, exact)):
            for suffix, orbit in (("min", int(numbers.argmin())), ("max", int(numbers.argmax()))):
                measurements.append(
                    Measurement(
                        f"{name}.{suffix}",
                        float(numbers[orbit]),
                        kind,
                        n,
                        unit,
                        {f"{name}_orbit": witnesses.orbit(orbit)},
                        "Definition 2",
                        note=about,
                    )
                )
        tables = {"profile": profile_table(context, shadowed, unit), "constants": constants_table(constants, unit)}
        return PropertyResult(
            measurements,
            tables,
            notes=[
                "Sh on a finite sample is an estimate: more pseudo-orbits can only lower s, more tracers "
                "only lower eps."
            ],
        )

    def _add_bracket(self, context: Context, values: np.ndarray, data: Shadowed, result: PropertyResult) -> None:
        """Bounds over all sample pseudo-orbits and data tracers, at the eps of Sh_profile."""
        trajectory = context.trajectory
        bounds = bracket_of(
            trajectory.seen,
            data,
            start_tracer=self.start_tracer,
            labels=context.labels,
            seeing=trajectory.seeing if trajectory.blind else None,
        )
        result.tables["bracket"] = bracket_table(bounds, data.profile, trajectory.unit)
        below, above = (Kind.ESTIMATE,) * 2 if trajectory.rounded else (Kind.LOWER, Kind.UPPER)
        result.measurements.append(smallest_jump(context, bounds.lower, _cautions(context)))
        eps = result["Sh_profile"].witness.get("eps")
        if not eps:
            return
        lower, upper = bounds.at(eps)
        about = (
            f"s(eps)/eps at eps = {eps:.6g} over all pseudo-orbits through sample states, traced by sample images"
            + _cautions(context)
        )
        piece = bounds.upper.orbit[bounds.upper.piece(eps)]
        witness: dict[str, Any] = {"eps": eps, "delta": upper}
        if piece >= 0:
            path = over_all_depths(bounds.paths[[piece]], trajectory.seeing, len(values))[0]
            about_images = context.describe_images(context.indices[path])
            witness |= about_images | {"orbit": about_images["indices"]}
        result.measurements += [
            Measurement(
                "Sh_all.lower",
                at_least(context, lower) / eps,
                below,
                len(trajectory),
                "ratio",
                {"eps": eps, "delta": at_least(context, lower)},
                "Definition 2",
                note=about,
            ),
            Measurement(
                "Sh_all.upper", upper / eps, above, len(trajectory), "ratio", witness, "Definition 2", note=about
            ),
        ]
        if self.exact:
            exact = ExactResult(context, data, bounds, self.start_tracer)
            # Sh_profile of fewer tracers is another system's: there is no factor between the two.
            family = None if self.tracers == "same_class" else result["Sh_profile"].value
            found = exact.measurement(eps, family, _cautions(context))
            result.measurements.append(found)
            result.tables["exact"] = exact.table(trajectory.unit)

    def describe_family(self) -> str:
        """The family with the options that matter to it."""
        if self.family == "nearest":
            kinds = [word for word, on in (("same class", self.same_class), ("unvisited", self.unvisited)) if on]
            return "nearest" + (f" ({', '.join(kinds)})" if kinds else "")
        return f"precision ({self.format})" if self.family == "precision" else f"noise ({self.noise_scale:g})"

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Each constant from its witness orbits, run again; None where a refined tracer was used."""
        found: dict[str, float | str | None] = {}
        for measurement in result.measurements:
            witness = measurement.witness
            if measurement.name == "Sh_all.upper" and witness.get("orbit"):
                # That the orbit escapes every eps-tracer needs the whole search; its delta needs the orbit alone.
                found[measurement.name] = self._delta_again(context, witness["orbit"]) / witness["eps"]
                continue
            if measurement.name == JUMP and "block" in witness:
                logits = context.logits(context.rows_of(witness["indices"]))
                found[measurement.name] = pair_distance(logits[witness["block"]], context.space)
                continue
            if measurement.name == EXACT:
                found[measurement.name] = self._exact_again(context, measurement)
                continue
            if measurement.name.startswith(CHAIN):
                found[measurement.name] = chain_again(context, measurement)
                continue
            eps_orbit, delta_orbit = witness.get("eps_orbit"), witness.get("delta_orbit")
            eps = delta = 1.0
            if eps_orbit and self.tracers == "same_class" and not one_class(context, eps_orbit):
                found[measurement.name] = "its tracer is of another class than the image the orbit starts from"
                continue
            if eps_orbit:
                if "moved" in eps_orbit:
                    found[measurement.name] = None
                    continue
                eps = self._again(context, eps_orbit)[0]
            if delta_orbit:
                delta = self._again(context, delta_orbit)[1]
            if measurement.name in ("eps.min", "eps.max"):
                found[measurement.name] = eps
            elif measurement.name in ("delta.min", "delta.max"):
                found[measurement.name] = delta
            elif eps_orbit and delta_orbit:
                found[measurement.name] = delta / eps if eps > 0 else None
        return found

    def verify_sample(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """The bounds from below, which no orbit witnesses, from all images."""
        names = {m.name: m for m in result.measurements}
        if JUMP not in names:
            return {}
        lower = lower_bounds(context.trajectory.seen, start_tracer=self.start_tracer)
        found: dict[str, float | str | None] = {JUMP: smallest_jump(context, lower, "").value}
        if "Sh_all.lower" in names:
            eps = names["Sh_all.lower"].witness["eps"]
            if eps != names["Sh_profile"].witness.get("eps"):
                found["Sh_all.lower"] = f"its eps {eps!r} is not that of Sh_profile"
            else:
                found["Sh_all.lower"] = at_least(context, lower(eps)) / eps
        if EXACT in names and names[EXACT].value is not None and self.verify(context, result).get(EXACT) is None:
            found[EXACT] = self.evaluate(context)[EXACT].value
        return found

    def _exact_again(self, context: Context, measurement: Measurement) -> float | str | None:
        """Sh_exact from its orbit: that it is one with this delta whose best tracer is farther than eps away. That no
        other orbit does better needs the whole search."""
        witness = measurement.witness
        orbit = witness.get("delta_orbit")
        if measurement.value is None or not orbit:
            return None
        eps, delta = self._again(context, orbit)
        if not eps > witness["eps"] * (1 - ROUNDING):
            return f"its orbit is traced within {eps!r}, which is not more than eps = {witness['eps']!r}"
        if measurement.interval is None:
            return delta / witness["eps"]
        upper = measurement.interval[1]
        if upper is None or abs(upper - delta / witness["eps"]) > ROUNDING * upper:
            return f"its upper end is {upper!r}, and its orbit gives {delta / witness['eps']!r}"
        return None

    def _delta_again(self, context: Context, indices: Sequence[int]) -> float:
        rows = context.rows_of(indices)
        some = np.unique(rows)
        return float(path_jumps(context.readouts(some), np.searchsorted(some, rows)[None]).max())

    def _again(self, context: Context, orbit: Mapping[str, Any]) -> tuple[float, float]:
        """(tracing error, largest jump) of a witness orbit, from model and data."""
        tracer = context.rows_of([orbit["tracer"]])
        if "indices" in orbit:
            rows = context.rows_of(orbit["indices"])
            some = np.unique(np.concatenate([rows, tracer]))
            local = np.searchsorted(some, rows)
            values = context.readouts(some)
            path = PseudoOrbits(local[:1], path_jumps(values, local[None]), path=local[None])
            apart = tracing_distances(values, path, 0, int(np.searchsorted(some, tracer[0])))
            return float(apart.max()), float(path.delta[0])
        start = context.rows_of([orbit["start"]])
        again = self.orbits(context, np.empty(0), start)
        apart = tracing_distances(context.readouts(tracer), again, 0, 0)
        return float(apart.max()), float(again.delta[0])


def _per_image(count: int, shadowed: Shadowed) -> dict[str, Any]:
    """Of the pseudo-orbit that starts from each of ``count`` images: eps of its best tracer, and its largest jump."""
    columns = {"tracing_error": shadowed.eps, "largest_jump": shadowed.delta}
    found: dict[str, Any] = {}
    for name, numbers in columns.items():
        column = np.full(count, np.nan)
        column[shadowed.orbits.start] = numbers
        found[name] = column.tolist()
    return found


def _cautions(context: Context) -> str:
    """Words for notes where distances are not those of float64 values, and where depths are blind."""
    trajectory = context.trajectory
    copies = "; from float32 copies of the readouts (over 1 GiB), off by up to 1.2e-7" if trajectory.rounded else ""
    return copies + (f"; {trajectory.left_out(context.depth_names)}" if trajectory.blind else "")


def _undefined(n: int, reason: str, advice: str = ": give more images") -> PropertyResult:
    return PropertyResult(
        [
            Measurement(name, None, Kind.ESTIMATE, n, "ratio", reference="Definition 2", note=f"{reason}{advice}")
            for name in ("Sh_profile", "Sh_paper", "Sh_best")
        ]
    )


def _orbits_that_matter(shadowed: Shadowed, count: int) -> np.ndarray:
    """Orbits to refine: those with the smallest delta (they decide s) and those with the smallest eps, in turn."""
    total = len(shadowed.eps)
    if count == 0 or count >= total:
        return np.arange(total)
    by_delta = np.argsort(shadowed.delta, kind="stable")
    by_eps = np.argsort(shadowed.eps, kind="stable")
    mixed = np.stack([by_delta, by_eps], axis=1).ravel()
    _, first = np.unique(mixed, return_index=True)
    return np.sort(mixed[np.sort(first)][:count])
