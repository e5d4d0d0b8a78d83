"""A tiny network, and images it takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + torch.relu(self.conv(x))


class Net(nn.Module):
    """Three residual blocks of 4 channels; dropout, so that the mode matters."""

    def __init__(self, classes=3, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(1, 4, 1)
            self.blocks = nn.Sequential(Block(4), Block(4), Block(4))
            self.drop = nn.Dropout(0.5)
            self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.drop(self.blocks(self.stem(x)).mean((2, 3))))


def data(count=24, classes=3, seed=0):
    """float32 (count, 1, 5, 5) far outside [0, 1], and int64 (count,)."""
    draw = np.random.default_rng(seed)
    return (3 * draw.normal(size=(count, 1, 5, 5))).astype(np.float32), np.arange(count) % classes
