"""Our own solver: ascent on the dual, then multipliers whose best level is found by a block Schur recursion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from stabilitykit_lipschitz.blocks import assemble, elimination_order, elimination_work, factorise
from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.dual import Dual, Point
from stabilitykit_lipschitz.lbfgs import minimise
from stabilitykit_lipschitz.reduce import Problem


@dataclass
class Solution:
    """Multipliers (mu, t) with the smallest level found (level * mu makes S >= 0 up to rounding), and the dual.

    level, dual: squares of Lipschitz constants of `Problem` (before its exponent). level is inf if none was found.
    """

    mu: np.ndarray
    t: list[np.ndarray]
    level: float
    dual: float
    rank: int
    point: Point | None
    evaluations: int = 0

    @property
    def total(self) -> float:
        """The squared bound: level * sum(mu) for the l-infinity norm, level for l2 (mu = 1)."""
        return self.level


# Share of the tolerance spent on widening the slope intervals (see Dual).
INFLATE = 0.2
# Up to this many rows a tighter answer costs next to nothing.
SMALL, SMALL_TOL = 160, 1e-6


def solve(
    problem: Problem,
    tol: float,
    seed: int = 0,
    columns: int = 0,
    budget: Budget | None = None,
    rounds: int = 30,
    widen: float = 1.0,
    start: list[np.ndarray] | None = None,
    verbose: bool = False,
) -> Solution:
    """Solve until the certified bound on L exceeds the dual value by less than about tol relatively, or ``budget``
    (60 nominal seconds if none is given) is spent.

    start: raw parameters (per state) to start from, instead of random ones.
    """
    budget = budget or Budget(60.0)
    if not problem.parts and not problem.per_input:
        return _linear(problem)
    if problem.rows <= SMALL and start is None:
        tol = min(tol, SMALL_TOL)
    inflate = widen * INFLATE * tol / max(1, len(problem.parts))
    dual, true = Dual(problem, inflate), Dual(problem)
    rng = np.random.default_rng(seed)
    columns = columns or (12 if problem.rows <= 1000 else 16)
    columns = max(1, min(columns, problem.inputs if not problem.per_input else 10**9, problem.rows))
    point = dual.evaluate(dual.start(columns, rng) if start is None else start)
    for _ in range(10 if start is None else 2):
        params = dual.fixed_point(point)
        point = dual.evaluate(params)
    best: Solution | None = None
    goal = min(1e-3, max(tol * 3, 1e-7))
    spent = 11
    for turn in range(rounds):
        point, used = _ascend(dual, point, goal, 400 if turn else 300)
        spent += used
        weights = sum(
            w.size for blocks in [*(p.blocks for p in problem.parts), problem.outputs] for w in blocks.values()
        )
        budget.charge(2.0 * used * weights * point.y[0].shape[1], used)
        solution, escape = _primal(problem, dual, point, budget)
        solution.evaluations = spent
        solution.dual = true.evaluate(point.unit).value
        if best is None or solution.level < best.level:
            dual_value = max(solution.dual, best.dual if best else 0.0)
            best = solution
            best.dual = dual_value
        else:
            best.dual = max(best.dual, solution.dual)
        if verbose:
            print(
                f"turn {turn} columns {point.y[0].shape[1]} evals {used} goal {goal:.1e} dual {point.value:.12g} "
                f"level {solution.level:.12g} gap {_gap(solution.level, best.dual):.2e} spent={budget.spent:.2g}"
            )
        if _gap(best.level, best.dual) <= 0.5 * tol or budget.is_over:
            break
        params = _escape(problem, dual, point, escape)
        point = dual.evaluate(params)
        goal = max(goal * 0.1, 1e-12)
    assert best is not None
    return best


def _gap(level: float, dual: float) -> float:
    """How far sqrt(level) may lie above the optimum, relatively; infinity where the dual value says nothing (where
    scales leave float64's range its best is 0)."""
    return 0.5 * (level / dual - 1.0) if dual > 0 else 0.0 if level == 0 else math.inf


def _linear(problem: Problem) -> Solution:
    """No hidden layer: the optimum is the squared spectral norm."""
    level = float(np.linalg.norm(problem.outputs[0], 2)) ** 2
    return Solution(np.ones(problem.inputs), [], level, level, 1, None)


def _pack(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays])


def _ascend(dual: Dual, point: Point, goal: float, most: int) -> tuple[Point, int]:
    """L-BFGS on the value, normalised to 1, in balanced parameters."""
    scale = 1.0 / point.value if point.value > 0 else 1.0
    start = dual.balanced(point)
    shapes = [a.shape for a in start]
    cuts = np.cumsum([0] + [a.size for a in start])
    kept: dict[str, object] = {}
    root = np.sqrt(scale)

    def unpack(x: np.ndarray) -> list[np.ndarray]:
        return [x[a:b].reshape(s) / root for a, b, s in zip(cuts, cuts[1:], shapes)]

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        here = dual.evaluate(unpack(x))
        return -0.5 * here.value * scale, _pack(dual.slope(here)) * (-scale / root)

    end = minimise(objective, _pack(start) * root, goal, most)
    del kept
    return dual.evaluate(unpack(end.x)), end.evaluations


def _primal(
    problem: Problem, dual: Dual, point: Point, budget: Budget
) -> tuple[Solution, dict[int, np.ndarray] | None]:
    """Multipliers at the point, the best level for them, and directions of negative curvature (unscaled)."""
    mu, t = dual.multipliers(point)
    t = [np.maximum(s, 1e-13 * s.max(initial=0.0) + 1e-300) for s in t]
    scaled = assemble(problem, mu, t)
    order = elimination_order(scaled, last=0)
    budget.charge(elimination_work(scaled, order))
    factor = factorise(scaled, 0.0, order, keep_last=True)
    rank = point.y[0].shape[1]
    weight = float(mu.sum()) if problem.per_input else 1.0
    if factor.failed is not None:
        block, pivot = factor.failed
        values, vectors = eigh(pivot, check_finite=False)
        negative = vectors[:, : max(1, min(3, int((values < 0).sum())))]
        lifted: dict[int, np.ndarray] | None = factor.lift(block, negative)
        level = np.inf
    else:
        assert factor.rest is not None
        values, vectors = lowest(factor.rest, 3, point.y[0] * np.sqrt(mu)[:, None])
        level = float(-values[0]) * weight
        above = -values * weight > point.value * (1 + 1e-13)
        vectors = vectors[:, above]
        lifted = factor.lift(0, vectors) if vectors.shape[1] else None
    if lifted is not None:
        scales = [1.0 / np.sqrt(mu), *(1.0 / np.sqrt(2.0 * s) for s in t)]
        lifted = {k: v * scales[k][:, None] for k, v in lifted.items() if k < len(scales)}
    return Solution(mu, t, level, point.value, rank, point), lifted


def lowest(matrix: np.ndarray, count: int, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The few smallest eigenvalues and vectors of a symmetric matrix; Lanczos from `guess` (n, m) when it is large."""
    size = len(matrix)
    if size <= 1200:
        return eigh(matrix, subset_by_index=(0, min(size, count) - 1), check_finite=False)
    start = guess @ np.ones(guess.shape[1]) + 1e-3 * np.linalg.norm(guess) / np.sqrt(size)
    try:
        values, vectors = eigsh(matrix, k=count, which="SA", v0=start, ncv=40, tol=1e-9, maxiter=40)
    except ArpackNoConvergence as error:
        if not len(error.eigenvalues):
            return eigh(matrix, subset_by_index=(0, count - 1), check_finite=False)
        values, vectors = error.eigenvalues, error.eigenvectors
    order = np.argsort(values)
    return values[order], vectors[:, order]


def _escape(problem: Problem, dual: Dual, point: Point, escape: dict[int, np.ndarray] | None) -> list[np.ndarray]:
    """Append directions of negative curvature as new columns, at the amplitude that raises the value most."""
    base = [q.copy() for q in point.unit]
    if not escape:
        return base
    count = next(iter(escape.values())).shape[1]
    top = max(np.abs(v).max() for v in escape.values())
    columns = [np.zeros((n, count)) for n in problem.sizes]
    for k, v in escape.items():
        columns[k] = v / top
    raw = []
    for level, n in enumerate(point.length):
        extra = columns[level]
        if level:
            part = problem.parts[level - 1]
            z = sum(w @ columns[k] for k, w in part.blocks.items())
            extra = columns[level] - part.centre[:, None] * z
            extra = extra / n if part.shared else extra / (part.radius * n)[:, None]
        raw.append(extra)
    best, chosen = -np.inf, None
    size = max(np.abs(r).max() for r in raw)
    for amplitude in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5):
        trial = [np.concatenate([q, r * (amplitude / size)], axis=1) for q, r in zip(base, raw)]
        value = dual.evaluate(trial).value
        if value > best:
            best, chosen = value, trial
    assert chosen is not None
    return chosen
