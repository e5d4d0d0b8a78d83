"""`lipschitz` for pairs of norms other than l2 or l-infinity to l2."""

from __future__ import annotations

import math

import numpy as np

from stabilitykit_lipschitz import api, norm_pairs, pairs
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.regions import Region


def other_norms(
    network: Network,
    whole: Network,
    p: int,
    q: int,
    region: Region | None,
    data: np.ndarray | None,
    method: str,
    tol: float,
    solver: str,
    seconds: float,
    search_seconds: float,
    seed: int,
) -> LipschitzInterval:
    """The least of the bounds that hold for a pair of norms."""
    tables = {"layer norms": norm_pairs.layer_table(network)}
    if method != "product":
        sloped = norm_pairs.slope_table(network)
        if sloped is not None:
            tables["slope intervals"] = sloped
        for start in (1, 2) if p == 2 else (1,):
            found = api.upper(network, start == 2, method, tol, solver, seconds, seed)
            if network is not whole and not any(layer.shared for layer in whole.layers):
                found = api.no_worse(found, network, whole, start == 2, method, tol, solver, seconds, seed)
            bound = found.bound * network.factor * (1.0 + 4e-16)
            way = f"{found.method} from {pairs.name_of(pairs.NORMS[start])} to l2"
            tables[way] = norm_pairs.converted(bound, start, network)
    best = min(tables, key=lambda name: float(tables[name][p, q]))
    upper = float(tables[best][p, q])
    with np.errstate(over="ignore", invalid="ignore"):
        witness = norm_pairs.search_pair(network, region, data, p, q, seed, search_seconds)
    return LipschitzInterval(
        lower=witness.value,
        upper=upper,
        sdp_dual=math.nan,
        certified=True,
        multipliers=[],
        witness_input=witness.x.reshape(network.input_shape or (-1,)),
        rank=0,
        method=best if math.isfinite(upper) else "unbounded",
        norm=pairs.NORMS[p],
        norm_out=pairs.NORMS[q],
        assumptions=network.assumptions,
    )
