"""What each column of Table 2 may mean: every reading with its name, what it is measured by, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stabilitykit.base.results import Measurement, PropertyResult
from stabilitykit.reporting.rundata import records
from stabilitykit.runs.folder import load_run

UNTRAINED = (1 + math.sqrt(10 / 4096)) / math.sqrt(3)
"""||W||_2 of torch's untrained Linear(4096, 10), about: entries uniform in ±4096^-1/2, largest singular value by
Marchenko and Pastur."""


Results = Mapping[str, PropertyResult]


@dataclass(frozen=True)
class Value:
    """A reading's number.

    Attributes:
        product: where the number is a quotient, the product of its two parts.
    """

    value: float
    kind: str
    n: int
    eps: float | None = None
    delta: float | None = None
    product: float | None = None


@dataclass(frozen=True)
class Reading:
    """One way to read a column of Table 2.

    Attributes:
        value: the number in the results of one run; None where it was not measured or is undefined.
        says: in a sentence.
    """

    column: str
    name: str
    value: Callable[[Results], Value | None]
    says: str


def measured(key: str, name: str) -> Callable[[Results], Value | None]:
    """The measurement ``name`` of the result ``key`` (as :func:`results_of` names it)."""

    def value(results: Results) -> Value | None:
        m = _find(results, key, name)
        if m is None or m.value is None:
            return None
        return Value(m.value, str(m.kind), m.n, m.witness.get("eps"), m.witness.get("delta"))

    return value


def over_lipschitz(name: str) -> Callable[[Results], Value | None]:
    """The shadowing constant ``name`` divided by Lip(g)."""

    def value(results: Results) -> Value | None:
        sh, lip = _find(results, "shadowing", name), _find(results, "lipschitz", "lipschitz")
        if sh is None or lip is None or sh.value is None or not lip.value:
            return None
        return Value(sh.value / lip.value, "estimate", sh.n, product=sh.value * lip.value)

    return value


def largest_of_all_depths(results: Results) -> Value | None:
    """The largest bound of Lip(g_t), depth 0 included, which Theorem 1 does not need; None where g is one for all."""
    bounds = lipschitz_by_depth(results)
    if len(bounds) < 2:
        return None
    return Value(max(bounds.values()), "upper bound", results["lipschitz"].measurements[0].n)


def lipschitz_by_depth(results: Results) -> dict[int, float]:
    """Certified bounds of Lip(g_t) by depth t, of readouts that serve one depth each."""
    if "lipschitz" not in results:
        return {}
    rows = records(results["lipschitz"].tables["readouts"])
    return {int(r["depth"]): r["certified upper"] for r in rows if str(r["depth"]).isdigit()}


EXPANSIVE, SHADOWING, LIPSCHITZ, TOPOLOGICAL = "g-expansive", "g-shadowing", "Lip(g)", "topological"
SH = {
    "two orbits": ("Sh_paper", "smallest delta over smallest eps of all chains of nearest images: two orbits"),
    "one family (profile)": ("Sh_profile", "s(eps)/eps of that family at its smallest eps"),
    "authors' chains, mean": ("Sh_chain.mean", "chains the first block makes, eps the mean over blocks, one chain"),
    "authors' chains, max": ("Sh_chain.max", "the same, eps the largest over blocks"),
    "exact": ("Sh_exact", "s(eps)/eps over all sample pseudo-orbits at the profile's eps"),
}
READINGS = (
    *(
        Reading(
            EXPANSIVE, f"{pairs}, min", measured(f"expansivity {pairs}", "expansive_constant.min"), f"{pairs}: {says}"
        )
        for pairs, says in (
            ("labels", "smallest distance at any depth of two images of different label"),
            ("predictions", "the same over pairs of different final decision"),
            ("distinct", "the same over pairs of different final readout: any two images"),
        )
    ),
    Reading(
        EXPANSIVE,
        "labels, max (Definition 1)",
        measured("expansivity labels", "expansive_constant.max"),
        "smallest largest distance over depth of two images of different label: what Definition 1 says",
    ),
    *(Reading(SHADOWING, name, measured("shadowing", measurement), says) for name, (measurement, says) in SH.items()),
    Reading(LIPSCHITZ, "largest over blocks", measured("lipschitz", "lipschitz"), "||W_t||_2, the largest of t >= 1"),
    Reading(LIPSCHITZ, "largest, depth 0 too", largest_of_all_depths, "of probes: ||W_t||_2, the largest of t >= 0"),
    Reading(LIPSCHITZ, "mean over blocks", measured("lipschitz", "lipschitz.mean"), "of probes: the mean of t >= 1"),
    *(
        Reading(
            TOPOLOGICAL,
            f"{name} / Lip(g)",
            over_lipschitz(measurement),
            f"{name}, divided by the largest Lip(g): what the table does (the prose says multiplying)",
        )
        for name, (measurement, _) in SH.items()
    ),
)


def results_of(run: Path) -> tuple[dict[str, PropertyResult], str]:
    """Results by property, those of expansivity by "expansivity PAIRS", and the dataset's label."""
    _, cells = load_run(run)
    found = {}
    for cell in cells:
        if cell.result is not None:
            about = cell.record["property"]
            pairs = f" {about['options'].get('pairs', 'labels')}" if about["name"] == "expansivity" else ""
            found[about["name"] + pairs] = cell.result
    return found, cells[0].dataset


def _find(results: Results, key: str, name: str) -> Measurement | None:
    there = results[key].measurements if key in results else []
    return next((m for m in there if m.name == name and m.value is not None), None)
