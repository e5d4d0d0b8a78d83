"""The realised lower bound for any readout: ||J|| of the model's own g at states of some images, by autograd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stabilitykit import CellProblem
from stabilitykit.context import Context


@dataclass(frozen=True)
class Realised:
    """norm of the Jacobian at depth `depth` of the image with dataset index `index`."""

    norm: float
    index: int
    depth: int


@dataclass(frozen=True)
class RealisedPair:
    """Of g and of softmax after g."""

    logits: Realised
    probabilities: Realised


def largest_jacobian(context: Context, images: int, rounds: int = 8) -> RealisedPair:
    """Largest Jacobian norms over the states of up to `images` images, all depths; batched power iteration.

    Errors: CellProblem when the readout cannot be differentiated.
    """
    total = len(context.indices)
    rows = np.unique(np.linspace(0, total - 1, min(total, images)).astype(np.int64))
    best = {False: Realised(0.0, int(context.indices[0]), 0), True: Realised(0.0, int(context.indices[0]), 0)}
    generator = torch.Generator().manual_seed(context.seed)
    for part, inputs in context.batches(rows):
        with torch.no_grad():
            state = context.model.initial_state(inputs)
        for t in range(context.model.num_blocks + 1):
            for softmax in best:
                norms = _norms(context, t, state, softmax, rounds, generator)
                top = int(norms.argmax())
                if float(norms[top]) > best[softmax].norm:
                    best[softmax] = Realised(float(norms[top]), int(context.indices[part[top]]), t)
            if t < context.model.num_blocks:
                with torch.no_grad():
                    state = context.model.block(t, state)
    return RealisedPair(best[False], best[True])


def _norms(context: Context, t: int, state: object, softmax: bool, rounds: int,
           generator: torch.Generator) -> torch.Tensor:
    """||J v|| with unit v after `rounds` steps of power iteration, per image (B,): never above ||J||."""
    parts = [p.detach().clone().requires_grad_(True) for p in (state if isinstance(state, tuple) else (state,))]

    with torch.enable_grad():
        out = context.readout.logits(t, tuple(parts) if isinstance(state, tuple) else parts[0])
        out = torch.softmax(out.double(), -1) if softmax else out.double()
        if not out.requires_grad:
            raise CellProblem("lipschitz: the readout is not differentiable, so no Jacobian norm can be realised")
        # J' u as a function of u: differentiating it once more gives J v
        probe = torch.zeros_like(out, requires_grad=True)
        pulled = torch.autograd.grad(out, parts, probe, create_graph=True, allow_unused=True)
    pairs = [(p, g) for p, g in zip(parts, pulled) if g is not None and g.requires_grad]
    if not pairs:
        return torch.zeros(len(out))
    vs = [torch.randn(p.shape, generator=generator).to(p) for p, _ in pairs]
    image = torch.zeros_like(out)
    for _ in range(rounds):
        size = _length(vs)
        vs = [v / size.view(-1, *[1] * (v.dim() - 1)).to(v) for v in vs]
        size = _length(vs)
        (image,) = torch.autograd.grad([g for _, g in pairs], probe, vs, retain_graph=True)
        image = image / size[:, None]
        vs = list(torch.autograd.grad(out, [p for p, _ in pairs], image, retain_graph=True))
    return image.detach().double().norm(dim=1).cpu()


def _length(vs: list[torch.Tensor]) -> torch.Tensor:
    """l2 norm per image over all parts, (B,) float64."""
    squares = torch.stack([v.double().flatten(1).square().sum(1) for v in vs])
    return squares.sum(0).sqrt().clamp_min(1e-300)
