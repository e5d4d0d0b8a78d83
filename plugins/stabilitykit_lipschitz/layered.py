"""`lipschitz` by layer-wise bounds, for a module that LipSDP cannot read or could not hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.interval import LipschitzInterval
from stabilitykit_lipschitz.layerwise import LayerReading
from stabilitykit_lipschitz.quotients import steepest_pair
from stabilitykit_lipschitz.regions import Region


def layerwise_interval(
    model: Any,
    input_shape: tuple[int, ...] | None,
    region: Region | None,
    p: int,
    q: int,
    data: np.ndarray | None,
    seed: int,
    notes: tuple[str, ...] = (),
) -> LipschitzInterval:
    """The interval from the steepest pair of inputs found to the layer-wise bound. p, q: see `pairs.NORMS`; other
    arguments as of `lipschitz`. Over all inputs the bound is proven, rounding included; on a region it is not (see
    `LayerReading.proven`), and `certified` says so.

    Raises: UnsupportedModule naming what has no rule.
    """
    reading = LayerReading(model, input_shape, region)
    upper = float(reading.table[p, q])
    pair = steepest_pair(reading, p, q, data, seed)
    if pair.value > upper:
        raise RuntimeError(
            f"the layer-wise bound {upper!r} is contradicted by two inputs with slope {pair.value!r}: an error of this "
            "program or a model that is not one function of its input; please report it"
        )
    return LipschitzInterval(
        lower=pair.value,
        upper=upper,
        sdp_dual=math.nan,
        certified=reading.proven,
        multipliers=[],
        witness_input=pair.x.reshape(reading.shape),
        rank=0,
        method="layerwise" if math.isfinite(upper) else "unbounded",
        norm=pairs.NORMS[p],
        norm_out=pairs.NORMS[q],
        witness_other=pair.y.reshape(reading.shape),
        assumptions=reading.assumptions,
        notes=(*notes, *reading.notes),
    )
