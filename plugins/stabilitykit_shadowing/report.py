"""Witnesses and tables of the property ``shadowing``: plain data for people, reports and verification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stabilitykit import Measurement, PropertyResult, Table
from stabilitykit.evaluation.context import Context
from stabilitykit_shadowing.bracket import Bracket
from stabilitykit_shadowing.constants import Constant
from stabilitykit_shadowing.measure import Shadowed
from stabilitykit_shadowing.profile import Profile
from stabilitykit_shadowing.tracing import tracing_distances

BRACKET_ROWS = 100


class Witnesses:
    """Describes the orbits behind the constants.

    Arguments:
        refined: orbit -> (relative distance the tracer moved, its distances (T+1,)), where a refined tracer is better.
        tried: how many orbits were refined.
        among: which true orbits were tried, in words.
    """

    def __init__(
        self,
        context: Context,
        values: np.ndarray,
        shadowed: Shadowed,
        refined: Mapping[int, tuple[float, np.ndarray]] | None = None,
        tried: int = 0,
        among: str = "data tracers",
    ) -> None:
        self.context, self.values, self.shadowed = context, values, shadowed
        self.refined = dict(refined or {})
        self.tried, self.among = tried, among

    def describe_tracers(self) -> str:
        if not self.tried:
            return self.among
        return f"tracers refined for {self.tried} of {len(self.shadowed.eps)} orbits, {len(self.refined)} improved"

    def of(self, constant: Constant) -> dict[str, Any]:
        """Witness of a constant: ``eps``, ``delta``, the orbits that attain them, and the standard fields."""
        witness: dict[str, Any] = {
            "eps": constant.eps,
            "delta": constant.delta,
            "eps_orbit": self.orbit(constant.eps_orbit),
            "delta_orbit": self.orbit(constant.delta_orbit),
        }
        shown = witness["eps_orbit"]
        if shown:
            indices = shown.get("indices", [shown["start"]])
            witness |= self.context.describe_images(indices)
            witness |= {"orbit": indices, "distances": shown["distances"]}
        return witness

    def orbit(self, number: int) -> dict[str, Any] | None:
        """One orbit: ``start``, ``indices`` per depth (sample orbits), ``jumps``, ``tracer``, ``distances`` per depth,
        ``eps``, ``delta`` and, for a refined tracer, how far it ``moved`` from the image's h_0."""
        if number < 0:
            return None
        shadowed, indices = self.shadowed, self.context.indices
        tracer = int(shadowed.tracer[number])
        record: dict[str, Any] = {"start": int(indices[shadowed.orbits.start[number]])}
        if shadowed.orbits.path is not None:
            record["indices"] = [int(i) for i in indices[shadowed.orbits.path[number]]]
        record |= {
            "tracer": int(indices[tracer]),
            "eps": float(shadowed.eps[number]),
            "delta": float(shadowed.delta[number]),
            "jumps": shadowed.orbits.jumps[number].tolist(),
        }
        if number in self.refined:
            record["moved"], apart = self.refined[number]
        else:
            apart = tracing_distances(self.values, shadowed.orbits, number, tracer)
        return record | {"distances": [float(d) for d in apart]}

    def table(self, result: PropertyResult) -> Table:
        """Witness orbits depth by depth, one row per depth; the image is that of the start for off-sample orbits."""
        columns = [
            "constant",
            "role",
            "depth",
            "image",
            "class",
            "order",
            "jump into it",
            "tracer",
            "tracer class",
            "distance to tracer",
            "at",
            "blind",
        ]
        names, blind = self.context.depth_names, self.context.trajectory.blind
        rows: list[list[Any]] = []
        for measurement in _constants(result):
            for role in ("eps", "delta"):
                orbit = measurement.witness.get(f"{role}_orbit")
                if not orbit:
                    continue
                depths = len(orbit["distances"])
                on_sample = "indices" in orbit
                images = orbit["indices"] if on_sample else [orbit["start"]] * depths
                about = self.context.describe_images(images)
                tracer_class = self.context.describe_images([orbit["tracer"]])["classes"][0]
                for t in range(depths):
                    rows.append(
                        [
                            measurement.name,
                            role,
                            t,
                            images[t],
                            about["classes"][t],
                            about["orders"][t],
                            orbit["jumps"][t - 1] if t else None,
                            orbit["tracer"],
                            tracer_class,
                            orbit["distances"][t],
                            names[t],
                            t in blind,
                        ]
                    )
        return Table(columns, rows, "Witness orbits")

    def images(self, result: PropertyResult) -> list[int]:
        """Dataset indices of the images in the witness orbits, in order of appearance."""
        seen: dict[int, None] = {}
        for measurement in _constants(result):
            for role in ("eps_orbit", "delta_orbit"):
                orbit = measurement.witness.get(role) or {}
                for index in [
                    *orbit.get("indices", [orbit["start"]] if orbit else []),
                    *([orbit["tracer"]] if orbit else []),
                ]:
                    seen.setdefault(int(index))
        return list(seen)


def _constants(result: PropertyResult) -> list[Measurement]:
    return [m for m in result.measurements if m.name.startswith("Sh_")]


def profile_table(context: Context, shadowed: Shadowed, unit: str) -> Table:
    """The family's s(eps), one row per step; s holds from ``eps from`` (included) to ``eps to`` (excluded)."""
    profile, indices = shadowed.profile, context.indices
    rows: list[list[Any]] = []
    for k in range(len(profile.left)):
        low, s, orbit = float(profile.left[k]), float(profile.s[k]), int(profile.orbit[k])
        high = float(profile.left[k + 1]) if k + 1 < len(profile.left) else None
        start = int(indices[shadowed.orbits.start[orbit]]) if orbit >= 0 else None
        tracer = int(indices[shadowed.tracer[orbit]]) if orbit >= 0 else None
        rows.append([low, high, s, s / low if low > 0 else None, s / high if high else None, start, tracer])
    return Table(
        ["eps from", "eps to", "s", "s/eps at from", "s/eps at to", "orbit from image", "traced by"],
        rows,
        f"s(eps) = smallest delta of an orbit traced no better than eps, in {unit}",
    )


def bracket_table(bounds: Bracket, family: Profile, unit: str) -> Table:
    """lower <= s(eps) <= upper over all sample pseudo-orbits beside the family's s, at the steps of either curve."""
    grid = np.unique(np.concatenate([bounds.upper.left, family.left]))
    if len(grid) > BRACKET_ROWS:
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, BRACKET_ROWS).round().astype(int))]
    rows = [[float(eps), *bounds.at(eps), family(eps)] for eps in grid]
    return Table(["eps", "lower", "upper", "family"], rows, f"s(eps) over all sample pseudo-orbits, in {unit}")


def constants_table(constants: Mapping[str, Constant], unit: str) -> Table:
    """The three constants with the eps and delta they divide."""
    rows = [[name, c.value, c.eps, c.delta, c.note] for name, c in constants.items()]
    return Table(["constant", "value", "eps", "delta", "note"], rows, f"Sh = delta / eps, eps and delta in {unit}")
