"""`lipschitz` for pairs of norms other than l2 or l-infinity to l2."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from stabilitykit_lipschitz import norm_pairs, pairs
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.regions import Region


def other_norms(
    network: Network,
    p: int,
    q: int,
    region: Region | None,
    data: np.ndarray | None,
    into_l2: Callable[[bool], tuple[float, str]] | None,
    search_seconds: float,
    seed: int,
) -> LipschitzInterval:
    """The least of the bounds that hold for a pair of norms.

    Arguments:
        network: with the slopes of the region.
        p, q: positions of the norms in `pairs.NORMS`.
        region, data, search_seconds, seed: as of `lipschitz`.
        into_l2: (bound, method) from l2 (False) or l-infinity (True) to l2, softmax included; None to leave out all
            but the norms of the layers.
    """
    tables = {"layer norms": norm_pairs.layer_table(network)}
    if into_l2 is not None:
        sloped = norm_pairs.slope_table(network)
        if sloped is not None:
            tables["slope intervals"] = sloped
        for start in (1, 2) if p == 2 else (1,):
            bound, method = into_l2(start == 2)
            tables[f"{method} from {pairs.name_of(pairs.NORMS[start])} to l2"] = norm_pairs.converted(
                bound, start, network
            )
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
