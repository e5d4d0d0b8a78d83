"""Fit one linear classifier per depth on frozen states: the paper's parametrized fully connected layer g_{theta_t}."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit.base.errors import CellProblem
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import ProbeReadout, state_vector
from stabilitykit.dynamics.trajectory import batches

# Probes of all depths are trained together; beyond this many weights they would not fit beside the network.
MAX_WEIGHTS = 400_000_000


def fit_probes(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    *,
    num_classes: int,
    epochs: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 100,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[..., Iterator[Any]] | None = None,
) -> ProbeReadout:
    """Train T+1 linear maps R^n -> R^K by cross-entropy with Adam; the backbone stays frozen and in eval mode.

    The probes start at zero, states are standardised by their mean norm at each depth (folded into the weights at
    the end), and images are visited in a seeded order: equal inputs give equal probes. States are streamed.

    Arguments:
        indices: (n,) integers: the images of ``dataset`` to train on.

    Raises:
        CellProblem: the states are too large for linear probes (weights above 400 million).
    """
    model.module.eval()
    generator = np.random.default_rng(seed)
    labels = torch.as_tensor(np.asarray(dataset.labels)[indices], device=device)
    depths = model.num_blocks + 1
    with torch.inference_mode():
        _, inputs = next(batches(model, dataset, indices, min(batch_size, len(indices)), device))
        scales = [state_vector(h).float().norm(dim=1).mean().clamp_min(1e-12) for h in _states(model, inputs)]
        size = state_vector(model.initial_state(inputs)).shape[1]
    if depths * size * num_classes > MAX_WEIGHTS:
        raise CellProblem(
            f"model {model.name}: probes would need {depths} x {size} x {num_classes} weights; use --readout head"
        )
    probes = [nn.Linear(size, num_classes, device=device) for _ in range(depths)]
    for probe in probes:
        nn.init.zeros_(probe.weight)
        nn.init.zeros_(probe.bias)
    optimizer = torch.optim.Adam([p for probe in probes for p in probe.parameters()], lr=learning_rate)
    # Unit-norm states have entries of size n^-1/2; multiplying by sqrt(n) keeps Adam's step meaningful.
    gain = float(np.sqrt(size))
    rounds: Any = range(epochs)
    for _ in progress(rounds, "probes", epochs) if progress else rounds:
        order = generator.permutation(len(indices))
        for rows, inputs in batches(model, dataset, indices[order], batch_size, device):
            targets = labels[torch.as_tensor(order[rows], device=labels.device)]
            with torch.no_grad():
                states = [state_vector(h).float() for h in _states(model, inputs)]
            losses = [
                nn.functional.cross_entropy(probe(h / s * gain), targets) for probe, h, s in zip(probes, states, scales)
            ]
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()
            optimizer.step()
    with torch.no_grad():
        for probe, scale in zip(probes, scales):
            probe.weight.mul_(gain / scale)
    return ProbeReadout(probes)


def _states(model: Model, inputs: torch.Tensor) -> Iterator[Any]:
    state = model.initial_state(inputs)
    yield state
    for t in range(model.num_blocks):
        state = model.block(t, state)
        yield state
