"""`verify`: what given multipliers prove about a model, checked from the model alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stabilitykit_lipschitz.api import is_infinity, read
from stabilitykit_lipschitz.certificate import Certificate, check
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import fold_slack
from stabilitykit_lipschitz.reduce import prepare, substitute
from stabilitykit_lipschitz.regions import Ball, Box, Region, tighten
from stabilitykit_lipschitz.rounding import gamma
from stabilitykit_lipschitz.units import constant


def verify(
    model: Any,
    multipliers: list[np.ndarray],
    rho: float,
    *,
    norm: float | str = 2,
    region: Region | None = None,
    input_shape: tuple[int, ...] | None = None,
    input_multipliers: np.ndarray | None = None,
) -> float | None:
    """The Lipschitz bound that these multipliers prove, checked from the model alone, or None if they prove none.

    Arguments as returned by `lipschitz` (multipliers per hidden layer, rho, input_multipliers for norm=inf) for the
    same model and region. No solver runs. Errors: ValueError for multipliers of another shape than the model's layers.
    """
    per_input = is_infinity(norm)
    whole = model if isinstance(model, Network) else read(model, input_shape).network
    network = tighten(whole, region)
    given = [np.shape(t) for t in multipliers]
    if given != [(layer.size,) for layer in network.layers]:
        raise ValueError(
            f"expected one array of multipliers per hidden layer, sizes "
            f"{[layer.size for layer in network.layers]}; got shapes {given} (the norm product has none)"
        )
    if per_input and (input_multipliers is None or np.shape(input_multipliers) != (network.inputs,)):
        raise ValueError(f"norm=inf: expected input_multipliers of shape ({network.inputs},)")
    proven = _proven(network, multipliers, rho, input_multipliers if per_input else None)
    if proven is None and isinstance(region, (Ball, Box)) and not any(layer.shared for layer in whole.layers):
        # a global bound holds on every region
        return _proven(whole, multipliers, rho, input_multipliers if per_input else None)
    return proven


def _proven(network: Network, multipliers: list[np.ndarray], rho: float, weights: np.ndarray | None) -> float | None:
    """The bound that the multipliers prove for these slopes, or None; weights: mu for the l-infinity norm."""
    per_input = weights is not None
    if not all(np.isfinite([layer.alpha, layer.beta]).all() for layer in network.layers):
        return None
    parts, outputs, errors = substitute(network, False)
    problem = prepare(network, per_input, False, fold_slack(network, errors, per_input), (parts, outputs))
    if problem.empty():
        return problem.slack * network.factor
    t = [
        np.ldexp(np.asarray(multipliers[p.origin], dtype=np.float64)[p.kept], 2 * (p.exponent - problem.exponent))
        for p in problem.parts
    ]
    if not 0 < rho < math.inf:
        return None
    squared = math.ldexp(rho, -2 * problem.exponent)
    if weights is not None:
        mu = np.ldexp(np.asarray(weights)[problem.used], -2 * problem.exponent)
    else:
        mu = np.full(problem.inputs, squared)
    if not check(problem, mu, t):
        return None
    if per_input:
        squared = float(mu.sum()) * (1.0 + gamma(len(mu)))
    return constant(problem, Certificate(squared, mu, t, 0.0, 0.0)) * network.factor
