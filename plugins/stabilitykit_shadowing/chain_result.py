"""The measurements ``Sh_chain.mean`` and ``Sh_chain.max``: the shadowing constant as the authors' code finds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stabilitykit import Kind, Measurement
from stabilitykit.dynamics.digits import digits_note, digits_of
from stabilitykit.evaluation.context import Context
from stabilitykit_shadowing.chains import Chains, first_block_chains, measured

PREFIX = "Sh_chain."
REDUCTIONS: Mapping[str, Any] = {"mean": np.mean, "max": np.max}
READING = (
    "the authors' code as far as it is known: chains of the nearest unvisited images after the first block, followed "
    "by the orbit of their first image; delta of the chain with the smallest eps, eps the {} over blocks"
)


def chain_measurements(context: Context, cautions: str) -> list[Measurement]:
    """Both constants, with the chain that each is of; undefined, with the reason, where there is none.

    Arguments:
        cautions: what else to say of the sample's numbers.
    """
    trajectory = context.trajectory
    chains = None if trajectory.blind else first_block_chains(trajectory.values)
    found = []
    for name, reduce in REDUCTIONS.items():
        told = READING.format(name)
        why = ""
        if chains is None:
            why = f"all readouts coincide at depth {trajectory.blind[0]}, and a chain is compared at every depth"
        elif not len(chains):
            why = f"a chain visits {len(trajectory.values)} images, the sample has {len(trajectory)}: give more images"
        else:
            eps = reduce(chains.apart, axis=1)
            best = int(eps.argmin())
            if eps[best] > 0:
                found.append(_measurement(context, chains, name, best, float(eps[best]), told + cautions))
                continue
            why = "the smallest eps is 0: the ratio is undefined"
        found.append(_named(context, name, None, {}, f"{told}; {why}"))
    return found


def chain_again(context: Context, measurement: Measurement) -> float | None:
    """The constant from the images of its witness, run again; that no chain has a smaller eps needs all images."""
    images = measurement.witness.get("chain")
    if not images:
        return None
    rows = context.rows_of(images)
    some = np.unique(rows)
    jumps, apart = measured(context.readouts(some), np.searchsorted(some, rows)[None])
    return float(jumps.max() / REDUCTIONS[measurement.name.removeprefix(PREFIX)](apart))


def _measurement(context: Context, chains: Chains, name: str, best: int, eps: float, note: str) -> Measurement:
    images, jumps, apart = chains.images[best], chains.jumps[best], chains.apart[best]
    delta = float(jumps.max())
    about = context.describe_images(context.indices[images])
    witness = {
        "eps": eps,
        "delta": delta,
        **about,
        "chain": about["indices"],
        "jumps": jumps.tolist(),
        "distances": apart.tolist(),
    }
    digits = _digits(context, images, int(jumps.argmax()), int(apart.argmax()) + 1)
    flag = digits_note(digits, context.extraction.dtype)
    if flag:
        witness["digits"] = digits
    return _named(context, name, delta / eps, witness, note + (f"; {flag}" if flag else ""))


def _digits(context: Context, images: np.ndarray, jump: int, block: int) -> int | None:
    """Trustworthy digits of the worse of the largest jump and the largest distance; None where both are of equals."""
    trajectory = context.trajectory
    logits, rounding = trajectory.logits, 2.0**-23 if trajectory.rounded else 0.0
    pairs = (
        (logits[1, images[jump]], logits[0, images[jump + 1]]),
        (logits[block, images[0]], logits[0, images[block]]),
    )
    known = [digits_of(a, b, trajectory.space, context.extraction.dtype, rounding) for a, b in pairs]
    return min((count for count in known if count is not None), default=None)


def _named(context: Context, name: str, value: float | None, witness: Mapping[str, Any], note: str) -> Measurement:
    n = len(context.trajectory)
    return Measurement(PREFIX + name, value, Kind.ESTIMATE, n, "ratio", dict(witness), "Definition 2", note=note)
