"""Fit one linear classifier per depth on frozen states: the paper's parametrized fully connected layer g_{theta_t}."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from stabilitykit.base.errors import CellProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import DepthFit, Fit, ProbeReadout
from stabilitykit.dynamics.states import Allocate, Batch, Progress, StateBatches, in_memory

# Probes of all depths are trained together; beyond this many weights they would not fit beside the network.
MAX_WEIGHTS = 400_000_000
HELD_OUT = 0.2
"""The share of every batch that the second set of probes is not trained on, but judged by."""


def fit_probes(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    *,
    num_classes: int,
    epochs: int = 10,
    steps: int | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 100,
    seed: int = 0,
    device: torch.device | str = "cpu",
    held_out: bool = False,
    allocate: Allocate = in_memory,
    progress: Progress | None = None,
) -> ProbeReadout:
    """Train T+1 linear maps R^n_t -> R^K by cross-entropy with Adam; the backbone stays frozen and in eval mode.

    The probes start at zero, and states are standardised by their mean norm at each depth (folded into the weights at
    the end). Batches are drawn once and visited in a seeded order: equal inputs give equal probes. The network runs
    once where ``allocate`` has room for the states of all depths, else once per epoch.

    Arguments:
        indices: (n,) integers: the images of ``dataset`` to train on.
        steps: batches to train on, one step of Adam each, in place of ``epochs`` passes over all of them.
        held_out: beside the probes train others on four fifths of every batch, to be judged by the last fifth.

    Raises:
        CellProblem: the states are too large for linear probes (weights above 400 million).
    """
    progress = progress or no_progress
    depths = range(model.num_blocks + 1)
    states = StateBatches(model, dataset, indices, depths, batch_size=batch_size, seed=seed, device=device)
    sizes = [layout.size for layout in states.layouts]
    if sum(sizes) * num_classes > MAX_WEIGHTS:
        raise CellProblem(
            f"model {model.name}: probes would need {sum(sizes)} x {num_classes} weights, {MAX_WEIGHTS:,} fit; use "
            "--readout lens or --readout head"
        )
    states.keep(allocate, progress)
    # Unit-norm states have entries of size n^-1/2; multiplying by sqrt(n) keeps Adam's step meaningful.
    gains = [np.sqrt(n) / v.norm(dim=1).mean().clamp_min(1e-12) for n, v in zip(sizes, states.first.vectors)]
    probes = [_zero(n, num_classes, device) for n in sizes]
    twins = (
        [_zero(n, num_classes, device) for n in sizes]
        if held_out and 2 * sum(sizes) * num_classes <= MAX_WEIGHTS
        else []
    )
    optimizer = torch.optim.Adam([p for probe in (*probes, *twins) for p in probe.parameters()], lr=learning_rate)
    total = epochs * len(states.bounds) if steps is None else steps
    for batch in progress(states.visits(total), "probes", total):
        losses = _losses(probes, gains, batch, slice(None))
        losses += _losses(twins, gains, batch, _trained(batch))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        optimizer.step()
    fit = _judged(probes, twins, gains, states)
    with torch.no_grad():
        for probe, gain in zip(probes, gains):
            probe.weight.mul_(gain)
    return ProbeReadout(probes, fit)


def _zero(size: int, classes: int, device: torch.device | str) -> nn.Linear:
    probe = nn.Linear(size, classes, device=device)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    return probe


def _outputs(probe: nn.Linear, gain: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """What a probe says of the standardised states; scaling its weights is cheaper than scaling the states."""
    return nn.functional.linear(vectors, probe.weight * gain, probe.bias)


def _losses(
    probes: Sequence[nn.Linear], gains: Sequence[torch.Tensor], batch: Batch, part: slice
) -> list[torch.Tensor]:
    return [
        nn.functional.cross_entropy(_outputs(probe, gain, vectors[part]), batch.labels[part])
        for probe, gain, vectors in zip(probes, gains, batch.vectors)
    ]


def _trained(batch: Batch) -> slice:
    """The images of a batch that the twins are trained on: they lie in random order."""
    count = len(batch.labels)
    return slice(0, count - int(count * HELD_OUT))


@torch.no_grad()
def _judged(
    probes: Sequence[nn.Linear], twins: Sequence[nn.Linear], gains: Sequence[torch.Tensor], states: StateBatches
) -> Fit:
    """Accuracy of every probe on the images it was trained on, of its twin on those that one never saw."""
    right, losses, held = np.zeros(len(probes)), np.zeros(len(probes)), np.zeros(len(probes))
    unseen = 0
    for batch in states.in_order():
        rest = slice(_trained(batch).stop, None)
        unseen += len(batch.labels[rest])
        for t, (probe, gain, vectors) in enumerate(zip(probes, gains, batch.vectors)):
            outputs = _outputs(probe, gain, vectors)
            right[t] += int((outputs.argmax(dim=1) == batch.labels).sum())
            losses[t] += float(nn.functional.cross_entropy(outputs.double(), batch.labels, reduction="sum"))
            if twins and len(batch.labels[rest]):
                guesses = _outputs(twins[t], gain, vectors[rest]).argmax(dim=1)
                held[t] += int((guesses == batch.labels[rest]).sum())
    count = len(states.indices)
    judged = bool(twins) and unseen > 0
    rows = [
        DepthFit(float(r) / count, float(loss) / count, float(h) / unseen if judged else None)
        for r, loss, h in zip(right, losses, held)
    ]
    return Fit(rows, count, unseen if judged else 0, states.passes)
