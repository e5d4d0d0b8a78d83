"""The exact constant of one hidden piecewise linear layer: branch and bound over activation patterns.

A node fixes some neurons to one side of their kink; LipSDP-Neuron with those slopes fixed bounds every pattern below
it. Patterns that no input of the region has are cut by linear programming.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog

from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.certificate import certify
from stabilitykit_lipschitz.farkas import impossible, impossible_in_box
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.lower import Witness, at_kink, jacobian_norm, search
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import fold_slack, product_bound
from stabilitykit_lipschitz.reduce import compressed, prepare, substitute
from stabilitykit_lipschitz.regions import Ball, Box, Data, Region
from stabilitykit_lipschitz.rounding import frobenius
from stabilitykit_lipschitz.slopes import Activation
from stabilitykit_lipschitz.solver import solve
from stabilitykit_lipschitz.units import constant, dual_constant, original_multipliers

MOST = 256


@dataclass(frozen=True)
class _Bound:
    """Proven bound, multipliers (original order), dual, rank, and per free neuron how undecided it is."""

    upper: float
    multipliers: list[np.ndarray]
    dual: float
    rank: int
    doubt: np.ndarray
    side: np.ndarray
    start: list[np.ndarray] | None  # the dual solution, rows of all neurons (zero where fixed), for the children


def exact_constant(
    network: Network,
    region: Region | None,
    data: np.ndarray | None,
    per_input: bool,
    tol: float,
    seconds: float,
    seed: int,
) -> LipschitzInterval:
    """[lower, upper] with upper <= lower (1 + min(tol, 1e-5)) where the search closes in time (`exact` says so).

    Errors: ValueError unless the network has one hidden layer of at most 256 two-slope neurons (ReLU, leaky ReLU,
    PReLU) read from the input, no softmax, and the l2 norm.
    """
    _suitable(network, region, per_input)
    tol = min(tol, 1e-5)
    tree = _Tree(network, region, seed, tol, Budget(seconds))
    tree.offer(search(network, region, data, False, seed, min(2.0, 0.2 * seconds)).x)
    root = tree.bound(np.zeros(network.layers[0].size))
    upper = tree.run(root)
    exact = upper <= tree.best.value * (1 + tol)
    spent = f"{seconds:g} nominal seconds were spent"
    why = spent if tree.budget.is_over else "a pattern was neither realised nor ruled out"
    notes = () if exact else (f"branch and bound ended after {tree.nodes} nodes without closing: {why}",)
    return LipschitzInterval(
        lower=tree.best.value,
        upper=max(upper, tree.best.value),
        sdp_dual=root.dual,
        certified=True,
        multipliers=root.multipliers,
        witness_input=tree.best.x.reshape(network.input_shape or (-1,)),
        rank=root.rank,
        method="exact",
        exact=exact,
        solver_status=f"{tree.nodes} nodes",
        assumptions=network.assumptions,
        notes=notes,
    )


def _suitable(network: Network, region: Region | None, per_input: bool) -> None:
    if (
        len(network.layers) != 1
        or network.layers[0].size > MOST
        or per_input
        or network.factor != 1.0
        or isinstance(region, Data)
    ):
        raise ValueError(
            f"method='exact' handles one hidden layer of at most {MOST} neurons, norm=2 and logits; got "
            f"{len(network.layers)} hidden layers of {[x.size for x in network.layers]} neurons; "
            "use method='sdp'"
        )
    activation = network.layers[0].activation
    if not activation.piecewise_linear or tuple(activation.kinks) not in ((0.0,), ()):
        raise ValueError(
            f"method='exact' needs an activation with two slopes and one kink at 0 (ReLU, leaky ReLU, "
            f"PReLU); got {activation.name!r}; use method='sdp'"
        )


def _narrowed(start: list[np.ndarray], columns: int = 8) -> list[np.ndarray]:
    """The same point up to a rotation of columns, only the strongest ones kept: children need few."""
    if start[0].shape[1] <= columns:
        return start
    basis = np.linalg.svd(np.vstack(start), full_matrices=False)[2][:columns]
    return [block @ basis.T for block in start]


def _compressed(network: Network) -> Network:
    """The network on min(n, rows) inputs: its bounds are bounds of the original, and all nodes share coordinates."""
    layer = network.layers[0]
    stacked = layer.blocks[0] if 0 not in network.outputs else np.vstack([layer.blocks[0], network.outputs[0]])
    if network.inputs <= len(stacked):
        return network
    factor = compressed(stacked)
    outputs = dict(network.outputs)
    if 0 in outputs:
        outputs[0] = factor[layer.size :]
    return replace(
        network, inputs=len(stacked), layers=(replace(layer, blocks={0: factor[: layer.size]}),), outputs=outputs
    )


class _Tree:
    """Best-first search. A node is a vector of fixed sides: +1 beyond the kink, -1 before it, 0 free."""

    def __init__(self, network: Network, region: Region | None, seed: int, tol: float, budget: Budget) -> None:
        layer = network.layers[0]
        assert isinstance(layer.activation, Activation)
        self.network, self.region, self.seed, self.tol, self.budget = network, region, seed, tol, budget
        self.w = layer.blocks[0]
        self.small = _compressed(network)
        self.bias = layer.bias
        self.c = network.outputs.get(1, np.zeros((network.classes, layer.size)))
        self.skip = network.outputs.get(0, np.zeros((network.classes, network.inputs)))
        infinite = np.full(layer.size, np.inf)
        size = layer.size
        before = layer.activation.bounds_on(-infinite, np.full(size, -1.0))[0]
        after = layer.activation.bounds_on(np.ones(size), infinite)[0]
        self.slope = {-1: before, 1: after}
        self.best = Witness(0.0, np.zeros(network.inputs))
        self.nodes = 0
        self.free_patterns = np.linalg.matrix_rank(self.w) == len(self.w) and region is None

    def offer(self, x: np.ndarray) -> None:
        """Take x as the witness if its Jacobian beats the best one."""
        x = np.ravel(x)
        if isinstance(self.region, (Ball, Box)) and not self.region.contains(x):
            return
        if np.isfinite(x).all() and not at_kink(self.network, x):
            value = jacobian_norm(self.network, x)
            if value > self.best.value:
                self.best = Witness(value, x)

    def bound(self, sides: np.ndarray, coarse: float | None = None, parent: _Bound | None = None) -> _Bound:
        """LipSDP with the fixed sides' slopes, certified, plus hints for branching."""
        self.nodes += 1
        layer = self.network.layers[0]
        alpha, beta = layer.alpha.copy(), layer.beta.copy()
        for side in (-1, 1):
            alpha[sides == side] = beta[sides == side] = self.slope[side][sides == side]
        node = self.small.with_slopes([(alpha, beta)])
        parts, outputs, errors = substitute(node, False)
        slack = fold_slack(node, errors, False, frobenius)
        problem = prepare(node, False, False, slack, (parts, outputs), compress=False)
        doubt, guess = np.zeros(layer.size), np.where(sides == 0, 1.0, sides)
        if problem.empty():
            return _Bound(problem.slack, [np.full(layer.size, np.inf)], 0.0, 0, doubt, guess, None)
        start = None
        if parent is not None and parent.start is not None and problem.parts:
            start = _narrowed([parent.start[0], parent.start[1][problem.parts[0].kept]])
        solution = solve(problem, coarse or 0.2 * self.tol, self.seed, budget=self.budget, start=start)
        # The rest of a node, measured: some 150 small calls, the input's lowest eigenvalue, and a proof, whose products
        # cost about rows * inputs^2.
        self.budget.charge(problem.inputs**3 + problem.rows * problem.inputs**2, 150)
        again = None
        certificate = (
            certify(problem, solution.mu, solution.t, found=solution.eliminated)
            if np.isfinite(solution.level)
            else None
        )
        upper = product_bound(node) if certificate is None else constant(problem, certificate)
        multipliers = [] if certificate is None else original_multipliers(node, problem, certificate)
        if solution.point is not None and problem.parts:
            part, point = problem.parts[0], solution.point
            along = np.einsum("ij,ij->i", point.unit[1], point.pre[1]) / point.length[1]
            weight = np.linalg.norm(point.grad[1], axis=1) * point.length[1] * part.radius
            doubt[part.kept] = weight * (1.0 - along**2) + 1e-12 * weight
            guess[part.kept] = np.where(along >= 0, 1.0, -1.0)
            rows = np.zeros((layer.size, point.unit[1].shape[1]))
            rows[part.kept] = point.unit[1]
            again = [point.unit[0], rows]
        return _Bound(upper, multipliers, dual_constant(problem, solution.dual), solution.rank, doubt, guess, again)

    def polish(self, sides: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Alternate between top singular vectors and the best pattern for them, fixed sides kept."""
        pattern = start
        for _ in range(30):
            self.budget.charge(20.0 * self.skip.size * min(self.skip.shape) + self.c.size * self.w.shape[1], 3)
            d = np.where(pattern > 0, self.slope[1], self.slope[-1])
            u, _, vt = np.linalg.svd(self.skip + (self.c * d) @ self.w, full_matrices=False)
            gain = (u[:, 0] @ self.c) * (self.w @ vt[0])
            new = np.where(sides != 0, sides, np.where(gain >= 0, 1.0, -1.0))
            if (new == pattern).all():
                break
            pattern = new
        return pattern

    def realise(self, pattern: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray | None, bool]:
        """(x strictly inside the pattern on `fixed` neurons or None, whether None is a proof that there is none)."""
        live = fixed & (self.w != 0).any(1)
        if not live.any():
            inside = (
                self.region.sample(1, np.random.default_rng(self.seed))[0]
                if isinstance(self.region, (Ball, Box))
                else np.ones(self.network.inputs)
            )
            return inside, False
        if self.region is None:
            rows = self.w[live]
            target = pattern[live] * (1.0 + np.abs(self.bias[live])) - self.bias[live]
            self.budget.charge(8.0 * rows.size * min(rows.shape))
            x = np.linalg.lstsq(rows, target, rcond=None)[0]
            if (pattern[live] * (rows @ x + self.bias[live]) > 1e-6).all():
                return x, False
        return self._program(pattern, live)

    def _program(self, pattern: np.ndarray, live: np.ndarray) -> tuple[np.ndarray | None, bool]:
        n = self.network.inputs
        size = np.linalg.norm(self.w[live], axis=1)
        rows, offsets = -pattern[live, None] * self.w[live], pattern[live] * self.bias[live]
        a = np.hstack([rows / size[:, None], np.ones((len(rows), 1))])
        limits: list[tuple[float | None, float | None]] = [(None, None)] * n
        if isinstance(self.region, (Ball, Box)):
            limits = list(zip(*self.region.box()))
        self.budget.charge(20.0 * a.size * min(a.shape), 20)
        result = linprog(
            np.r_[np.zeros(n), -1.0], A_ub=a, b_ub=offsets / size, bounds=[*limits, (None, 1.0)], method="highs"
        )
        if result.x is None:
            return None, False
        margin = float(result.x[-1])
        if margin > 1e-9:
            return result.x[:-1], False
        # the solver's word is not enough: its tolerances are absolute, weights and inputs of any size
        y = -result.ineqlin.marginals / size
        if isinstance(self.region, (Ball, Box)):
            return None, impossible_in_box(rows, offsets, y, *self.region.box())
        return None, margin < 0 and impossible(rows, offsets, y)

    def incumbent(self, sides: np.ndarray, found: _Bound) -> None:
        pattern = self.polish(sides, np.where(sides != 0, sides, found.side))
        d = np.where(pattern > 0, self.slope[1], self.slope[-1])
        if np.linalg.norm(self.skip + (self.c * d) @ self.w, 2) <= self.best.value:
            return
        x, _ = self.realise(pattern, np.ones(len(pattern), dtype=bool))
        if x is not None:
            self.offer(x)

    def run(self, root: _Bound) -> float:
        """The proven upper bound when the search ends."""
        sides = np.zeros(len(self.bias))
        self.incumbent(sides, root)
        heap = [(-root.upper, 0, sides, root)]
        count, closed = 0, 0.0
        while heap:
            upper = -heap[0][0]
            if upper <= self.best.value * (1 + self.tol):
                return max(upper, closed)
            if self.budget.is_over:
                return max(upper, closed)
            _, _, sides, found = heapq.heappop(heap)
            free = sides == 0
            if not free.any() or not (found.doubt[free] > 0).any():
                # a leaf: its value is proven, but if no input has the pattern it stays an upper bound only
                closed = max(closed, upper)
                continue
            index = int(np.argmax(np.where(free, found.doubt, -1.0)))
            for side in (-1.0, 1.0):
                child = sides.copy()
                child[index] = side
                if not self.free_patterns and self.realise(child, child != 0)[1]:
                    continue
                bound = self.bound(child, max(0.2 * self.tol, 0.05 * (upper / self.best.value - 1.0)), found)
                self.incumbent(child, bound)
                value = min(bound.upper, upper)
                if value > self.best.value * (1 + self.tol):
                    count += 1
                    heapq.heappush(heap, (-value, count, child, bound))
                else:
                    closed = max(closed, value)
        return max(closed, self.best.value) if closed > 0 or not math.isinf(root.upper) else root.upper
