"""Readouts g_t: X_t -> R^K. ``head``: the model's own classifier at every depth; ``lens``: the same behind a trained
translator of the state; ``probe``: a linear map per depth."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from stabilitykit.dynamics.model import state_of, state_parts

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


@dataclass(frozen=True)
class DepthFit:
    """How well a trained readout of one depth does.

    Attributes:
        accuracy: on all images it was trained on.
        loss: mean over those: cross-entropy of a probe, Kullback-Leibler divergence to the network of a lens; in nats.
        held_out: accuracy on images it was not trained on (a readout trained in the same way on four fifths of the
            images, judged by the rest); None where there was none.
        before: the loss at the start of training, where that means something (a lens: of the head alone).
        remark: what else is to be known of it.
    """

    accuracy: float
    loss: float
    held_out: float | None = None
    before: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Fit:
    """What training readouts gave.

    Attributes:
        depths: one for each depth 0..T.
        n: images trained on.
        n_held_out: images that ``held_out`` is about.
        passes: how often the network went through the images.
    """

    depths: Sequence[DepthFit]
    n: int
    n_held_out: int
    passes: int


class Readout(ABC):
    """g_t for every depth t = 0..T."""

    kind: str
    fit: Fit | None = None
    """How it was trained; None where it was not."""

    @abstractmethod
    def logits(self, t: int, state: State) -> torch.Tensor:
        """g_t before softmax: state h_t -> (B, K), a float dtype."""

    @abstractmethod
    def head(self, t: int) -> nn.Module | None:
        """g_t as a module taking a state (B, *state_shape), or None when it is not available as one module."""

    def equals_next(self, t: int) -> bool:
        """Whether g_t = g_{t+1} o phi_t by construction, so that depths t and t+1 have the same readouts (t < T)."""
        return False

    def same_as_next(self, t: int) -> bool:
        """Whether g_t and g_{t+1} are one function on one space by construction (t < T)."""
        return False

    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies g beyond the model's own weights (part of cache keys)."""

    def to(self, device: torch.device | str) -> Readout:
        return self

    def bound_to(self, model: Model) -> Readout:
        """The same readout of another object of the same network."""
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

    def same_as_next(self, t: int) -> bool:
        return self.model.same_readout(t)

    def fingerprint(self) -> str:
        return "head"

    def bound_to(self, model: Model) -> HeadReadout:
        return HeadReadout(model)


class LensReadout(Readout):
    """The model's own classifier behind a translator of the state per depth (the tuned lens); the network at depth T.

    Arguments:
        translators: one for each depth 0..T-1, of the parts of a state that have the shape of the first; an
            ``nn.Identity`` where there is nothing to translate.
        jumps: the translators lead into X_T, and the classifier after the last block follows; otherwise they stay in
            X_t, and the head of that depth follows.
    """

    kind = "lens"

    def __init__(
        self, model: Model, translators: Sequence[nn.Module], *, jumps: bool = False, fit: Fit | None = None
    ) -> None:
        self.model, self.jumps, self.fit = model, jumps, fit
        self.translators = nn.ModuleList(translators).eval().requires_grad_(False)

    def logits(self, t: int, state: State) -> torch.Tensor:
        if t == self.model.num_blocks:
            return self.model.readout_at(t, state)
        translated = translate(self.translators[t], state)
        return self.model.readout(translated) if self.jumps else self.model.readout_at(t, translated)

    def head(self, t: int) -> nn.Module | None:
        last = t == self.model.num_blocks
        head = self.model.head_at(self.model.num_blocks if self.jumps else t)
        return head if head is None or last else nn.Sequential(self.translators[t], head)

    def fingerprint(self) -> str:
        return _digest("lens", self.translators)

    def to(self, device: torch.device | str) -> LensReadout:
        self.translators.to(device)
        return self

    def bound_to(self, model: Model) -> LensReadout:
        return LensReadout(model, list(self.translators), jumps=self.jumps, fit=self.fit)


def translate(translator: nn.Module, state: State) -> State:
    """A state (B, ...), every part of the first one's shape translated, of the same dtypes; the others as they are."""
    parts = state_parts(state)
    weight = next(translator.parameters(), None)
    if weight is None:
        return state
    return state_of(
        [translator(part.to(weight.dtype)).to(part.dtype) if part.shape == parts[0].shape else part for part in parts]
    )


class ProbeReadout(Readout):
    """One linear classifier per depth, trained with the backbone frozen (the paper's g_{theta_t})."""

    kind = "probe"

    def __init__(self, probes: list[nn.Linear], fit: Fit | None = None) -> None:
        self.probes, self.fit = nn.ModuleList(probes).eval().requires_grad_(False), fit

    def logits(self, t: int, state: State) -> torch.Tensor:
        probe = self.probes[t]
        weight: torch.Tensor = probe.weight  # type: ignore[assignment]
        logits: torch.Tensor = probe(state_vector(state).to(weight.dtype))
        return logits

    def head(self, t: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), self.probes[t])

    def fingerprint(self) -> str:
        return _digest("probe", self.probes)

    def to(self, device: torch.device | str) -> ProbeReadout:
        self.probes.to(device)
        return self


def _digest(kind: str, modules: nn.ModuleList) -> str:
    digest = hashlib.sha256(kind.encode())
    for tensor in modules.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return f"{kind}-{digest.hexdigest()}"
