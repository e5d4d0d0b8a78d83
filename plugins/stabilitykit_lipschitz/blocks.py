"""The LipSDP matrix as sparse blocks, scaled to unit diagonal, and its block Cholesky factorisation.

States 0..L and a last block o for the output, which replaces -C'C by [.., C'; C, I] (the same inequality by a Schur
complement). With D = diag(mu^-1/2, (2t)^-1/2, I) the scaled matrix D S D has unit blocks up to slopes of mixed sign.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from stabilitykit_lipschitz.reduce import Problem

Key = tuple[int, int]


@dataclass
class Scaled:
    """Lower-triangle blocks of D S D without the input's own multiplier: S_00 = level * I is added by the caller.

    diagonal: blocks that are still diagonal matrices, as vectors. sizes by state, output last.
    """

    sizes: list[int]
    blocks: dict[Key, np.ndarray] = field(default_factory=dict)
    diagonal: dict[int, np.ndarray] = field(default_factory=dict)

    def full(self, i: int) -> np.ndarray:
        """Diagonal block i as a dense matrix (a copy)."""
        if (i, i) in self.blocks:
            dense = self.blocks[i, i].copy()
            dense[np.diag_indices(len(dense))] += self.diagonal[i]
            return dense
        return np.diag(self.diagonal[i])

    def get(self, i: int, j: int) -> np.ndarray | None:
        """Block (i, j) in either triangle."""
        if (i, j) in self.blocks:
            return self.blocks[i, j]
        if (j, i) in self.blocks:
            return self.blocks[j, i].T
        return None


def scaling(mu: np.ndarray, t: list[np.ndarray], classes: int) -> list[np.ndarray]:
    """The diagonal D per state, output last."""
    return [1.0 / np.sqrt(mu), *(1.0 / np.sqrt(2.0 * s) for s in t), np.ones(classes)]


def assemble(problem: Problem, mu: np.ndarray, t: list[np.ndarray]) -> Scaled:
    """D S D for positive multipliers t and input weights mu (the input's own diagonal left at zero)."""
    d = scaling(mu, t, problem.classes)
    last = len(problem.parts) + 1
    scaled = Scaled([*problem.sizes, problem.classes])
    scaled.diagonal = {i: np.ones(n) for i, n in enumerate(scaled.sizes)}
    scaled.diagonal[0] = np.zeros(problem.inputs)
    for level, part in enumerate(problem.parts, start=1):
        states = sorted(part.blocks)
        cross = -(t[level - 1] * (part.alpha + part.beta)) * d[level]
        product = 2.0 * t[level - 1] * part.alpha * part.beta
        columns = {k: part.blocks[k] * d[k] for k in states}
        for k in states:
            _add(scaled.blocks, (level, k), cross[:, None] * columns[k])
        if product.any():
            for a in states:
                weighted = columns[a] * product[:, None]
                for b in states:
                    if b <= a:
                        _add(scaled.blocks, (a, b), weighted.T @ columns[b])
    for k, c in problem.outputs.items():
        _add(scaled.blocks, (last, k), c * d[k])
    return scaled


def _add(blocks: dict[Key, np.ndarray], key: Key, value: np.ndarray) -> None:
    blocks[key] = blocks[key] + value if key in blocks else value


def elimination_order(scaled: Scaled, last: int | None) -> list[int]:
    """Greedy order of blocks by the work each elimination causes; block `last` stays for the end."""
    near: dict[int, set[int]] = {i: set() for i in range(len(scaled.sizes))}
    for i, j in scaled.blocks:
        if i != j:
            near[i].add(j)
            near[j].add(i)
    is_dense = {i: (i, i) in scaled.blocks for i in near}
    left = [i for i in near if i != last and scaled.sizes[i]]
    order = []
    while left:

        def cost(i: int) -> float:
            n, m = scaled.sizes[i], sum(scaled.sizes[j] for j in near[i])
            work = n * m * m + (n**3 / 3 + n * n * m if is_dense[i] else 0.0)
            # a neighbour that is still diagonal would become dense: it pays its own factorisation later
            return work + sum(scaled.sizes[j] ** 3 for j in near[i] if not is_dense[j] and j != last)

        best = min(left, key=cost)
        left.remove(best)
        order.append(best)
        for j in near[best]:
            near[j] |= near[best] - {j}
            near[j].discard(best)
            is_dense[j] = True
    if last is not None:
        order.append(last)
    return order


def elimination_work(scaled: Scaled, order: list[int]) -> float:
    """Multiplications of `factorise` in this order: a long chain of small layers costs little, however many rows."""
    near: dict[int, set[int]] = {i: set() for i in range(len(scaled.sizes))}
    for i, j in scaled.blocks:
        if i != j:
            near[i].add(j)
            near[j].add(i)
    is_dense = {i: (i, i) in scaled.blocks for i in near}
    total = 0.0
    for i in order:
        n, m = scaled.sizes[i], sum(scaled.sizes[j] for j in near[i])
        total += n * m * m + (n**3 / 3 + n * n * m if is_dense[i] else 0.0)
        for j in near[i]:
            near[j] |= near[i] - {j}
            near[j].discard(i)
            is_dense[j] = True
    return total


@dataclass
class Factor:
    """R with D S D - shift = R R': diag: lower triangles or vectors (square roots) per block, below: R_ji.

    failed: (block, its indefinite Schur complement) when a pivot block is not positive definite.
    """

    order: list[int]
    diag: dict[int, np.ndarray]
    below: dict[Key, np.ndarray]
    rest: np.ndarray | None = None
    failed: tuple[int, np.ndarray] | None = None

    def lift(self, block: int, vector: np.ndarray) -> dict[int, np.ndarray]:
        """Extend `vector` (size, m) on `block` to the blocks eliminated before it so that S v vanishes there."""
        done = [i for i in self.order if i in self.diag]
        parts = {block: vector}
        for i in reversed(done):
            total = 0.0
            for j in parts:
                if (j, i) in self.below:
                    total = total + self.below[j, i].T @ parts[j]
            if np.ndim(total) == 0:
                continue
            if self.diag[i].ndim == 1:
                parts[i] = -total / self.diag[i][:, None]
            else:
                parts[i] = -solve_triangular(self.diag[i], total, lower=True, trans=1, check_finite=False)
        return parts


def factorise(scaled: Scaled, shift: float, order: list[int], keep_last: bool) -> Factor:
    """Block Cholesky of D S D - shift I in `order`. keep_last: leave the last block's Schur complement in `rest`."""
    blocks = dict(scaled.blocks)
    diagonal = {i: v - shift for i, v in scaled.diagonal.items()}
    factor = Factor(order, {}, {})
    done: set[int] = set()
    for step, i in enumerate(order):
        keys = [
            (key, key[0] if key[1] == i else key[1])
            for key in blocks
            if key[0] != key[1] and i in key and not done.intersection(key)
        ]
        is_dense = (i, i) in blocks
        if is_dense:
            pivot = blocks.pop((i, i)).copy()
            pivot[np.diag_indices(len(pivot))] += diagonal[i]
        if keep_last and step == len(order) - 1:
            factor.rest = pivot if is_dense else np.diag(diagonal[i])
            return factor
        if is_dense:
            try:
                root = cholesky(pivot, lower=True, check_finite=False)
            except np.linalg.LinAlgError:
                factor.failed = (i, pivot)
                return factor
        else:
            if not (diagonal[i] > 0).all():
                factor.failed = (i, np.diag(diagonal[i]))
                return factor
            root = np.sqrt(diagonal[i])
        factor.diag[i] = root
        below = {}
        for key, j in keys:
            a = blocks[key] if key[1] == i else blocks[key].T
            if root.ndim == 1:
                below[j] = a / root
            else:
                below[j] = solve_triangular(root, a.T, lower=True, check_finite=False).T
            del blocks[key]
        for j, rj in below.items():
            factor.below[j, i] = rj
            for k, rk in below.items():
                if j >= k:
                    _subtract(blocks, (j, k), rj, rk)
        done.add(i)
    return factor


def _subtract(blocks: dict[Key, np.ndarray], key: Key, left: np.ndarray, right: np.ndarray) -> None:
    # into the product's memory: a fresh block of some megabytes costs a good part of the product
    product = left @ right.T
    blocks[key] = np.subtract(blocks[key], product, out=product) if key in blocks else np.negative(product, out=product)
