"""A solved problem back in the network's own units: scales undone, rounded to the safe side, neurons in their order."""

from __future__ import annotations

import math

import numpy as np

from stabilitykit_lipschitz.certificate import Certificate
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.reduce import Problem


def constant(problem: Problem, certificate: Certificate) -> float:
    """The proven Lipschitz constant in the original units, rounded up."""
    root = math.sqrt(certificate.squared) * (1.0 + 1e-15)
    return math.ldexp(float(np.nextafter(root, np.inf)), problem.exponent) * (1 + 1e-15) + problem.slack


def dual_constant(problem: Problem, dual: float) -> float:
    """Root of a dual value in the original units, rounded down by more than its evaluation can be off."""
    return math.nan if math.isnan(dual) else math.ldexp(math.sqrt(max(dual, 0.0)) * (1.0 - 1e-12), problem.exponent)


def original_multipliers(network: Network, problem: Problem, certificate: Certificate) -> list[np.ndarray]:
    """Multipliers in the network's own coordinates and order."""
    readers: list[dict[int, np.ndarray]] = [*(layer.blocks for layer in network.layers), network.outputs]
    result = []
    for index, layer in enumerate(network.layers):
        used = np.zeros(layer.size, dtype=bool)
        for reader in readers:
            if index + 1 in reader:
                used |= (reader[index + 1] != 0).any(0)
        result.append(np.where(used, np.inf, 0.0))
    for part, t in zip(problem.parts, certificate.t):
        result[part.origin][part.kept] = np.ldexp(t, 2 * (problem.exponent - part.exponent))
    return result


def original_mu(network: Network, problem: Problem, certificate: Certificate) -> np.ndarray:
    """Multipliers of the inputs, (inputs,), in the network's own coordinates and order; 0 for inputs not used."""
    mu = np.zeros(network.inputs)
    mu[problem.used] = np.ldexp(certificate.mu, 2 * problem.exponent)
    return mu
