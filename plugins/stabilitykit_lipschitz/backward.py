"""Multipliers that always prove something, by one pass from the output to the input: where no solver had time for more.

Eliminating the layers from the last one on, layer l needs 2 t_l above what the layers after it left on its block. One
number per layer, that block's largest eigenvalue times (1 + s) / 2 with s = |alpha + beta| / (beta - alpha), is enough,
and what it leaves on the layer before is at most its steepest slope squared times that eigenvalue: the level is never
above the squared product of norms but for the floor of s, and far below where the layers' directions do not meet.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from stabilitykit_lipschitz.eigen import lowest_of
from stabilitykit_lipschitz.reduce import Problem

# Slopes of opposite sign need s = 0, which would leave the block singular.
LEAST = 1e-3


def backward(problem: Problem) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """(mu (n,), t per layer (N,)), all positive, for `certify`; None where the numbers leave float64's range.

    mu is 1 for the l2 norm. For l-infinity what the layers leave on the input, M, needs diag(mu) >= M with a small sum
    of mu: its rows' sums of absolute values are enough (diagonal dominance), and so is its largest eigenvalue in every
    coordinate; `certify` scales the smaller of them down as far as it can.
    """
    left: dict[tuple[int, int], np.ndarray] = {}  # lower triangle of what is left on the states before
    for a, ca in problem.outputs.items():
        for b, cb in problem.outputs.items():
            if b <= a:
                left[a, b] = -ca.T @ cb
    result = [np.zeros(0)] * len(problem.parts)
    for level in range(len(problem.parts), 0, -1):
        part = problem.parts[level - 1]
        own = left.pop((level, level), np.zeros((part.size, part.size)))
        if not np.isfinite(own).all():
            return None
        largest = -float(lowest_of(own, 1)[0][0])
        away = np.maximum(part.beta - part.alpha, 1e-300)
        share = 0.5 * (1.0 + np.maximum(np.abs(part.alpha + part.beta) / away, LEAST))
        t = max(largest * (1.0 + 1e-9), 1e-290) * (np.full(part.size, share.max()) if part.shared else share)
        result[level - 1] = t
        cross = {k: -(t * (part.alpha + part.beta))[:, None] * w for k, w in part.blocks.items()}
        for k in [k for (i, k) in left if i == level]:
            cross[k] = cross.get(k, 0.0) + left.pop((level, k))
        try:
            root = cholesky(own + np.diag(2.0 * t), lower=True, check_finite=False)
        except (LinAlgError, ValueError):
            return None
        through = {k: solve_triangular(root, c, lower=True, check_finite=False) for k, c in cross.items()}
        bent = 2.0 * t * part.alpha * part.beta
        for a in sorted(through):
            for b in sorted(through):
                if b > a:
                    continue
                change = -through[a].T @ through[b]
                if bent.any() and a in part.blocks and b in part.blocks:
                    change += (part.blocks[a].T * bent) @ part.blocks[b]
                left[a, b] = left[a, b] + change if (a, b) in left else change
    if not all(np.isfinite(t).all() for t in result):
        return None
    mu = np.ones(problem.inputs)
    if problem.per_input:
        mu = _weights(-left.get((0, 0), np.zeros((problem.inputs, problem.inputs))))
    return (mu, result) if np.isfinite(mu).all() else None


def _weights(left: np.ndarray) -> np.ndarray:
    """mu (n,) with diag(mu) >= left (n, n): see `backward`."""
    if not np.isfinite(left).all():
        return np.full(len(left), np.nan)
    rows = np.abs(left).sum(1)
    rows = np.maximum(rows, 1e-10 * rows.max(initial=0.0) + 1e-290)
    root = np.sqrt(rows)
    scaled = -float(lowest_of(-left / root / root[:, None], 1)[0][0]) * rows.sum()
    even = -float(lowest_of(-left, 1)[0][0]) * len(left)
    return rows if scaled <= even else np.ones(len(left))
