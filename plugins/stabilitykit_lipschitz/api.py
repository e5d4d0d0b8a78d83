"""`lipschitz`: an interval that contains the Lipschitz constant of a fully connected head."""

from __future__ import annotations

import math
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.backward import backward
from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.certificate import Certificate, certify, check
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.lower import Witness, search
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import fold_slack, product_bound
from stabilitykit_lipschitz.reduce import Problem, prepare, substitute
from stabilitykit_lipschitz.regions import Ball, Box, Data, Norm, Region, tighten
from stabilitykit_lipschitz.rounding import gamma, norm_bound, times
from stabilitykit_lipschitz.solver import solve
from stabilitykit_lipschitz.units import constant, dual_constant, original_mu, original_multipliers

if TYPE_CHECKING:
    from stabilitykit_lipschitz.extract import Reading

METHODS = ("auto", "sdp", "cvxpy", "layer", "product", "exact", "layerwise")
# Status of a certificate whose multipliers had to be damped.
REPAIRED = "repaired"
# Squared bounds so many times above the dual value are compared with what needs no solver.
HOPELESS = 1.1


def lipschitz(
    model: Any,
    norm: float | str = 2,
    method: str = "auto",
    region: Region | None = None,
    tol: float = 1e-4,
    *,
    input_shape: tuple[int, ...] | None = None,
    data: Any = None,
    solver: str = "CLARABEL",
    seconds: float = 60.0,
    search_seconds: float = 2.0,
    seed: int = 0,
    norm_out: float | str = 2,
) -> LipschitzInterval:
    """Bound sup ||f(x) - f(y)||_q / ||x - y||_p from both sides.

    Arguments:
        model: torch module (read in eval mode, weights promoted to float64) or a `Network`.
        norm: 1, 2 or inf, the norm p on the input. norm_out: the norm q on the output. LipSDP bounds from l2 or
            l-infinity to l2; other pairs take the least of that bound by equivalence of norms, norms layer by layer,
            and the norm of the matrices that slope intervals leave possible.
        method: "auto" and "sdp": LipSDP-Neuron by our own solver; "layer": LipSDP-Layer (one multiplier per layer);
            "cvxpy": LipSDP-Neuron by `solver` ("CLARABEL" or "SCS"); "product": norm product; "exact": branch and
            bound for one hidden piecewise linear layer; "layerwise": norms layer by layer, for more kinds of layers,
            which "auto" takes where LipSDP has no rule. Only checked certificates are returned, but for "layerwise" on
            a region, whose rounding is not proven: ``certified`` is False then.
        region: Ball, Box or Data for a local constant; None for the global one.
        tol: relative accuracy asked of the bound (against the SDP's optimum; for "exact" against the true constant).
        input_shape: shape of one sample where it cannot be read off the first module.
        data: optional inputs (B, ...) from which the search for a large Jacobian starts.
        seconds: work allowed for the upper bound, in nominal processor seconds (6e9 multiplications each), so that
            equal calls give equal results; only cvxpy's solvers are stopped by the clock.
        search_seconds: work allowed for the lower bound, likewise; all of it is used unless the lower bound comes
            within 1e-6 of the upper one, and more never gives a lower value.

    Returns a LipschitzInterval. Errors: ValueError for an unknown method, norm or region; UnsupportedModule (a
    ValueError) naming a module without a rule.
    """
    p, q = pairs.index_of(norm), pairs.index_of(norm_out, "norm_out")
    if method == "network":
        raise ValueError(
            "LipSDP-Network's coupled multipliers are not valid: they fall below the true constant on "
            "small random networks; expected one of " + ", ".join(METHODS)
        )
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; expected one of {', '.join(METHODS)}")
    if not tol > 0:
        raise ValueError(f"tol = {tol}; expected a positive relative tolerance")
    if method == "exact" and (p == 0 or q != 1):
        raise ValueError("method 'exact' is for norm 2 or inf and norm_out 2; expected another method or other norms")
    if data is None and isinstance(region, Data):
        data = region.inputs
    points = None if data is None else as_array(data)
    reading = None
    if isinstance(model, Network):
        if method == "layerwise":
            raise ValueError("method 'layerwise' reads a torch module; this is a Network: expected method='product'")
        whole = model
    else:
        found = _readable(model, method, input_shape, region, p, q, points, seed)
        if isinstance(found, LipschitzInterval):
            return found
        reading, whole = found, found.network
    check_finite(whole)
    network = tighten(whole, region)
    how = (method, tol, solver, seconds, seed)

    def bounded(per_input: bool) -> Upper:
        found = upper(network, per_input, *how)
        if isinstance(region, (Ball, Box)) and not any(layer.shared for layer in network.layers):
            return _no_worse(found, network, whole, per_input, *how)
        return found

    if p == 0 or q != 1:
        from stabilitykit_lipschitz.other_norms import other_norms

        def into_l2(per_input: bool) -> tuple[float, str]:
            found = bounded(per_input)
            return times(found.bound, network.factor) * (1.0 + 4e-16), found.method

        into = None if method == "product" else into_l2
        interval = other_norms(network, p, q, region, points, into, search_seconds, seed)
        if reading is not None and interval.witness_input is not None:
            reading.compare(np.ravel(interval.witness_input)[None])
        return interval
    per_input = p == 2
    if method == "exact":
        from stabilitykit_lipschitz.exact import exact_constant

        return exact_constant(network, region, points, per_input, tol, seconds, seed)
    bound = bounded(per_input)
    with np.errstate(over="ignore", invalid="ignore"):  # weights near float64's limits: such points are passed over
        ceiling = bound.bound * network.factor
        witness = search(network, region, points, per_input, seed, search_seconds, ceiling=ceiling)
    if reading is not None:
        reading.compare(seen(witness, region, points))
    return assemble(network, bound, witness, per_input)


def _readable(
    model: Any,
    method: str,
    input_shape: tuple[int, ...] | None,
    region: Region | None,
    p: int,
    q: int,
    data: np.ndarray | None,
    seed: int,
) -> Reading | LipschitzInterval:
    """The module as a network, or its layer-wise bound where that was asked for or LipSDP has no rule for the module.

    Raises: UnsupportedModule with both reasons where there is neither.
    """
    from stabilitykit_lipschitz.layered import layerwise_interval
    from stabilitykit_lipschitz.trace import Contradicted, UnsupportedModule

    if method == "layerwise":
        return layerwise_interval(model, input_shape, region, p, q, data, seed)
    try:
        return read(model, input_shape)
    except UnsupportedModule as error:
        if method != "auto" or isinstance(error, Contradicted) or isinstance(region, Data):
            raise
        reason = str(error)
        try:
            note = f"layer by layer, as LipSDP does not read it: {reason.split(': expected')[0]}"
            return layerwise_interval(model, input_shape, region, p, q, data, seed, notes=(note,))
        except ValueError as other:
            told = reason if str(other) == reason else f"{reason} (layer by layer: {other})"
            raise UnsupportedModule(told) from error


def seen(witness: Witness, region: Region | None, data: np.ndarray | None) -> np.ndarray:
    """Inputs that matter to the caller: the witness, some of the region, some of the data, (B, n)."""
    rows = [witness.x[None]]
    if isinstance(region, (Ball, Box)):
        rows.append(region.sample(8, np.random.default_rng(0)))
    if data is not None:
        rows.append(data.reshape(len(data), -1)[:32])
    return np.concatenate(rows)


def is_infinity(norm: float | str) -> bool:
    if norm in (2, 2.0, "2"):
        return False
    if norm in ("inf", float("inf")):
        return True
    raise ValueError(f"norm = {norm!r}; expected 2 or inf (the norm of the input)")


def read(model: Any, input_shape: tuple[int, ...] | None) -> Reading:
    from stabilitykit_lipschitz.extract import Reading

    return Reading(model, input_shape)


def as_array(data: Any) -> np.ndarray:
    if hasattr(data, "detach"):
        data = data.detach().cpu().double().numpy()
    return np.asarray(data, dtype=np.float64)


def check_finite(network: Network) -> None:
    for layer in network.layers:
        for w in [*layer.blocks.values(), layer.bias]:
            if not np.isfinite(w).all():
                raise ValueError(f"the weights before layer {layer.name!r} are not finite; expected finite numbers")
    for w in [*network.outputs.values(), network.offset]:
        if not np.isfinite(w).all():
            raise ValueError("the output layer has weights that are not finite; expected finite numbers")


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


def _no_worse(found: Upper, local: Network, whole: Network, per_input: bool, method: str, *how: Any) -> Upper:
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


def solve_certified(problem: Problem, tol: float, seconds: float, seed: int) -> tuple | None:
    """(certificate, dual value, rank, status) from our own solver; a larger safety share where the proof fails."""
    budget = Budget(seconds)
    best = None
    for share in (1.0, 10.0, 100.0):
        solution = solve(problem, tol, seed, budget=budget, widen=share)
        if not np.isfinite(solution.level):
            continue
        certificate = certify(problem, solution.mu, solution.t, found=solution.eliminated)
        if certificate is not None:
            if best is None or certificate.squared < best[0].squared:
                best = (certificate, solution.dual, solution.rank, "solved")
            if certificate.squared <= solution.dual * (1 + 2 * tol):
                break
        if budget.is_over:
            break
    if best is None:
        # out of time before the multipliers were feasible: damp them until some proof exists
        certificate = repaired(problem, solution.mu, solution.t)
        best = None if certificate is None else (certificate, solution.dual, solution.rank, REPAIRED)
    if best is None or best[0].squared > HOPELESS * solution.dual:
        certificate = quickly(problem)
        if certificate is not None and (best is None or certificate.squared < best[0].squared):
            best = (certificate, solution.dual, solution.rank, REPAIRED)
    return best


def quickly(problem: Problem) -> Certificate | None:
    """What one pass over the layers proves, without a solver; None for numbers out of range."""
    found = backward(problem)
    return None if found is None else certify(problem, *found)


def _by_cvxpy(problem: Problem, network: Network, solver: str, tol: float, seconds: float) -> tuple | None:
    from stabilitykit_lipschitz.cvxpy_solver import propose

    try:
        proposal = propose(problem, solver, min(tol, 1e-6), seconds)
    except RuntimeError:
        return None
    certificate = repaired(problem, proposal.mu, proposal.t)
    status = f"{proposal.status}, value {dual_constant(problem, proposal.level):.10g} (unproven)"
    return None if certificate is None else (certificate, math.nan, 0, status)


def repaired(problem: Problem, mu: np.ndarray, t: list[np.ndarray]) -> Certificate | None:
    """A certificate for multipliers that may be slightly infeasible: layers are damped geometrically until one is
    found (exact for slopes [0, 1], a search elsewhere)."""
    best = None
    for exponent in (None, -9, -8, -7, -6, -5, -4, -3, -2, -1, -0.3):
        ratio = 1.0 if exponent is None else 1.0 - 10.0**exponent
        certificate = certify(problem, mu, [s * ratio**level for level, s in enumerate(t, start=1)])
        if certificate is not None:
            if best is not None and certificate.squared >= best.squared:
                break
            best = certificate
    return best


def _ldexp(value: float, exponent: int) -> float:
    return math.ldexp(value, exponent) if math.frexp(value)[1] + exponent < 1024 else math.inf


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


def _pinned(network: Network) -> list[np.ndarray]:
    return [np.full(layer.size, np.inf) for layer in network.layers]


def assemble(network: Network, found: Upper, witness: Witness, per_input: bool) -> LipschitzInterval:
    factor = network.factor
    upper = times(found.bound, factor) * (1.0 + 4e-16 if factor not in (1.0, 0.5) else 1.0)
    return LipschitzInterval(
        lower=witness.value,
        upper=upper,
        sdp_dual=found.dual * factor,
        certified=True,
        multipliers=found.multipliers,
        witness_input=witness.x.reshape(network.input_shape or (-1,)),
        rank=found.rank,
        method=found.method,
        norm=math.inf if per_input else 2.0,
        input_multipliers=found.mu,
        solver_status=found.status,
        assumptions=network.assumptions,
        notes=found.notes,
        rho=found.rho,
    )
