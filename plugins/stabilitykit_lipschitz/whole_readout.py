"""A readout g_t as one module, whatever it runs: for layer-wise bounds, which need no chain of layers.

The head of a course at an inner depth executes the transitions that are left (convolutions, shortcuts), and a lens its
translator before them: none of it need be a chain of standard layers to be run on traced tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from stabilitykit.dynamics.readout import Readout
from stabilitykit.evaluation.context import Context


class WholeReadout(nn.Module):
    """g_t of ``readout``, on states (B, *shape) of one tensor -> logits (B, K).

    Copies and conversions reach the network and what else the readout holds: both are submodules.
    """

    def __init__(self, readout: Readout, network: nn.Module, t: int) -> None:
        super().__init__()
        self.network = network
        self.held = nn.ModuleList(part for part in vars(readout).values() if isinstance(part, nn.Module))
        self.readout, self.t = readout, t

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return self.readout.logits(self.t, state)


def whole_readout(context: Context, t: int) -> WholeReadout:
    """g_t of the subject."""
    return WholeReadout(context.readout, context.model.module, t)


def shared(context: Context, depths: Sequence[int]) -> list[tuple[int, ...]]:
    """``depths`` in groups that have one readout by construction, as the depths of a stage have."""
    groups: list[list[int]] = []
    for t in sorted(depths):
        if groups and groups[-1][-1] == t - 1 and context.readout.same_as_next(t - 1):
            groups[-1].append(t)
        else:
            groups.append([t])
    return [tuple(group) for group in groups]


@torch.inference_mode()
def several_parts(context: Context) -> set[int]:
    """Depths whose state is several tensors: one image is run to see."""
    found = set()
    for _, inputs in context.batches(np.array([0])):
        with context.running():
            state = context.model.initial_state(inputs)
            for t in range(context.model.num_blocks + 1):
                if isinstance(state, tuple) and len(state) > 1:
                    found.add(t)
                if t < context.model.num_blocks:
                    state = context.model.block(t, state)
    return found
