"""Certificates of one reduced problem: from our solver's multipliers, or from the best others that can be proven."""

from __future__ import annotations

import numpy as np

from stabilitykit_lipschitz.backward import backward
from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.certificate import Certificate, certify
from stabilitykit_lipschitz.reduce import Problem
from stabilitykit_lipschitz.solver import solve

# Status of a certificate whose multipliers had to be damped.
REPAIRED = "repaired"
# Squared bounds so many times above the dual value are compared with what needs no solver.
HOPELESS = 1.1


def solve_certified(problem: Problem, tol: float, seconds: float, seed: int) -> tuple | None:
    """(certificate, dual value, rank, status) from our own solver; a larger safety share where the proof fails."""
    budget = Budget(seconds)
    best = None
    for share in (1.0, 10.0, 100.0):
        solution = solve(problem, tol, seed, budget=budget, widen=share)
        if not np.isfinite(solution.level):
            continue
        certificate = certify(problem, solution.mu, solution.t, found=solution.eliminated)
        if certificate is not None:
            if best is None or certificate.squared < best[0].squared:
                best = (certificate, solution.dual, solution.rank, "solved")
            if certificate.squared <= solution.dual * (1 + 2 * tol):
                break
        if budget.is_over:
            break
    if best is None:
        # out of time before the multipliers were feasible: damp them until some proof exists
        certificate = repaired(problem, solution.mu, solution.t)
        best = None if certificate is None else (certificate, solution.dual, solution.rank, REPAIRED)
    if best is None or best[0].squared > HOPELESS * solution.dual:
        certificate = quickly(problem)
        if certificate is not None and (best is None or certificate.squared < best[0].squared):
            best = (certificate, solution.dual, solution.rank, REPAIRED)
    return best


def quickly(problem: Problem) -> Certificate | None:
    """What one pass over the layers proves, without a solver; None for numbers out of range."""
    found = backward(problem)
    return None if found is None else certify(problem, *found)


def repaired(problem: Problem, mu: np.ndarray, t: list[np.ndarray]) -> Certificate | None:
    """A certificate for multipliers that may be slightly infeasible: layers are damped geometrically until one is
    found (exact for slopes [0, 1], a search elsewhere)."""
    best = None
    for exponent in (None, -9, -8, -7, -6, -5, -4, -3, -2, -1, -0.3):
        ratio = 1.0 if exponent is None else 1.0 - 10.0**exponent
        certificate = certify(problem, mu, [s * ratio**level for level, s in enumerate(t, start=1)])
        if certificate is not None:
            if best is not None and certificate.squared >= best.squared:
                break
            best = certificate
    return best
