"""The proven upper bound of a network by one method: LipSDP per neuron or per layer, or the norm product."""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np

from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import fold_slack, product_bound
from stabilitykit_lipschitz.proofs import REPAIRED, repaired, solve_certified
from stabilitykit_lipschitz.reduce import Problem, prepare, substitute
from stabilitykit_lipschitz.regions import Norm
from stabilitykit_lipschitz.rounding import norm_bound
from stabilitykit_lipschitz.units import constant, dual_constant, original_mu, original_multipliers


class Upper:
    """A proven bound on the way to becoming an interval."""

    def __init__(
        self,
        bound: float,
        method: str,
        dual: float = math.nan,
        rank: int = 0,
        status: str = "",
        multipliers: list[np.ndarray] | None = None,
        mu: np.ndarray | None = None,
        rho: float = math.nan,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.bound, self.method, self.dual, self.rank, self.status = bound, method, dual, rank, status
        self.multipliers, self.mu, self.notes = multipliers or [], mu, notes
        self.rho = rho

    def noting(self, note: str) -> Upper:
        """The same proof, with one more remark."""
        found = copy(self)
        found.notes = (*(n for n in self.notes if n != note), note)
        return found

    def raised(self, bound: float, note: str) -> Upper:
        """A larger bound, which the same proof holds all the more."""
        found = self.noting(note)
        found.bound = bound
        return found


def upper(
    network: Network,
    per_input: bool,
    method: str,
    tol: float,
    solver: str,
    seconds: float,
    seed: int,
    norm: Norm = norm_bound,
) -> Upper:
    steep = [layer for layer in network.layers if not np.isfinite([layer.alpha, layer.beta]).all()]
    if steep:
        reason = f"{steep[0].activation.name} at {steep[0].name!r} has no largest slope: it jumps or grows ever steeper"
        return Upper(math.inf, "unbounded", notes=(reason,))
    if method == "product":
        return product_of(network, per_input, norm)
    parts, outputs, errors = substitute(network, method == "layer")
    slack = fold_slack(network, errors, per_input)
    problem = prepare(network, per_input, method == "layer", slack, (parts, outputs))
    if problem.empty():
        return Upper(problem.slack, "sdp" if method == "auto" else method, 0.0, multipliers=_pinned(network))
    if method == "cvxpy":
        found = _by_cvxpy(problem, network, solver, tol, seconds)
    else:
        found = solve_certified(problem, tol, seconds, seed)
    coarser = None
    if method in ("auto", "sdp") and (found is None or found[3] == REPAIRED):
        coarser = _layer_form(network, per_input, tol, seconds, seed)
    if found is None:
        return coarser or Upper(
            product_bound(network, per_input, norm),
            "product",
            notes=("no matrix certificate could be proven; the norm product is reported instead",),
        )
    certificate, dual, rank, status = found
    bound = constant(problem, certificate)
    if coarser is not None and coarser.bound < bound:
        return coarser
    if status == REPAIRED:
        product = product_of(network, per_input, norm)
        if product.bound < bound:
            return product.noting("out of work, and what it had proven is above the norm product")
    name = {"cvxpy": f"cvxpy-{solver.lower()}", "layer": "layer"}.get(method, "sdp")
    multipliers = original_multipliers(network, problem, certificate)
    mu = original_mu(network, problem, certificate) if per_input else None
    return Upper(
        bound,
        name,
        dual_constant(problem, dual),
        rank,
        status,
        multipliers,
        mu,
        _ldexp(certificate.squared, 2 * problem.exponent),
    )


def _layer_form(network: Network, per_input: bool, tol: float, seconds: float, seed: int) -> Upper | None:
    """The bound with one multiplier per layer, which is found where time is short; None where that fails as well."""
    found = upper(network, per_input, "layer", tol, "", seconds, seed)
    if found.method != "layer":
        return None
    found.notes = (*found.notes, "out of work before one multiplier per neuron was proven: one per layer")
    return found


def product_of(network: Network, per_input: bool, norm: Norm = norm_bound) -> Upper:
    """The norm product; norm: any upper bound of the spectral norm."""
    return Upper(product_bound(network, per_input, norm), "product")


def with_layers(found: Upper, network: Network, per_input: bool, method: str, tol: float, *how: Any) -> Upper:
    """LipSDP-Layer's bound in place of ``found``, if that is smaller: only where the solver did not get to ``tol``, as
    its optimum is never below LipSDP-Neuron's."""
    if method not in ("auto", "sdp") or found.bound <= found.dual * (1.0 + 2.0 * tol):
        return found
    if found.method != "sdp" or found.status == REPAIRED:
        return found  # `upper` has tried it
    layers = upper(network, per_input, "layer", tol, *how)
    return layers if layers.bound < found.bound else found


def no_worse(found: Upper, local: Network, whole: Network, per_input: bool, method: str, *how: Any) -> Upper:
    """A local bound that is above neither the norm product, LipSDP-Layer where there was no time for more, nor the
    global bound."""
    found = with_layers(found, local, per_input, method, *how)
    product = product_of(local, per_input)
    if product.bound < found.bound:
        found = product
    everywhere = upper(whole, per_input, method, *how)
    if everywhere.bound < found.bound:
        everywhere.notes = (*everywhere.notes, "the global bound, which is below the local one")
        return everywhere
    return found


def _by_cvxpy(problem: Problem, network: Network, solver: str, tol: float, seconds: float) -> tuple | None:
    from stabilitykit_lipschitz.cvxpy_solver import propose

    try:
        proposal = propose(problem, solver, min(tol, 1e-6), seconds)
    except RuntimeError:
        return None
    certificate = repaired(problem, proposal.mu, proposal.t)
    status = f"{proposal.status}, value {dual_constant(problem, proposal.level):.10g} (unproven)"
    return None if certificate is None else (certificate, math.nan, 0, status)


def _ldexp(value: float, exponent: int) -> float:
    return math.ldexp(value, exponent) if math.frexp(value)[1] + exponent < 1024 else math.inf


def _pinned(network: Network) -> list[np.ndarray]:
    return [np.full(layer.size, np.inf) for layer in network.layers]
