"""One part of the network alone in a number format: the rest of the network runs as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stabilitykit.dynamics.model import Model, state_parts
from stabilitykit.dynamics.readout import kept_logits
from stabilitykit.evaluation.context import Context
from stabilitykit_precision.decisions import Decisions, mean_change
from stabilitykit_precision.network import LowPrecisionNetwork

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State


@dataclass(frozen=True)
class Alone:
    """What P parts (the stem, T blocks, the head), each alone in the format, do to n images.

    Attributes:
        flips: bool (P, n), the decision differs from that of the clean pass in the same batch.
        change: float64 (P, n), mean over classes of the absolute change of the logits; NaN where one is not finite.
        forwards: passes through the network these took for all images together, a block counted as 1/T.
    """

    flips: np.ndarray
    change: np.ndarray
    forwards: float

    def of(self, images: np.ndarray) -> Alone:
        """The same of some ``images``, bool (n,)."""
        return Alone(self.flips[:, images], self.change[:, images], self.forwards)


def part_names(model: Model) -> list[str]:
    """``stem``, the T names of the blocks, ``head``."""
    return ["stem", *model.block_names, "head"]


@torch.inference_mode()
def alone(context: Context, network: LowPrecisionNetwork, rows: np.ndarray) -> Alone:
    """Run the images ``rows``, integers (n,), with every part alone in the format of ``network``.

    The parts of a batch share one clean pass: the state before a part is taken from it, and one state is kept at a
    time. A part whose result is that of the clean pass, bit for bit, is not followed further.
    """
    flips, changes, forwards = [], [], 0.0
    count = -(-len(rows) // context.batch_size)
    batches: Iterator = context.progress(context.batches(rows), f"precision: {network.format}, block by block", count)
    for _, inputs in batches:
        with context.running():
            clean, found, blocks = _batch(context.model, network, inputs)
        before = Decisions(clean, context.space)
        flips.append([Decisions(logits, context.space).classes != before.classes for logits in found])
        changes.append([mean_change(clean, logits) for logits in found])
        forwards += len(inputs) * blocks / context.model.num_blocks
    return Alone(np.concatenate(flips, axis=1), np.concatenate(changes, axis=1), forwards)


def _batch(
    model: Model, network: LowPrecisionNetwork, inputs: torch.Tensor
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """(clean logits (B, K), those with each part alone in the format, blocks run for them)."""
    state = model.initial_state(inputs)
    moved: State = network.initial_state(inputs, state)
    found: list[torch.Tensor | None] = [_followed(model, 0, state, moved)]
    blocks = 0 if found[0] is None else model.num_blocks
    for t in range(model.num_blocks):
        after = model.block(t, state)
        moved = network.block(t, state, after)
        found.append(_followed(model, t + 1, after, moved))
        blocks += 2 + (0 if found[-1] is None else model.num_blocks - t - 1)
        state = after
    clean = kept_logits(model, model.readout(state))
    found.append(network.readout(state))
    return clean, [clean if logits is None else kept_logits(model, logits) for logits in found], blocks


def _followed(model: Model, t: int, clean: State, moved: State) -> torch.Tensor | None:
    """Logits (B, K) of the state ``moved`` at depth t, through the rest of the clean network; None: it is ``clean``."""
    if all(torch.equal(a, b) for a, b in zip(state_parts(clean), state_parts(moved), strict=True)):
        return None
    for later in range(t, model.num_blocks):
        moved = model.block(later, moved)
    return model.readout(moved)
