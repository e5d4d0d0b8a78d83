"""Certified radii of the decisions at every depth: one pass over the images for each part of the readouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from stabilitykit.dynamics.readout import state_vector
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz import parts
from stabilitykit_lipschitz.layered_margins import LayeredMargins
from stabilitykit_lipschitz.margins import MarginBounds, certified_margins, certified_radii
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.readouts import normalises, readouts_of
from stabilitykit_lipschitz.whole_readout import several_parts, shared, whole_readout

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State


@dataclass
class Radii:
    """Certified radii of N images at depths 0..T; NaN at depths without a bound.

    Attributes:
        radius: float64 (T+1, N), l2 in state space, rounded down; 0 where nothing is certified.
        runner_up: int64 (T+1, N), the class that comes nearest to taking the decision over.
        margin: float64 (T+1, N), lower bound of g_a - g_b for that class b.
        bound: float64 (T+1, N), upper bound of Lip(g_a - g_b).
        length: float64 (T+1, N), ||h_t||.
        decided: int64 (T+1, N), the decisions of the trajectory.
        methods: how bounds were found, by depth; reasons: why there is none, by depth.
    """

    decided: np.ndarray
    radius: np.ndarray = field(init=False)
    runner_up: np.ndarray = field(init=False)
    margin: np.ndarray = field(init=False)
    bound: np.ndarray = field(init=False)
    length: np.ndarray = field(init=False)
    methods: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.decided.shape
        self.radius, self.margin, self.bound, self.length = (np.full(shape, np.nan) for _ in range(4))
        self.runner_up = np.zeros(shape, dtype=np.int64)

    @property
    def depths(self) -> list[int]:
        """Depths that have radii."""
        return sorted(self.methods)

    def linear(self, depth: int) -> bool:
        """Are the radii of ``depth`` exact distances to the decision boundary (up to rounding, downwards)?"""
        return self.methods.get(depth, "").startswith("linear")

    def order(self, depth: int) -> np.ndarray:
        """int64 (N,): images from the smallest radius to the largest; of equal ones the smallest margin first."""
        return np.lexsort((self.margin[depth], self.radius[depth]))


@dataclass(frozen=True)
class Bounded:
    """A readout: the depths it serves, its network, and Lip(g_a - g_b).

    network: None where it is bounded layer by layer. bounds: None where there is no global bound.
    """

    depths: tuple[int, ...]
    network: Network | None
    bounds: MarginBounds | LayeredMargins | None

    def measure(self, states: np.ndarray, decided: np.ndarray) -> tuple[np.ndarray, ...]:
        """(radius, runner-up, margin, bound), (B,) each, of ``states`` (B, n) that are decided as ``decided`` (B,)."""
        assert self.bounds is not None
        margins = certified_margins(*self.bounds.logits(states), decided)
        rows = np.stack([self.bounds.of(int(a)) for a in decided])
        radius, runner_up = certified_radii(margins, rows)
        chosen = np.arange(len(states)), runner_up
        return radius, runner_up, margins[chosen], rows[chosen]


def measured_radii(context: Context, found: Radii, seconds: float, tol: float) -> Iterator[list[Bounded]]:
    """Fill ``found`` with the radii of every image at every depth, some readouts at a time.

    Arguments:
        found: holds the decisions.
        seconds: nominal processor seconds allowed for the bounds of one readout.
        tol: relative accuracy asked of a certificate.

    Returns:
        the readouts that have been measured, one part after another; what is not used at once is not kept.
    """

    unread: dict[int, str] = {}

    def missing(depths: Sequence[int], reason: str) -> None:
        unread.update(dict.fromkeys(depths, reason))

    for networks in parts.networks_of(context, readouts_of(context), missing):
        bounded = []
        for depths, network in networks:
            bounds: MarginBounds | None = None
            try:
                bounds = margin_bounds(network, np.unique(found.decided[list(depths)]), seconds, tol, context.seed)
                found.methods.update(dict.fromkeys(depths, bounds.method))
            except ValueError as error:
                found.reasons.update(dict.fromkeys(depths, str(error)))
            bounded.append(Bounded(depths, network, bounds))
        _pass(context, bounded, found)
        yield bounded
    found.reasons.update(unread)
    for part in layered(context, found, unread):
        _pass(context, part, found)
        yield part


def layered(context: Context, found: Radii, unread: Mapping[int, str]) -> Iterator[list[Bounded]]:
    """The readouts of ``unread`` depths (with the reason for each) bounded layer by layer, in parts of up to
    :data:`parts.KEPT_BYTES` of weights."""
    several = several_parts(context) if unread else set()
    bounded: list[Bounded] = []
    size = 0
    weights = sum(8 * p.numel() for p in context.model.module.parameters())
    for depths in shared(context, [t for t in unread if t not in several]):
        try:
            bounds = LayeredMargins(whole_readout(context, depths[0]), tuple(context.model.shape_at(depths[0])))
        except ValueError as error:
            told = f"{unread[depths[0]]}; layer by layer: {str(error).partition('; expected')[0]}"
            found.reasons.update(dict.fromkeys(depths, told))
            continue
        bounds.prepare(np.unique(found.decided[list(depths)]))
        found.methods.update(dict.fromkeys(depths, bounds.method))
        for t in depths:
            found.reasons.pop(t)
        bounded.append(Bounded(depths, None, bounds))
        size += weights
        if size > parts.KEPT_BYTES:
            yield bounded
            bounded, size = [], 0
    if bounded:
        yield bounded


def margin_bounds(network: Network, decided: np.ndarray, seconds: float, tol: float, seed: int) -> MarginBounds:
    """Lip(g_a - g_b) of one readout for all a of ``decided``, integers (A,).

    Raises:
        ValueError: it has no global bound.
    """
    if normalises(network):
        raise ValueError("a normalisation layer has no useful global Lipschitz constant, and so no radius")
    bounds = MarginBounds(network, tol=tol, seconds=seconds, seed=seed)
    bounds.prepare(decided)
    return bounds


@torch.inference_mode()
def _pass(context: Context, bounded: Sequence[Bounded], found: Radii) -> None:
    """One pass over the images: states are kept for one batch and one depth at a time."""
    served = {t: b for b in bounded if b.bounds is not None for t in b.depths}
    if not served:
        return
    count = -(-len(context.indices) // context.batch_size)
    for rows, inputs in context.progress(context.batches(), "certified radii", count):
        for t, state in clean_states(context, inputs, max(served)):
            if t in served:
                states = state_vector(state).double().cpu().numpy()
                radius, runner_up, margin, bound = served[t].measure(states, found.decided[t, rows])
                found.radius[t, rows], found.runner_up[t, rows] = radius, runner_up
                found.margin[t, rows], found.bound[t, rows] = margin, bound
                found.length[t, rows] = np.linalg.norm(states, axis=1)


def clean_states(context: Context, inputs: torch.Tensor, last: int) -> Iterator[tuple[int, State]]:
    """(t, h_t) of a batch of inputs (B, C, H, W), t = 0..``last``, in the precision of the extraction."""
    with context.running():
        state = context.model.initial_state(inputs)
    yield 0, state
    for t in range(last):
        with context.running():
            state = context.model.block(t, state)
        yield t + 1, state
