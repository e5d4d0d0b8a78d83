"""Our own solver: ascent on the dual, then multipliers whose best level is found by a block Schur recursion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.blocks import elimination_order, elimination_work
from stabilitykit_lipschitz.budget import CALL, RATE, Budget
from stabilitykit_lipschitz.certificate import Levelled, eliminate, first_margin
from stabilitykit_lipschitz.dual import Dual, Point, rows
from stabilitykit_lipschitz.eigen import lowest_of
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
    eliminated: Levelled | None = None  # of the multipliers, as `certify` can use it up; large

    @property
    def total(self) -> float:
        """The squared bound: level * sum(mu) for the l-infinity norm, level for l2 (mu = 1)."""
        return self.level


# Share of the tolerance spent on widening the slope intervals (see Dual).
INFLATE = 0.2
# Up to this many rows a tighter answer costs next to nothing.
SMALL, SMALL_TOL = 160, 1e-6
# From so many weights on the ascent begins in float32, as far as its digits go; values must be well inside its range.
HEAVY, LIGHT_GOAL, LIGHT_RANGE = 3e5, 3e-5, 1e12
# Evaluations of one ascent, and the least of them that are worth a turn.
MOST_STEPS, FEWEST_STEPS = 400, 25
# Multiplications of large matrices that one core does in the time of one of middling size (see `budget.RATE`).
EASE = 1.5


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
    goal = 0.3 * tol
    light = None
    if start is not None:
        point, spent = _powers(dual, dual.evaluate(np.concatenate(start)), 2), 3
    else:
        light, point = _first(dual, dual.start(columns, rng))
        spent = 11
    best: Solution | None = None
    for turn in range(rounds):
        if best is not None:
            best.eliminated = None  # not two of them at once
        rough = max(goal, LIGHT_GOAL)
        if light is not None and _steepness(dual, point) > 10.0 * rough:
            point, used = _ascend(light, point, rough, budget)
            point, spent = dual.evaluate(point.units), spent + used
        point, used = _ascend(dual, point, goal, budget)
        spent += used
        solution, escape = _primal(problem, point, dual, budget)
        solution.evaluations = spent
        solution.dual = true.evaluate(point.units).value
        known = max(solution.dual, best.dual if best else 0.0)
        if best is None or solution.level < best.level:
            best = solution
        best.dual = known
        gap = _gap(solution.level, best.dual)
        if verbose:
            print(
                f"turn {turn} columns {point.units.shape[1]} evals {used} goal {goal:.1e} dual {point.value:.12g} "
                f"level {solution.level:.12g} gap {gap:.2e} spent={budget.spent / RATE:.3g}"
            )
        if _gap(best.level, best.dual) <= 0.5 * tol or budget.is_over:
            break
        point = dual.evaluate(_escape(problem, dual, point, escape))
        goal = max(goal * 0.1, 1e-12)
    assert best is not None
    return best


def _first(dual: Dual, params: np.ndarray) -> tuple[Dual | None, Point]:
    """(the dual in float32 where that is worth while and values stay in its range, a point of ``dual`` after power
    iteration from raw parameters)."""
    if dual.weights >= HEAVY:
        light = Dual(dual.problem, dual.inflate, np.float32)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            point = _powers(light, light.evaluate(params), 10)
        if 1.0 / LIGHT_RANGE < point.value < LIGHT_RANGE:
            return light, dual.evaluate(point.units)
    return None, _powers(dual, dual.evaluate(params), 10)


def _steepness(dual: Dual, point: Point) -> float:
    """Norm of the gradient that `_ascend` begins with."""
    if not point.value > 0:
        return 0.0
    slope = (point.grads - point.units * point.along[:, None]) * np.sqrt(point.gains)[:, None]
    size = np.sqrt(dual.spheres(rows(point.grads)))
    return float(np.linalg.norm(slope / np.maximum(size, dual.floor)[:, None])) / math.sqrt(point.value)


def _powers(dual: Dual, point: Point, count: int) -> Point:
    for _ in range(count):
        point = dual.evaluate(dual.fixed_point(point))
    return point


def _gap(level: float, dual: float) -> float:
    """How far sqrt(level) may lie above the optimum, relatively; infinity where the dual value says nothing (where
    scales leave float64's range its best is 0)."""
    return 0.5 * (level / dual - 1.0) if dual > 0 else 0.0 if level == 0 else math.inf


def _linear(problem: Problem) -> Solution:
    """No hidden layer: the optimum is the squared spectral norm."""
    level = float(np.linalg.norm(problem.outputs[0], 2)) ** 2
    return Solution(np.ones(problem.inputs), [], level, level, 1, None)


def _ascend(dual: Dual, point: Point, goal: float, budget: Budget) -> tuple[Point, int]:
    """L-BFGS on the value, normalised to 1, in balanced parameters, until its gradient is at most ``goal``."""
    scale = 1.0 / point.value if point.value > 0 else 1.0
    root = dual.dtype(np.sqrt(scale))
    start: np.ndarray = dual.balanced(point).astype(dual.dtype)
    shape = start.shape

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        here = dual.evaluate(x.reshape(shape) / root)
        gradient = dual.slope(here).ravel()
        gradient *= dual.dtype(-scale / root)
        return -0.5 * here.value * scale, gradient

    cost = 2.0 * dual.weights * shape[1] / (EASE if dual.weights >= HEAVY else 1.0)
    most = int(min(MOST_STEPS, max(FEWEST_STEPS, budget.left * RATE / (cost + 2 * len(dual.cuts) * CALL))))
    end = minimise(objective, start.ravel() * root, goal, most)
    budget.charge(cost * end.evaluations, end.evaluations * 2 * len(dual.cuts))
    return dual.evaluate(end.x.reshape(shape) / root), end.evaluations


def _primal(
    problem: Problem, point: Point, dual: Dual, budget: Budget
) -> tuple[Solution, dict[int, np.ndarray] | None]:
    """Multipliers at the point, the best level for them, and directions of negative curvature (unscaled)."""
    mu, t = dual.multipliers(point)
    t = [np.maximum(s, 1e-13 * s.max(initial=0.0) + 1e-300) for s in t]
    found = eliminate(problem, mu, t, first_margin(problem), point.y[0] * np.sqrt(mu)[:, None], count=3)
    budget.charge(elimination_work(found.scaled, elimination_order(found.scaled, last=0)) / EASE)
    weight = float(mu.sum()) if problem.per_input else 1.0
    lifted: dict[int, np.ndarray] | None = None
    if found.factor.failed is not None:
        block, pivot = found.factor.failed
        values, vectors = lowest_of(pivot, len(pivot))
        lifted = found.factor.lift(block, vectors[:, : max(1, min(3, int((values < 0).sum())))])
    else:
        above = -found.values * weight > point.value * (1 + 1e-13)
        if above.any():
            lifted = found.factor.lift(0, found.vectors[:, above])
    if lifted is not None:
        scales = [1.0 / np.sqrt(mu), *(1.0 / np.sqrt(2.0 * s) for s in t)]
        lifted = {k: v * scales[k][:, None] for k, v in lifted.items() if k < len(scales)}
    rank = point.units.shape[1]
    return Solution(mu, t, found.level * weight, point.value, rank, point, eliminated=found), lifted


def _escape(problem: Problem, dual: Dual, point: Point, escape: dict[int, np.ndarray] | None) -> np.ndarray:
    """Append directions of negative curvature as new columns, at the amplitude that raises the value most."""
    if not escape:
        return point.units
    count = next(iter(escape.values())).shape[1]
    top = max(np.abs(v).max() for v in escape.values())
    columns = [escape[k] / top if k in escape else np.zeros((n, count)) for k, n in enumerate(problem.sizes)]
    raw = [columns[0]]
    for part, own, gain in zip(problem.parts, columns[1:], point.gain[1:]):
        z = sum(w @ columns[k] for k, w in part.blocks.items())
        raw.append((own - part.centre[:, None] * z) / gain[:, None])
    extra = np.concatenate(raw)
    extra /= np.abs(extra).max()
    trials = [
        np.concatenate([point.units, amplitude * extra], axis=1) for amplitude in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
    ]
    return max(trials, key=lambda trial: dual.evaluate(trial).value)
