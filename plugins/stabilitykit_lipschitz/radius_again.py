"""A certified radius computed again from model and data, and held against torch's own readout in float64."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

from stabilitykit import Measurement
from stabilitykit.dynamics.readout import state_vector
from stabilitykit.evaluation.context import Context
from stabilitykit.evaluation.rerun import SAME_MACHINE, own_batches
from stabilitykit_lipschitz.layered_margins import LayeredMargins
from stabilitykit_lipschitz.margins import MarginBounds, is_linear
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.parts import network_of
from stabilitykit_lipschitz.radii import Bounded, clean_states, margin_bounds
from stabilitykit_lipschitz.whole_readout import whole_readout

# By how much a slope or a margin of torch's may be away: both are float64 in another order of summation.
AWAY = 1e-9


def radius_again(context: Context, measurement: Measurement, seconds: float, tol: float) -> float | str | None:
    """The radius of the image of a witness; a text where torch's own readout contradicts it, None: left open.

    Another batch size moves states by about 1e-6: the image runs in the very batch it was measured in, and on another
    machine is left to `verify` of the whole run.
    """
    if context.rerun.tolerance != SAME_MACHINE:
        return None
    witness = measurement.witness
    depth, (decided, other) = int(witness["block"]), witness["outputs"]
    state = _state(context, int(context.rows_of(witness["indices"])[0]), depth)
    head, network, bounds = _bounded(context, depth, decided, seconds, tol)
    radius, runner_up, margin, bound = Bounded((depth,), network, bounds).measure(state, np.array([decided]))
    apart, slope = _by_torch(head, state[0].reshape(context.model.shape_at(depth)), decided, int(runner_up[0]))
    size = AWAY * (1.0 + abs(apart))
    if margin[0] > apart + size or slope > bound[0] * (1 + AWAY):
        return f"outputs {decided} and {other} are {apart!r} apart with slope {slope!r}: the radius is not proven"
    if network is not None and is_linear(network) and bound[0] > slope * (1 + 1e-6) + 1e-150:
        return f"||w_a - w_b|| is {slope!r}, not {float(bound[0])!r}"
    return float(radius[0]) if math.isfinite(radius[0]) else None


def _bounded(
    context: Context, depth: int, decided: int, seconds: float, tol: float
) -> tuple[torch.nn.Module, Network | None, MarginBounds | LayeredMargins]:
    """(g_t as a module, its network, its bounds), found as they were measured."""
    head = context.readout.head(depth)
    try:
        network = network_of(context, head, depth)
    except ValueError:
        whole = whole_readout(context, depth)
        return whole, None, LayeredMargins(whole, tuple(context.model.shape_at(depth)))
    assert head is not None
    return head, network, margin_bounds(network, np.array([decided]), seconds, tol, context.seed)


@torch.inference_mode()
def _state(context: Context, row: int, depth: int) -> np.ndarray:
    """float64 (1, n): h_t of one image, run in its own batch."""
    (members,) = own_batches(np.array([row]), len(context.indices), context.batch_size)
    place = int(np.flatnonzero(members == row)[0])
    for _, inputs in context.batches(members):
        *_, (_, state) = clean_states(context, inputs, depth)
        found: np.ndarray = state_vector(state)[place : place + 1].double().cpu().numpy()
    return found


def _by_torch(head: torch.nn.Module, state: np.ndarray, decided: int, other: int) -> tuple[float, float]:
    """(g_a - g_b, the length of its gradient) at a state (*shape), by autograd in float64."""
    twin = copy.deepcopy(head).cpu().double()
    at = torch.tensor(state[None], dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        values = twin(at)[0]
        apart = values[decided] - values[other]
        (slope,) = torch.autograd.grad(apart, at, allow_unused=True)
    return float(apart.detach()), 0.0 if slope is None else float(slope.norm())
