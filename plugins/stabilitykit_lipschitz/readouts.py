"""The distinct readouts g_t of a model, and the states of images at which the search for a large Jacobian starts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit.dynamics.readout import state_vector
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.lower import steepest
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.regions import smallest_powers

# Images whose states seed the search: of readouts with hidden layers, and of affine ones, whose slope is everywhere
# the same.
SEEDS, FEW = 48, 16
_NUMBERS = (bool, int, float, str, slice, torch.dtype, torch.device)
_PLAIN = (*_NUMBERS, tuple, list, dict, set, OrderedDict)


def readouts_of(context: Context) -> list[tuple[tuple[int, ...], nn.Module | None]]:
    """(depths, g_t as a module) of every distinct readout; None in place of a module where there is none.

    Two depths have one readout where their states have one shape and their modules compute the same.
    """
    if context.readout.kind == "head" and context.model.one_readout:
        return [(tuple(range(context.model.num_blocks + 1)), context.readout.head(0))]
    found: list[tuple[list[int], tuple[int, ...], nn.Module | None]] = []
    for t in range(context.model.num_blocks + 1):
        head, shape = context.readout.head(t), tuple(context.model.shape_at(t))
        for depths, other_shape, other in reversed(found):
            if shape == other_shape and same(head, other):
                depths.append(t)
                break
        else:
            found.append(([t], shape, head))
    return [(tuple(depths), head) for depths, _, head in found]


def same(a: nn.Module | None, b: nn.Module | None) -> bool:
    """Is it one module, or two of one class that hold the very same tensors, equal settings and such modules?

    Only what is known to be equal counts: a certificate of one is used for the other.
    """
    if a is b:
        return True
    if a is None or b is None or type(a) is not type(b):
        return False
    ours, theirs = vars(a), vars(b)
    return ours.keys() == theirs.keys() and all(_same(ours[key], theirs[key]) for key in ours)


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, nn.Module):
        return isinstance(b, nn.Module) and same(a, b)
    if type(a) is not type(b) or not isinstance(a, _PLAIN):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def normalises(network: Network) -> bool:
    """Does it hold a normalisation layer, whose slope is bounded on the region of the data only?"""
    return any(isinstance(layer.activation, Normalisation) for layer in network.layers)


class Seeds:
    """States of images at the depths of some readouts: one pass over the images serves all of them.

    Arguments:
        networks: (depths served, network) of each readout.
    """

    def __init__(self, context: Context, networks: Sequence[tuple[tuple[int, ...], Network]]) -> None:
        self.context, self.networks = context, networks
        self._found: dict[int, tuple[np.ndarray, tuple[float, ...], int]] = {}

    def of(self, number: int) -> tuple[np.ndarray, tuple[float, ...], int]:
        """(the steepest states (B, n) seen, smallest powers entering normalisation layers over all, how many)."""
        if number not in self._found:
            images = self._images(self.networks[number][1])
            like = [k for k, (_, network) in enumerate(self.networks) if self._images(network) == images]
            self._found |= self._pass(like, images)
        return self._found[number]

    def _images(self, network: Network) -> int:
        """How many images are looked at: all where every one of them decides the region."""
        total = len(self.context.indices)
        return total if normalises(network) else min(total, SEEDS if network.layers else FEW)

    @torch.inference_mode()
    def _pass(self, numbers: Sequence[int], images: int) -> dict[int, tuple[np.ndarray, tuple[float, ...], int]]:
        context = self.context
        rows = np.unique(np.linspace(0, len(context.indices) - 1, images).astype(np.int64))
        kept: dict[int, list[np.ndarray]] = {k: [] for k in numbers}
        powers: dict[int, np.ndarray] = {}
        count = dict.fromkeys(numbers, 0)
        for _, inputs in context.batches(rows):
            state = context.model.initial_state(inputs)
            for t in range(context.model.num_blocks + 1):
                for k in numbers:
                    depths, network = self.networks[k]
                    if t in depths:
                        block = state_vector(state).double().cpu().numpy()
                        count[k] += len(block)
                        found = np.array(smallest_powers(network, block))
                        powers[k] = np.minimum(powers[k], found) if k in powers else found
                        kept[k].append(steepest(network, block, 16))
                if t < context.model.num_blocks:
                    state = context.model.block(t, state)
        return {
            k: (
                steepest(self.networks[k][1], np.concatenate(kept[k]), 256),
                tuple(float(p) for p in powers.get(k, ())),
                count[k],
            )
            for k in numbers
        }
