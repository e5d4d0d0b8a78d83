"""The measurement ``Sh_exact`` and the table ``exact``: s(eps)/eps over all sample pseudo-orbits, with its witness."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stabilitykit import Kind, Measurement, Table
from stabilitykit.evaluation.context import Context
from stabilitykit_shadowing.bracket import Bracket
from stabilitykit_shadowing.exact import NODES, ExactS, ExactShadowing, too_much
from stabilitykit_shadowing.exact_sets import DENSE
from stabilitykit_shadowing.measure import Shadowed
from stabilitykit_shadowing.orbits import PseudoOrbits, over_all_depths, path_jumps
from stabilitykit_shadowing.tracing import trace, tracing_distances

NAME = "Sh_exact"
# Shares of the family's orbits whose eps the curve is taken at: many for samples that take a fraction of a second.
QUANTILES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
FEW_QUANTILES = (0.1, 0.3)
# Nodes at one point of the curve; the headline may take NODES.
CURVE_NODES = 2_000


class ExactResult:
    """s(eps) at the headline's eps and at some others.

    Arguments:
        family: with the eps of data tracers.
        bounds: the bracket to start from.
        start_tracer: may the image an orbit starts from trace it.
    """

    def __init__(self, context: Context, family: Shadowed, bounds: Bracket, start_tracer: bool) -> None:
        self.context, self.family, self.bounds, self.start_tracer = context, family, bounds, start_tracer
        self.values = context.trajectory.values
        seen = context.trajectory.seen
        self.reason = too_much(seen)
        self.exact = None if self.reason else ExactShadowing(seen, start_tracer=start_tracer)

    def at(self, eps: float, nodes: int | None = None) -> ExactS:
        """s(eps), or the bracket where N is too large; ``nodes``: at most so many, default NODES.

        The path counts the depths that are not blind.
        """
        lower, upper = self.bounds.at(eps)
        orbit = int(self.bounds.upper.orbit[self.bounds.upper.piece(eps)])
        known = self.bounds.paths[orbit] if orbit >= 0 else None
        if self.exact is None:
            return ExactS(eps, lower, upper, known, 0, 0)
        return self.exact.at(eps, lower, known, NODES if nodes is None else nodes)

    def measurement(self, eps: float, sh: float | None, note: str) -> Measurement:
        """``Sh_exact`` at eps; where it is not proven, the lower end with the interval.

        Arguments:
            sh: the family's Sh_profile at the same eps.
            note: what else to say of the sample's numbers.
        """
        found = self.at(eps)
        rounded = self.context.trajectory.rounded
        kind = Kind.ESTIMATE if rounded else Kind.EXACT if found.proven else Kind.LOWER
        told = [f"s(eps)/eps at eps = {eps:.6g} over all pseudo-orbits through sample states, traced by sample images"]
        if not self.start_tracer:
            told.append("not by the orbit's first image")
        if self.exact is None:
            told.append(f"not decided: {self.reason}; the bracket stands")
        elif not found.proven:
            told.append(f"not decided within {NODES} nodes; what is left of the bracket stands")
        elif found.path is None:
            told.append("no pseudo-orbit escapes")
        else:
            told.append("no orbit with smaller jumps escapes (proven), and the witness does")
        if sh is not None and math.isfinite(sh) and 0 < found.upper < math.inf:
            least = "" if found.proven else "at least "
            told.append(f"the family's Sh_profile is {least}{sh / (found.upper / eps):.3g} times this")
        return Measurement(
            NAME,
            found.lower / eps,
            kind,
            len(self.context.trajectory),
            "ratio",
            {"eps": eps, "delta": found.upper, **self._witness(found.path)},
            "Definition 2",
            interval=None if found.proven else (found.lower / eps, found.upper / eps),
            note="; ".join(told) + note,
        )

    def table(self, unit: str) -> Table:
        """The exact curve beside bracket and family, at some eps that orbits of the family attain."""
        small = self.values.shape[1] <= DENSE
        shares = (QUANTILES if small else FEW_QUANTILES) if self.exact is not None else ()
        eps = self.family.eps[self.family.eps > 0]
        places = np.unique(np.quantile(eps, shares, method="lower")) if len(eps) and len(shares) else np.empty(0)
        rows = []
        for at in places.tolist():
            found, family = self.at(at, CURVE_NODES), self.family.profile(at)
            factor = family / found.upper if 0 < found.upper < math.inf and family < math.inf else None
            rows.append([at, found.lower, found.upper, "yes" if found.proven else "no", family, factor])
        return Table(
            ["eps", "s from", "s to", "proven", "family", "family / s"],
            rows,
            f"s(eps) over all sample pseudo-orbits, exact where proven, in {unit}",
        )

    def _witness(self, path: np.ndarray | None) -> Mapping[str, Any]:
        if path is None:
            return {}
        indices, trajectory = self.context.indices, self.context.trajectory
        path = over_all_depths(path[None], trajectory.seeing, len(self.values))[0]
        orbit = PseudoOrbits(path[:1], path_jumps(self.values, path[None]), path=path[None])
        tracer, eps = trace(self.values, orbit, start_tracer=self.start_tracer)
        about = self.context.describe_images(indices[path])
        apart = tracing_distances(self.values, orbit, 0, int(tracer[0])).tolist() if tracer[0] >= 0 else []
        record = {
            "start": int(indices[path[0]]),
            "indices": about["indices"],
            "tracer": int(indices[tracer[0]]),
            "eps": float(eps[0]),
            "delta": float(orbit.delta[0]),
            "jumps": orbit.jumps[0].tolist(),
            "distances": apart,
        }
        return {"delta_orbit": record, **about, "orbit": about["indices"], "distances": apart}
