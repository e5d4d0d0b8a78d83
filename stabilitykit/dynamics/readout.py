"""Readouts g_t: X_t -> R^K. ``head``: the model's own classifier at every depth; ``probe``: a linear map per depth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from stabilitykit.dynamics.model import state_parts

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import Model, State


def state_vector(state: State) -> torch.Tensor:
    """A state, tensor (B, ...) or tuple of them, flattened to one point of R^n per image -> (B, n), same dtype."""
    parts = state_parts(state)
    return torch.cat([part.reshape(part.shape[0], -1) for part in parts], dim=1)


def kept_logits(model: Model, logits: torch.Tensor) -> np.ndarray:
    """Logits (any shape) as trajectories keep them.

    float64 of a network that runs in float64, float32 of any other. Whatever is compared with a trajectory goes through
    here: rounding only one side would look like a distance.
    """
    return logits.to(torch.float64 if model.readout_dtype == "float64" else torch.float32).cpu().numpy()


class Readout(ABC):
    """g_t for every depth t = 0..T."""

    kind: str

    @abstractmethod
    def logits(self, t: int, state: State) -> torch.Tensor:
        """g_t before softmax: state h_t -> (B, K), a float dtype."""

    @abstractmethod
    def head(self, t: int) -> nn.Module | None:
        """g_t as a module taking a state (B, *state_shape), or None when it is not available as one module."""

    def equals_next(self, t: int) -> bool:
        """Whether g_t = g_{t+1} o phi_t by construction, so that depths t and t+1 have the same readouts (t < T)."""
        return False

    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies g beyond the model's own weights (part of cache keys)."""

    def to(self, device: torch.device | str) -> Readout:
        return self


class HeadReadout(Readout):
    """The model's own classifier applied at every depth: one g, or in a course the rest of the network without its
    residual steps."""

    kind = "head"

    def __init__(self, model: Model) -> None:
        self.model = model

    def logits(self, t: int, state: State) -> torch.Tensor:
        return self.model.readout_at(t, state)

    def head(self, t: int) -> nn.Module | None:
        return self.model.head_at(t)

    def equals_next(self, t: int) -> bool:
        return self.model.executed(t)

    def fingerprint(self) -> str:
        return "head"


class ProbeReadout(Readout):
    """One linear classifier per depth, trained with the backbone frozen (the paper's g_{theta_t})."""

    kind = "probe"

    def __init__(self, probes: list[nn.Linear]) -> None:
        self.probes = nn.ModuleList(probes).eval().requires_grad_(False)

    def logits(self, t: int, state: State) -> torch.Tensor:
        probe = self.probes[t]
        weight: torch.Tensor = probe.weight  # type: ignore[assignment]
        logits: torch.Tensor = probe(state_vector(state).to(weight.dtype))
        return logits

    def head(self, t: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), self.probes[t])

    def fingerprint(self) -> str:
        import hashlib

        digest = hashlib.sha256(b"probe")
        for tensor in self.probes.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return "probe-" + digest.hexdigest()

    def to(self, device: torch.device | str) -> ProbeReadout:
        self.probes.to(device)
        return self
