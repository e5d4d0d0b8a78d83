"""Any recorded trajectory is an orbit of the cyclic shift, read out by its first coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit import Model
from stabilitykit_recorded.reading import read_shape


class RecordedModel(Model):
    """h_0 = the whole record (T+1, K) of an image, phi_t = shift by one depth (an isometry), g = the first row.

    Then g(h_t) is what was recorded at depth t, exactly: everything runs in float64. Only distances between
    readouts mean something here; the blocks are not those of the network that made the record.

    Arguments:
        path: .npz with values (T+1, N, K) and labels (N,).
    """

    name = "recorded"

    def __init__(self, path: str) -> None:
        depths, _, classes = read_shape(path)
        self._shape = (depths, classes)
        first = nn.Linear(depths * classes, classes, bias=False)
        self._head = nn.Sequential(nn.Flatten(), first).double()
        with torch.no_grad():
            first.weight.copy_(torch.eye(classes, depths * classes, dtype=torch.float64))
        self._head.requires_grad_(False).eval()

    @property
    def module(self) -> nn.Module:
        return self._head

    @property
    def num_blocks(self) -> int:
        return self._shape[0] - 1

    @property
    def num_classes(self) -> int:
        return self._shape[1]

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def replayed(self) -> bool:
        return True

    @property
    def head(self) -> nn.Module:
        return self._head

    def preprocess(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Records, each float64 (T+1, K, 1), or all in one array -> float64 (B, T+1, K, 1)."""
        return torch.from_numpy(np.array(images, dtype=np.float64, order="C"))

    def initial_state(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[..., 0]

    def block(self, t: int, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return torch.roll(state, -1, dims=1)

    def replay(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[..., 0].transpose(0, 1)

    def readout(self, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return state[:, 0]  # what the head computes, without the products with zeros

    def describe(self) -> Mapping[str, Any]:
        return {"architecture": "cyclic shift over a record", "depths": self._shape[0]}
