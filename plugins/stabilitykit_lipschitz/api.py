"""`lipschitz`: an interval that contains the Lipschitz constant of a fully connected head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.lower import Witness, search
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.regions import Ball, Box, Data, Region, tighten
from stabilitykit_lipschitz.rounding import times
from stabilitykit_lipschitz.upper import Upper, no_worse, upper

if TYPE_CHECKING:
    from stabilitykit_lipschitz.extract import Reading

METHODS = ("auto", "sdp", "cvxpy", "layer", "product", "exact", "layerwise")


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
            return no_worse(found, network, whole, per_input, *how)
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
