"""T_g >= Sh_g / Lip(g) (Theorem 1): a quotient that carries the kinds of its ingredients."""

from __future__ import annotations

from collections.abc import Mapping

from stabilitykit import Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.base.results import divide_bounds
from stabilitykit.evaluation.context import Context
from stabilitykit_topological.earlier_results import find, lipschitz_of, result_of

# name of the quotient, measurement of `shadowing`, is Lip taken into the space of the distances
QUOTIENTS = (("T_g.profile", "Sh_profile", True), ("T_g.best", "Sh_best", True), ("T_g.paper", "Sh_paper", False))


def quotient(name: str, sh: Measurement | None, lip: Measurement | None, n: int, about: str = "") -> Measurement:
    """Sh / Lip as a measurement whose kind follows from the two kinds; value None with the reason if undefined."""
    kind, reason, value = Kind.ESTIMATE, "", None
    if sh is None or sh.value is None:
        reason = "undefined: Sh is undefined" + (f" ({sh.note})" if sh is not None and sh.note else "")
    elif lip is None or lip.value is None:
        reason = "undefined: Lip(g) is undefined" + (f" ({lip.note})" if lip is not None and lip.note else "")
    elif lip.value == 0:
        reason = "undefined: Lip(g) = 0, g is constant and Theorem 1 assumes it is not"
    else:
        kind = divide_bounds(sh.kind, lip.kind)
        value = sh.value / lip.value
    note = "; ".join(part for part in (about, reason or _direction(kind, sh, lip)) if part)
    witness = {"shadowing": _record(sh), "lipschitz": _record(lip)}
    # Sh is a ratio of two distances, so T_g has the inverse unit of Lip(g).
    unit = " per ".join(reversed(lip.unit.split(" per "))) if lip is not None and " per " in lip.unit else "ratio"
    return Measurement(name, value, kind, n, unit, witness, "Theorem 1; Table 2", note=note)


def _direction(kind: Kind, sh: Measurement | None, lip: Measurement | None) -> str:
    assert sh is not None and lip is not None
    if kind == Kind.LOWER:
        return "a lower bound: Sh is one and Lip(g) is an upper bound"
    if sh.kind == Kind.ESTIMATE and lip.kind in (Kind.UPPER, Kind.EXACT):
        return "a lower bound of T_g only as far as Sh is one; Sh is an estimate here"
    if lip.kind == Kind.LOWER:
        return "no lower bound of T_g: Lip(g) is only known from below, there is no certified upper bound"
    return f"Sh is {sh.kind}, Lip(g) is {lip.kind}"


def _record(measurement: Measurement | None) -> dict[str, object] | None:
    if measurement is None:
        return None
    return {"name": measurement.name, "value": measurement.value, "kind": str(measurement.kind)}


class Topological(Property):
    """Theorem 1 on the results of ``shadowing`` and ``lipschitz``; computes nothing else."""

    name = "topological"
    needs = ("shadowing", "lipschitz")

    def evaluate(self, context: Context) -> PropertyResult:
        """``T_g.profile``, ``T_g.best`` (Sh over Lip into the space of the distances) and ``T_g.paper`` (Sh_paper /
        Lip(g), as Table 2 divides)."""
        shadowing = result_of(context, "shadowing", self.name)
        lipschitz = result_of(context, "lipschitz", self.name)
        measurements, rows = [], []
        for name, sh_name, matched in QUOTIENTS:
            sh = find(shadowing, sh_name)
            lip = lipschitz_of(lipschitz, context.space if matched else "logits")
            about = f"{sh_name} / Lip of g into {context.space}" if matched else "Sh_paper / Lip(g) of the logits"
            made = quotient(name, sh, lip, len(context.indices), about)
            measurements.append(made)
            rows.append(
                [
                    name,
                    made.value,
                    str(made.kind),
                    sh and sh.value,
                    sh and str(sh.kind),
                    lip and lip.value,
                    lip and str(lip.kind),
                    made.note,
                ]
            )
        columns = ["constant", "value", "kind", "Sh", "Sh kind", "Lip", "Lip kind", "note"]
        return PropertyResult(measurements, {"quotients": Table(columns, rows, "T_g >= Sh / Lip(g)")})

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | None]:
        """The quotients of the needed results again."""
        return {m.name: m.value for m in self.evaluate(context).measurements}
