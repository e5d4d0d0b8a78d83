"""Fit the tuned lens: per depth a translator of the state, so that the head behind it says what the network will say.

After Belrose et al., "Eliciting Latent Predictions from Transformers with the Tuned Lens" (2023): a head alone reads
states it was never trained on, and drifts at early depths.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from stabilitykit.base.errors import CellProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import DepthFit, Fit, LensReadout
from stabilitykit.dynamics.states import Allocate, Batch, Progress, StateBatches, in_memory
from stabilitykit.dynamics.translator import identity_translator, jump_translator

# Weights of all translators, which are trained together.
MAX_WEIGHTS = 400_000_000
KEPT = "start kept"


def fit_lens(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    *,
    epochs: int = 10,
    steps: int | None = None,
    learning_rate: float = 0.1,
    batch_size: int = 100,
    seed: int = 0,
    device: torch.device | str = "cpu",
    allocate: Allocate = in_memory,
    progress: Progress | None = None,
) -> LensReadout:
    """Train translators A_0..A_{T-1} on KL(network || head_t(A_t h_t)) with Adam; the network stays frozen.

    Translators start at the identity, where the lens is the head; a depth at which training does not lower the
    divergence on the images trained on keeps it. At depth T the lens is the network. Where the head reads no inner
    depth (:attr:`Model.without_head`), A_t leads from X_t into X_T and the last classifier follows. Batches and their
    order are seeded: equal inputs give an equal lens. Labels are looked at for the accuracies only.

    Arguments:
        indices: (n,) integers: the images of ``dataset`` to train on.
        steps: batches to train on, one step of Adam each, in place of ``epochs`` passes over all of them.
        learning_rate: how far, relative to the state, one step may move a translated state at first; it falls linearly.

    Raises:
        CellProblem: states no lens is made for, readouts without gradients, too many weights.
    """
    progress = progress or no_progress
    if model.replayed:
        raise CellProblem(f"model {model.name}: recorded readouts hold no network to look through; use --readout head")
    jumps = bool(model.without_head)
    depths = range(model.num_blocks + jumps)  # where it jumps to is looked at, too
    states = StateBatches(model, dataset, indices, depths, logits=True, batch_size=batch_size, seed=seed, device=device)
    lens = LensReadout(model, _translators(model, states, jumps), jumps=jumps)
    lens.to(device)
    weights = sum(p.numel() for p in lens.translators.parameters())
    if weights > MAX_WEIGHTS:
        raise CellProblem(
            f"model {model.name}: a lens would need {weights:,} weights, {MAX_WEIGHTS:,} fit; use --readout head"
        )
    start = copy.deepcopy(lens.translators)
    if model.num_blocks:
        states.keep(allocate, progress)
        with frozen(model.module):
            _train(lens, states, epochs * len(states.bounds) if steps is None else steps, learning_rate, progress)
    return _judged(lens, start, states)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of ``module`` takes gradients in the body; afterwards those that did do again."""
    wanting = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


def _translators(model: Model, states: StateBatches, jumps: bool) -> list[nn.Module]:
    found = []
    for t, layout in enumerate(states.layouts[: model.num_blocks]):
        try:
            parts = max(len(layout.shapes), len(states.layouts[-1].shapes))
            if jumps and parts > 1:
                raise CellProblem(f"no lens leads from or to states of {parts} parts; use --readout probe")
            shape, axis = layout.shapes[0], model.feature_axis(t)
            if jumps:
                last = states.layouts[-1].shapes[0]
                translator = jump_translator(shape, axis, last, model.feature_axis(model.num_blocks))
            else:
                translator = identity_translator(shape, axis)
        except CellProblem as error:
            raise CellProblem(f"model {model.name}, depth {t}: {error}") from None
        found.append(translator.double() if layout.dtypes[0] == torch.float64 else translator)
    return found


def _train(lens: LensReadout, states: StateBatches, steps: int, rate: float, progress: Progress) -> None:
    lens.translators.requires_grad_(True)
    groups = []
    sizes = [float(vectors.square().mean().sqrt().clamp_min(1e-12)) for vectors in states.first.vectors]
    for translator, given in zip(lens.translators, sizes):
        weight, bias = translator.parameters()
        wanted = sizes[-1] if lens.jumps else given
        # Adam moves every weight by its rate: divided by the features, all together move an output by `rate`.
        groups.append({"params": [weight], "lr": rate / weight.shape[1] * wanted / given})
        groups.append({"params": [bias], "lr": rate * wanted})
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for batch in progress(states.visits(steps), "lens", steps):
        optimizer.zero_grad(set_to_none=True)
        target = batch.final.log_softmax(dim=1)
        for t in range(len(lens.translators)):  # one graph after the other: memory for one depth
            with torch.enable_grad():
                loss = _divergence(target, _seen(lens, states, batch, t)).mean()
            if not loss.requires_grad:
                raise CellProblem(
                    f"model {lens.model.name}: the readout at depth {t} passes no gradient on to the state; use "
                    "--readout head or probe"
                )
            loss.backward()
        optimizer.step()
        schedule.step()
    lens.translators.requires_grad_(False)


def _seen(lens: LensReadout, states: StateBatches, batch: Batch, t: int) -> torch.Tensor:
    return lens.logits(t, states.layouts[t].state(batch.vectors[t]))


def _divergence(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL(p || q) (B,) float32 of log p = ``target`` (B, K) and q = softmax of ``logits`` (B, K)."""
    return nn.functional.kl_div(logits.float().log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)


@torch.no_grad()
def _judged(lens: LensReadout, start: nn.ModuleList, states: StateBatches) -> LensReadout:
    """The better of trained and untrained translator at every depth, with divergences and accuracies."""
    model, count = lens.model, len(states.indices)
    both = (lens, LensReadout(model, list(start), jumps=lens.jumps))
    depths = len(lens.translators)
    losses, right = np.zeros((2, depths)), np.zeros((2, depths))
    last = 0
    for batch in states.in_order():
        target = batch.final.log_softmax(dim=1)
        last += int((batch.final.argmax(dim=1) == batch.labels).sum())
        for number, readout in enumerate(both):
            for t in range(depths):
                seen = _seen(readout, states, batch, t)
                losses[number, t] += float(_divergence(target, seen).double().sum())
                right[number, t] += int((seen.argmax(dim=1) == batch.labels).sum())
    chosen, rows = [], []
    for t in range(depths):
        worse = not losses[0, t] < losses[1, t]  # also where training ended in NaN
        keep = start[t] if lens.jumps else nn.Identity()
        chosen.append(keep if worse else lens.translators[t])
        best = int(worse)
        means = [float(total) / count for total in (right[best, t], losses[best, t], losses[1, t])]
        rows.append(DepthFit(means[0], means[1], before=means[2], remark=KEPT if worse else ""))
    rows.append(DepthFit(last / count, 0.0, before=0.0, remark="the network itself"))
    return LensReadout(model, chosen, jumps=lens.jumps, fit=Fit(rows, count, 0, states.passes))
