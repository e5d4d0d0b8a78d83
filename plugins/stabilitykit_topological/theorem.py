"""T_g >= Sh_g / max Lip(g_t), t >= 1 (Theorem 1): a quotient that carries the kinds of its ingredients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from stabilitykit import Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.base.results import divide_bounds
from stabilitykit.base.text import place_text
from stabilitykit.evaluation.context import Context
from stabilitykit_topological.earlier_results import find, lipschitz_of, result_of

# name of the quotient, measurement of `shadowing`, is Lip taken into the space of the distances
QUOTIENTS = (("T_g.lower", "Sh_exact", True), ("T_g.profile", "Sh_profile", True), ("T_g.paper", "Sh_paper", False))
# No longer measured: a maximum of ratios says nothing about their limit. Runs that hold it are verified.
FORMER = (("T_g.best", "Sh_best", True),)
HYPOTHESES = (
    "Theorem 1 is about a map of a space into itself that is g-expansive, and a g that takes bounded sets to bounded "
    "sets; a readout into fewer dimensions has a kernel and softmax is bounded, so it holds on a bounded part of the "
    "space only. Its proof takes Definition 3 (i) in the distance of readouts. The blocks of a network differ; it is "
    "applied to them one after the other: step t uses Lip(g) at depth t + 1 alone, so that Sh is divided by the "
    "largest Lip(g) of depths 1 and later, and delta is measured in the space after each block."
)


def quotient(
    name: str, sh: Measurement | None, lip: Measurement | None, n: int, about: str = "", certified: bool = False
) -> Measurement:
    """Sh / Lip as a measurement whose kind follows from the two kinds; value None with the reason if undefined.

    Arguments:
        certified: undefined, too, where Lip has no certified bound.
    """
    kind, reason, value = Kind.ESTIMATE, "", None
    if sh is None or sh.value is None:
        reason = "undefined: Sh is undefined" + (f" ({sh.note})" if sh is not None and sh.note else "")
    elif lip is None or lip.value is None:
        reason = "undefined: Lip(g) is undefined" + (f" ({lip.note})" if lip is not None and lip.note else "")
    elif certified and lip.kind not in (Kind.UPPER, Kind.EXACT):
        reason = f"undefined: {lip.note or 'Lip(g) has no certified upper bound'}"
    elif lip.value == 0:
        reason = "undefined: Lip(g) = 0, g is constant and Theorem 1 assumes it is not"
    else:
        kind = divide_bounds(sh.kind, lip.kind)
        value = sh.value / lip.value
    note = "; ".join(part for part in (about, reason or _direction(kind, sh, lip)) if part)
    witness: dict[str, object] = {"shadowing": _record(sh), "lipschitz": _record(lip)}
    if value is not None and sh is not None and sh.witness.get("digits") is not None:
        witness["digits"] = sh.witness["digits"]
        note += f"; of Sh about {sh.witness['digits']} digits are trustworthy"
    # Sh is a ratio of two distances, so T_g has the inverse unit of Lip(g).
    unit = " per ".join(reversed(lip.unit.split(" per "))) if lip is not None and " per " in lip.unit else "ratio"
    return Measurement(name, value, kind, n, unit, witness, "Theorem 1; Table 2", note=note)


def _direction(kind: Kind, sh: Measurement | None, lip: Measurement | None) -> str:
    assert sh is not None and lip is not None
    if kind == Kind.LOWER:
        return "a lower bound: Sh is exact or one, and Lip(g) is an upper bound"
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
        """``T_g.lower`` (the headline: exact s(eps)/eps over Lip into the space of the distances), and as the paper
        reads it, from a family of pseudo-orbits, ``T_g.profile`` and ``T_g.paper`` (Sh_paper / Lip(g), as Table 2
        divides)."""
        measurements, rows = [], []
        for made, sh, lip in self._quotients(context, QUOTIENTS):
            measurements.append(made)
            rows.append(
                [
                    made.name,
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
        tables = {"theorem": Table(columns, rows, "T_g >= Sh / Lip(g)")}
        return PropertyResult(measurements, tables, notes=[HYPOTHESES])

    def _quotients(
        self, context: Context, wanted: Sequence[tuple[str, str, bool]]
    ) -> Iterator[tuple[Measurement, Measurement | None, Measurement | None]]:
        """(quotient, its Sh, its Lip) of each."""
        shadowing = result_of(context, "shadowing", self.name)
        lipschitz = result_of(context, "lipschitz", self.name)
        exact = find(shadowing, "Sh_exact")
        for name, sh_name, matched in wanted:
            sh = find(shadowing, sh_name)
            lip = lipschitz_of(lipschitz, context.space if matched else "logits")
            about = f"{sh_name} / Lip of g into {context.space}" if matched else "Sh_paper / Lip(g) of the logits"
            if lip is not None and "at" in lip.witness and lip.witness.get("depth") is not None:
                about += f", largest at depth {place_text(lip.witness['depth'], lip.witness['at'])}"
            if sh_name == "Sh_exact":
                about += _at(sh)
            else:
                about += overstatement(sh, exact)
            certified = sh_name == "Sh_exact"
            yield quotient(name, sh, lip, len(context.indices), about, certified), sh, lip

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | None]:
        """The quotients of the needed results again."""
        held = [m.name for m in result.measurements]
        wanted = [quotient for quotient in QUOTIENTS + FORMER if quotient[0] in held]
        return {made.name: made.value for made, _, _ in self._quotients(context, wanted)}


def _at(exact: Measurement | None) -> str:
    """Words for what T_g.lower is a bound of."""
    if exact is None:
        return "; property shadowing gives it with bracket=true and exact=true"
    eps = exact.witness.get("eps")
    return "" if eps is None else f"; for the system restricted to the sample, at eps = {eps:.6g}"


def overstatement(sh: Measurement | None, exact: Measurement | None) -> str:
    """By how much a family's Sh exceeds s(eps)/eps over all pseudo-orbits of the sample, in words; empty if unknown."""
    if sh is None or not sh.value or exact is None or not exact.value:
        return ""
    if not (math.isfinite(sh.value) and math.isfinite(exact.value)):
        return ""
    upper = exact.value if exact.interval is None or not exact.interval[1] else exact.interval[1]
    if not math.isfinite(upper):
        return ""
    least = "" if upper == exact.value else "at least "
    factor = f"{least}{sh.value / upper:.3g} times Sh_exact"
    return f"; the paper's reading: {sh.name} is {factor}, and this quotient is too large by that"
