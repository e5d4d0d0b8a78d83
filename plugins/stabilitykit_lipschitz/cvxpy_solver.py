"""LipSDP in cvxpy, for small networks and as a cross-check. Its result is only a proposal for the certificate."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.reduce import Problem


@dataclass(frozen=True)
class Proposal:
    """level: the solver's optimal value (unproven); mu, t: its multipliers; status: what the solver said."""

    level: float
    mu: np.ndarray
    t: list[np.ndarray]
    status: str


def propose(problem: Problem, solver: str = "CLARABEL", tol: float = 1e-6, seconds: float | None = None) -> Proposal:
    """Minimise rho (or sum mu for the l-infinity norm) subject to the matrix inequality, t >= 0.

    solver: "CLARABEL" or "SCS". Errors: ValueError for another name; RuntimeError when the solver gives nothing.
    """
    import cvxpy as cp

    if solver not in ("CLARABEL", "SCS"):
        raise ValueError(f"solver {solver!r}; expected 'CLARABEL' or 'SCS'")
    sizes = problem.sizes
    starts = np.cumsum([0, *sizes])
    total = int(starts[-1])

    def place(blocks: dict[int, np.ndarray], rows: int) -> np.ndarray:
        out = np.zeros((rows, total))
        for k, b in blocks.items():
            out[:, starts[k] : starts[k + 1]] = b
        return out

    if problem.per_input:
        mu = cp.Variable(problem.inputs, nonneg=True)
        goal = cp.sum(mu)
        first = cp.diag(mu)
    else:
        mu = cp.Variable(nonneg=True)
        goal = mu
        first = mu * np.eye(problem.inputs)
    e0 = np.eye(total)[:, : problem.inputs]
    matrix = e0 @ first @ e0.T
    variables = []
    for level, part in enumerate(problem.parts, start=1):
        w = place(part.blocks, part.size)
        e = np.zeros((part.size, total))
        e[:, starts[level] : starts[level + 1]] = np.eye(part.size)
        u, v = e - part.alpha[:, None] * w, e - part.beta[:, None] * w
        t = cp.Variable(nonneg=True) if part.shared else cp.Variable(part.size, nonneg=True)
        variables.append(t)
        if part.shared:
            matrix = matrix + t * (u.T @ v + v.T @ u)
        else:
            half = u.T @ cp.diag(t) @ v
            matrix = matrix + half + half.T
    c = place(problem.outputs, problem.classes)
    gap = matrix - c.T @ c
    program = cp.Problem(cp.Minimize(goal), [0.5 * (gap + gap.T) >> 0])
    options: dict = {}
    if solver == "SCS":
        options = {"eps": tol, "max_iters": 10**7}
        if seconds is not None:
            options["time_limit_secs"] = seconds
    elif seconds is not None:
        options["time_limit"] = seconds
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program.solve(solver=solver, **options)
    except cp.error.SolverError as error:
        raise RuntimeError(f"{solver} failed: {error}") from error
    if program.status not in ("optimal", "optimal_inaccurate") or mu.value is None:
        raise RuntimeError(f"{solver} ended with status {program.status!r}: nothing to certify")
    found = []
    for part, t in zip(problem.parts, variables):
        value = np.maximum(np.atleast_1d(np.asarray(t.value, dtype=np.float64)), 0.0)
        value = np.full(part.size, value[0]) if part.shared else value
        found.append(np.maximum(value, 1e-13 * value.max(initial=0.0) + 1e-300))
    weights = np.maximum(np.asarray(mu.value, dtype=np.float64), 0.0)
    weights = np.ones(problem.inputs) if not problem.per_input else np.maximum(weights, 1e-10 * weights.max() + 1e-300)
    return Proposal(float(program.value), weights, found, str(program.status))
