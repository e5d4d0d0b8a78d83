"""A lower bound of T_g that exceeds T_g measured directly: one of the two does not mean what it says here."""

from __future__ import annotations

from stabilitykit import Kind, PropertyResult
from stabilitykit_topological.earlier_results import find


def contradictions(theorem: PropertyResult, direct: PropertyResult) -> list[str]:
    """Warnings, one sentence each, about what Theorem 1 bounds from below and ``perturbation`` measured smaller.

    Arguments:
        theorem: result of property topological. direct: result of property perturbation.
    """
    measured = find(direct, "T_g.direct")
    if measured is None or measured.value is None:
        return []
    return [
        f"{m.name} = {m.value:.4g} is called a lower bound of T_g, but T_g measured directly is smaller, "
        f"{measured.value:.4g} ({measured.witness.get('perturbation', 'perturbation')}, at another eps and off the "
        "sample): a bound of the system restricted to the sample need not hold for perturbed blocks"
        for m in theorem.measurements
        if m.kind in (Kind.LOWER, Kind.EXACT) and m.value is not None and m.value > measured.value
    ]
