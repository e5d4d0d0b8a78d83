"""A network whose outputs depend on other images of the batch has no constant of its own: it is refused."""

from __future__ import annotations

import pytest
import torch
from stabilitykit_lipschitz import lipschitz
from stabilitykit_lipschitz.trace import UnsupportedModule
from torch import nn

MIXERS = {
    "rolled": lambda x: x.roll(1, 0),
    "flipped": lambda x: x.flip(0),
    "the first for all": lambda x: x[:1].expand_as(x),
    "centred over the batch": lambda x: x - x.mean(0, keepdim=True),
    "sums over the batch": lambda x: x.cumsum(0),
    "joined": lambda x: x.reshape(-1).roll(3).reshape(x.shape),
    "one image shuffled": lambda x: torch.cat([x[:1].flip(1), x[1:]]),
}


class Mixing(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(6, 6), nn.Linear(6, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(MIXERS[self.how](torch.relu(self.first(x))))


@pytest.mark.parametrize("how", MIXERS)
def test_networks_that_mix_images_are_refused(how: str) -> None:
    torch.manual_seed(0)
    reason = (
        "does not act on each sample"
        if how == "sums over the batch"
        else "mixes the samples of a batch|one row per sample"
    )
    with pytest.raises(UnsupportedModule, match=reason):
        lipschitz(Mixing(how), input_shape=(6,), search_seconds=0.01)
