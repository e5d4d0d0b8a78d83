"""The proof that given multipliers bound the Lipschitz constant, in float64 with every rounding accounted for.

D S D - c I = R R' + E: the factor R comes from a Cholesky factorisation that is not trusted; E is measured, and the
rounding of forming D S D, of R R' and of E is bounded from above. If all of it is at most c then S >= 0 and every
dx satisfies |df|^2 <= sum mu dx^2. Nothing is assumed about the solver that produced the multipliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import dtrmm
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from stabilitykit_lipschitz.blocks import Factor, Scaled, assemble, elimination_order, factorise, scaling
from stabilitykit_lipschitz.eigen import lowest_of
from stabilitykit_lipschitz.reduce import Problem
from stabilitykit_lipschitz.rounding import UNIT, gamma


@dataclass(frozen=True)
class Certificate:
    """squared: proven bound on the squared constant of `Problem` (before exponent and slack); mu, t: the multipliers
    of the proof (mu already contains the level); margin: c; residual: the bound on E it had to cover."""

    squared: float
    mu: np.ndarray
    t: list[np.ndarray]
    margin: float
    residual: float


def forming_error(problem: Problem, mu: np.ndarray, t: list[np.ndarray]) -> list[np.ndarray]:
    """Row sums of a bound on |D S D computed - D S D exact|, per state, output last.

    D is taken as computed (any positive diagonal will do). An entry of a cross block is a product with at most seven
    roundings, a diagonal entry 2 t d^2 differs from 1 by at most four, the W' (2 t alpha beta) W terms are inner
    products; the constants below are twice that.
    """
    d = scaling(mu, t, problem.classes)
    last = len(problem.parts) + 1
    sums = [np.full(len(v), 8.0 * UNIT) for v in d]
    for level, part in enumerate(problem.parts, start=1):
        cross = np.abs(t[level - 1] * (part.alpha + part.beta)) * d[level]
        # alpha + beta may cancel: bound its rounding by the absolute values
        loss = (np.abs(part.alpha) + np.abs(part.beta)) * t[level - 1] * d[level] * UNIT
        product = np.abs(2.0 * t[level - 1] * part.alpha * part.beta)
        columns = {k: np.abs(w) * d[k] for k, w in part.blocks.items()}
        through = {k: c.sum(1) for k, c in columns.items()}
        for k, c in columns.items():
            weight = 16.0 * UNIT * cross + 2.0 * loss
            sums[level] += weight * through[k]
            sums[k] += weight @ c
        if product.any():
            rate = gamma(part.size + 16) + 8.0 * UNIT
            everything = sum(through.values())
            for k, c in columns.items():
                sums[k] += rate * ((product * everything) @ c)
    for k, c in problem.outputs.items():
        scaled = np.abs(c) * d[k]
        sums[last] += 16.0 * UNIT * scaled.sum(1)
        sums[k] += 16.0 * UNIT * scaled.sum(0)
    return sums


def residual_bound(scaled: Scaled, factor: Factor, shift: float, formed: list[np.ndarray]) -> float:
    """Upper bound on ||D S D - shift I - R R'||_inf for the exact D S D; inf if R is incomplete."""
    states = [i for i in range(len(scaled.sizes)) if scaled.sizes[i]]
    if any(i not in factor.diag for i in states):
        return np.inf
    sums = [s.copy() for s in formed]
    columns: dict[int, dict[int, np.ndarray]] = {i: {} for i in states}
    for (j, i), block in factor.below.items():
        columns[i][j] = block
    products: dict[tuple[int, int], np.ndarray] = {}
    diagonal: dict[int, np.ndarray] = {i: np.zeros(scaled.sizes[i]) for i in states}
    settled: set[int] = set()
    reach = [np.zeros(n) for n in scaled.sizes]
    for i in states:
        root = factor.diag[i]
        own, below = np.abs(root), {j: np.abs(block) for j, block in columns[i].items()}
        ones = own if root.ndim == 1 else own.sum(0)
        for block in below.values():
            ones = ones + block.sum(0)
        if root.ndim == 1:
            diagonal[i] += root * root
            reach[i] += own * ones
        else:
            _accumulate(products, (i, i), root @ root.T)
            reach[i] += own @ ones
        for j, bj in columns[i].items():
            reach[j] += below[j] @ ones
            # half the work of a full product; an inner product over the same columns in some order
            pair = bj * root if root.ndim == 1 else dtrmm(1.0, root, bj.T, lower=1).T
            _accumulate(products, (j, i) if j > i else (i, j), pair if j > i else pair.T)
            for k, bk in columns[i].items():
                if k <= j:
                    _accumulate(products, (j, k), bj @ bk.T)
    for key in set(products) | set(scaled.blocks):
        i, j = key
        target, product = scaled.blocks.get(key), products.pop(key, None)
        # in the product's memory: products are sums made above, nobody else's
        if target is None:
            assert product is not None
            error = np.negative(product, out=product)
        else:
            error = target.copy() if product is None else np.subtract(target, product, out=product)
        if i == j:
            error[np.diag_indices(len(error))] += (scaled.diagonal[i] - shift) - diagonal[i]
            settled.add(i)
            sums[i] += np.abs(error, out=error).sum(1)
        else:
            np.abs(error, out=error)
            sums[i] += error.sum(1)
            sums[j] += error.sum(0)
    for i in states:
        if i not in settled:
            sums[i] += np.abs((scaled.diagonal[i] - shift) - diagonal[i])
        # rounding of R R' (inner products over all columns) and of the subtraction from D S D
        sums[i] += gamma(sum(scaled.sizes) + 8) * reach[i] + 8.0 * UNIT * (1.0 + np.abs(scaled.diagonal[i]))
    for (i, j), block in scaled.blocks.items():
        size = np.abs(block)
        sums[i] += 4.0 * UNIT * size.sum(1)
        sums[j] += 4.0 * UNIT * size.sum(0)
    # the sums themselves are rounded: relative loss below gamma of the longest one
    return max(float(sums[i].max()) for i in states) * (1.0 + gamma(4 * sum(scaled.sizes) + 64))


def _accumulate(products: dict, key: tuple[int, int], value: np.ndarray) -> None:
    """Add ``value``, which is the caller's own array, to the product."""
    if key in products:
        products[key] += value
    else:
        products[key] = value


@dataclass
class Levelled:
    """Multipliers eliminated down to the input: the smallest level that makes D S D - margin I positive there.

    level: before it is multiplied by mu; values (m,), vectors (n, m): the lowest of the input's Schur complement, whose
    negative (plus the margin) `factor.rest` then holds. factor.failed: no level is enough.
    """

    scaled: Scaled
    factor: Factor
    margin: float
    level: float
    values: np.ndarray
    vectors: np.ndarray


def first_margin(problem: Problem) -> float:
    """c where nothing is known yet of the residual it must cover: enough for all but odd scales, as a second attempt
    costs as much as the first."""
    total = sum(problem.sizes) + problem.classes
    return 32.0 * gamma(total) * float(np.sqrt(total))


def eliminate(
    problem: Problem,
    mu: np.ndarray,
    t: list[np.ndarray],
    margin: float,
    guess: np.ndarray | None = None,
    count: int = 1,
) -> Levelled:
    """See `Levelled`. guess: (n, m) directions near the lowest eigenvector, for large problems; count: of vectors."""
    scaled = assemble(problem, mu, t)
    factor = factorise(scaled, margin, elimination_order(scaled, last=0), keep_last=True)
    if factor.failed is not None or factor.rest is None:
        return Levelled(scaled, factor, margin, np.inf, np.empty(0), np.empty((problem.inputs, 0)))
    values, vectors = lowest(factor.rest, count, guess)
    # a little above the largest eigenvalue where Lanczos found it (the proof does not rely on it)
    off = factor.rest @ vectors[:, 0] - values[0] * vectors[:, 0]
    top = -float(values[0]) - margin
    if len(factor.rest) > DIRECT:
        top += 1e-9 * abs(top) + float(np.linalg.norm(off))
    # rest = -margin I - M; the level must satisfy (1 - margin) level >= M
    np.negative(factor.rest, out=factor.rest)
    factor.rest[np.diag_indices(len(factor.rest))] -= margin
    level = top / (1.0 - margin) * (1.0 + 4.0 * margin) if top > 0.0 else np.inf
    return Levelled(scaled, factor, margin, level, values, vectors)


def certify(
    problem: Problem, mu: np.ndarray, t: list[np.ndarray], attempts: int = 6, found: Levelled | None = None
) -> Certificate | None:
    """The smallest provable level for the direction (mu, t), or None when the hidden part is not strictly positive.

    mu: (n,) input weights, t: one array of positive multipliers per layer. The returned mu includes the level.
    found: what `eliminate` made of these multipliers, if it is at hand; it is used up.
    """
    if not all(np.isfinite(s).all() and (s > 0).all() for s in [mu, *t]):
        return None
    margin = first_margin(problem) if found is None else found.margin
    bump = 0.0
    for _ in range(attempts):
        here, found = found or eliminate(problem, mu, t, margin), None
        level, factor = here.level * (1.0 + bump), here.factor
        if not np.isfinite(level):
            return None
        proof = mu * level
        final = assemble(problem, proof, t)
        final.diagonal[0] = np.ones(problem.inputs)
        if not _finish(factor, level, margin, problem.inputs):
            bump = 10.0 * (bump + 1e-9)
            continue
        residual = residual_bound(final, factor, margin, forming_error(problem, proof, t))
        if 3.0 * residual <= margin:
            total_mu = float(proof.sum()) * (1.0 + gamma(len(proof))) if problem.per_input else float(proof.max())
            return Certificate(total_mu, proof, t, margin, residual)
        if not np.isfinite(residual):
            return None
        margin = 5.0 * residual
    return None


# Up to this many rows all eigenvalues are computed directly.
DIRECT = 1200


def lowest(matrix: np.ndarray, count: int, guess: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The few smallest eigenvalues and vectors of a symmetric matrix; Lanczos from `guess` (n, m) when it is large."""
    size = len(matrix)
    if size <= DIRECT:
        return lowest_of(matrix, min(size, count))
    start = np.ones(size)
    if guess is not None:
        start = guess @ np.ones(guess.shape[1]) + 1e-3 * np.linalg.norm(guess) / np.sqrt(size)
    try:
        values, vectors = eigsh(matrix, k=count, which="SA", v0=start, ncv=40, tol=1e-9, maxiter=40)
    except ArpackNoConvergence as error:
        if not len(error.eigenvalues):
            return lowest_of(matrix, count)
        values, vectors = error.eigenvalues, error.eigenvectors
    order = np.argsort(values)
    return values[order], vectors[:, order]


def _finish(factor: Factor, level: float, margin: float, inputs: int) -> bool:
    """Complete the factor with the input block once the level is known."""
    assert factor.rest is not None
    pivot = np.eye(inputs) * (1.0 - margin) - factor.rest / level
    try:
        factor.diag[0] = np.linalg.cholesky(pivot)
    except np.linalg.LinAlgError:
        return False
    root = np.sqrt(level)
    for key in list(factor.below):
        if key[0] == 0:
            factor.below[key] = factor.below[key] / root
    return True


def check(problem: Problem, mu: np.ndarray, t: list[np.ndarray]) -> bool:
    """True only if S(mu, t) >= 0 is proven from scratch: sum mu dx^2 >= |df|^2 for all slopes allowed.

    mu: (n,) including the level; t: per layer. Independent of `certify`: own assembly, other elimination order.
    """
    if not all(np.isfinite(s).all() and (s > 0).all() for s in [mu, *t]):
        return False
    scaled = assemble(problem, mu, t)
    scaled.diagonal[0] = np.ones(problem.inputs)
    order = elimination_order(scaled, last=None)
    margin = gamma(sum(scaled.sizes)) * np.sqrt(sum(scaled.sizes))
    formed = forming_error(problem, mu, t)
    for _ in range(4):
        factor = factorise(scaled, margin, order, keep_last=False)
        if factor.failed is not None:
            return False
        residual = residual_bound(scaled, factor, margin, formed)
        if residual <= margin:
            return True
        margin = 1.2 * residual
    return False
