"""The norm product: always valid, usually loose; and the allowance for rounding done while folding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.rounding import frobenius, gamma, norm_bound, times


def product_bound(network: Network, per_input: bool = False, norm: Callable[[np.ndarray], float] = norm_bound) -> float:
    """Proven upper bound by norms: Lip(state l) <= steepest slope * sum_k ||W_lk|| Lip(state k).

    per_input: input measured in the l-infinity norm, where ||W||_{inf -> 2} <= min(sqrt(n) ||W||_2, row l1 norms).
    norm: any upper bound of the spectral norm.
    """
    gains = [1.0]
    for index, layer in enumerate(network.layers, start=1):
        steepest = float(np.maximum(np.abs(layer.alpha), np.abs(layer.beta)).max(initial=0.0))
        total = sum(
            times(_norm(w, k, per_input, network.errors.get((index, k), 0.0), norm), gains[k])
            for k, w in layer.blocks.items()
        )
        gains.append(times(steepest, total) * (1 + 1e-14))
    last = len(network.layers) + 1
    return sum(
        times(_norm(c, k, per_input, network.errors.get((last, k), 0.0), norm), gains[k])
        for k, c in network.outputs.items()
    ) * (1 + 1e-13)


def _norm(w: np.ndarray, state: int, per_input: bool, error: float, norm: Callable[[np.ndarray], float]) -> float:
    bound = norm(w)
    if state == 0 and per_input:
        columns = w.shape[1]
        rows = np.abs(w).sum(1)
        bound = min(np.sqrt(columns) * bound, frobenius(rows) * (1 + gamma(columns)))
        error *= np.sqrt(columns)
    return (bound + error) * (1 + 1e-14)


def fold_slack(
    network: Network,
    errors: dict[tuple[int, int], float],
    per_input: bool,
    norm: Callable[[np.ndarray], float] = norm_bound,
) -> float:
    """How much the constant can change when each block moves by its Frobenius error bound.

    The supremum over all slope matrices of the Jacobian's norm moves by at most
    sum (norms after the block) * error * (norms before the block), all norms with slopes included.
    norm: any upper bound of the spectral norm.
    """
    if not errors:
        return 0.0
    last = len(network.layers) + 1
    base = float(np.sqrt(network.inputs)) if per_input else 1.0
    before = [base]
    steep = []
    for index, layer in enumerate(network.layers, start=1):
        steepest = float(np.maximum(np.abs(layer.alpha), np.abs(layer.beta)).max(initial=0.0))
        steep.append(steepest)
        before.append(
            times(
                steepest, sum(times(norm(w) + errors.get((index, k), 0.0), before[k]) for k, w in layer.blocks.items())
            )
        )
    after = [0.0] * (last + 1)
    after[last] = 1.0
    for k, c in network.outputs.items():
        after[k] += norm(c) + errors.get((last, k), 0.0)
    for index in range(len(network.layers), 0, -1):
        for k, w in network.layers[index - 1].blocks.items():
            after[k] += times(after[index], steep[index - 1], norm(w) + errors.get((index, k), 0.0))
    total = 0.0
    for (index, k), error in errors.items():
        gain = 1.0 if index == last else times(steep[index - 1], after[index])
        total += times(gain, error, before[k])
    return total * (1 + 1e-10)
