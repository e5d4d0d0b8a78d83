"""The realised lower bound for any readout: ||J|| of the model's own g at states of some images, by autograd."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stabilitykit import CellProblem
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import Readout
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.trace import InDouble

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

REFINED = 6
"""States whose norm is sought by power iteration; all others are only screened: a tail may be a whole network."""


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


@dataclass(frozen=True)
class _Candidate:
    """A screened state of one image: `state` parts (1, ...), `direction` (1, K) of the outputs it answered to most."""

    norm: float
    index: int
    depth: int
    state: State
    direction: torch.Tensor


def largest_jacobian(context: Context, images: int, rounds: int = 8) -> RealisedPair:
    """Largest Jacobian norms over the states of up to `images` images, all depths.

    Every state is screened by one product with J in the direction that moves the two leading outputs apart;
    power iteration goes on from the best of them. Any ||J v|| with unit v is a lower bound, so only its tightness
    depends on what is left out.

    Errors: CellProblem when the readout cannot be differentiated; StepFunction when it rounds.
    """
    total = len(context.indices)
    rows = np.unique(np.linspace(0, total - 1, min(total, images)).astype(np.int64))
    kept: dict[bool, list[_Candidate]] = {False: [], True: []}
    for part, inputs in context.progress(context.batches(rows), "Jacobian norms", -(-len(rows) // context.batch_size)):
        with torch.no_grad():
            state = context.model.initial_state(inputs)
        for t in range(context.model.num_blocks + 1):
            jacobian = _Jacobian(context.readout, t, state)
            for softmax, best in kept.items():
                norms, directions = jacobian.iterate(jacobian.leading(softmax), softmax, rounds=1)
                norms = norms.nan_to_num(nan=-1.0)
                best += [
                    _Candidate(float(norms[n]), int(context.indices[part[n]]), t, _one(state, n), directions[n : n + 1])
                    for n in map(int, norms.argsort(descending=True, stable=True)[:REFINED])
                ]
                kept[softmax] = sorted(best, key=lambda candidate: -candidate.norm)[:REFINED]
            if t < context.model.num_blocks:
                with torch.no_grad():
                    state = context.model.block(t, state)
    if any(candidate.norm < 0 for best in kept.values() for candidate in best):
        raise CellProblem("lipschitz: the readout's Jacobian has entries that are no numbers")
    logits, probabilities = (_refined(context, best, softmax, rounds) for softmax, best in kept.items())
    return RealisedPair(logits, probabilities)


def _refined(context: Context, candidates: list[_Candidate], softmax: bool, rounds: int) -> Realised:
    """The largest norm in float64: what float32 found only says where to look."""
    readout = _in_double(context)
    found = []
    for candidate in candidates:
        state = candidate.state
        parts = tuple(p.cpu().double() for p in (state if isinstance(state, tuple) else (state,)))
        with InDouble():
            jacobian = _Jacobian(readout, candidate.depth, parts if isinstance(state, tuple) else parts[0])
            norms, _ = jacobian.iterate(candidate.direction.cpu(), softmax, rounds)
        found.append(Realised(float(norms[0]), candidate.index, candidate.depth))
    return max(found, key=lambda r: r.norm)


def _in_double(context: Context) -> Readout:
    """A copy of the readout on the CPU whose weights are float64."""
    try:
        twin = copy.deepcopy(context.readout)
        for held in vars(twin).values():
            module = held.module if isinstance(held, Model) else held
            if isinstance(module, torch.nn.Module):
                module.cpu().double()
    except Exception as error:
        raise CellProblem(
            f"lipschitz: the readout cannot be copied to float64 ({type(error).__name__}: {error}), so no slope of it "
            "can be stated; make it work with copy.deepcopy"
        ) from error
    return twin


class StepFunction(CellProblem):
    """A readout that rounds: constant almost everywhere, with jumps between, it has no Lipschitz constant."""


def _require_no_rounding(out: torch.Tensor) -> None:
    """StepFunction where autograd's record of ``out`` holds an operation that rounds."""
    seen, pending = set(), [out.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().startswith(("Round", "Floor", "Ceil", "Trunc", "Sign")):
            raise StepFunction(
                "the readout rounds its values on the way (quantised activations): a function with jumps has no "
                "Lipschitz constant; measure the float network for one"
            )
        pending += [other for other, _ in node.next_functions]


class _Jacobian:
    """J of g_t at a batch of states, as products: J v (``push``) and J' u (``pull``), in float64 at the outputs."""

    def __init__(self, readout: Readout, t: int, state: State) -> None:
        parts = [p.detach().clone().requires_grad_(True) for p in (state if isinstance(state, tuple) else (state,))]
        with torch.enable_grad():
            out = readout.logits(t, tuple(parts) if isinstance(state, tuple) else parts[0]).double()
            if not out.requires_grad:
                raise CellProblem("lipschitz: the readout is not differentiable, so no Jacobian norm can be realised")
            _require_no_rounding(out)
            # J' u as a function of u: differentiating it once more gives J v
            probe = torch.zeros_like(out, requires_grad=True)
            pulled = torch.autograd.grad(out, parts, probe, create_graph=True, allow_unused=True)
        pairs = [(p, g) for p, g in zip(parts, pulled) if g is not None and g.requires_grad]
        self.out, self.probe = out, probe
        self.parts, self.pulled = [p for p, _ in pairs], [g for _, g in pairs]
        self.probabilities = torch.softmax(out.detach(), -1)

    def leading(self, softmax: bool) -> torch.Tensor:
        """The first direction (B, K): the largest output up, the second down (a single one: up)."""
        values = self.probabilities if softmax else self.out.detach()
        top = values.topk(min(2, values.shape[1]), dim=1).indices
        direction = torch.zeros_like(values)
        direction.scatter_(1, top[:, 1:], -1.0)
        return direction.scatter_(1, top[:, :1], 1.0)

    def push(self, vs: Sequence[torch.Tensor], softmax: bool) -> torch.Tensor:
        (image,) = torch.autograd.grad(self.pulled, self.probe, vs, retain_graph=True)
        return self._softened(image) if softmax else image

    def pull(self, u: torch.Tensor, softmax: bool) -> list[torch.Tensor]:
        return list(torch.autograd.grad(self.out, self.parts, self._softened(u) if softmax else u, retain_graph=True))

    def _softened(self, u: torch.Tensor) -> torch.Tensor:
        """(diag(p) - p p') u: the Jacobian of softmax, which is symmetric."""
        return self.probabilities * (u - (self.probabilities * u).sum(dim=1, keepdim=True))

    def iterate(self, direction: torch.Tensor, softmax: bool, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(||J v|| (B,) for a unit v found by power iteration from ``direction``, the direction J v (B, K))."""
        image = direction
        if not self.parts:
            return torch.zeros(len(image), dtype=torch.float64), image
        for _ in range(rounds):
            vs = self.pull(image, softmax)
            size = _length(vs)
            # in float64: the length of a zero vector, kept above zero, is none in float32
            vs = [(v.double() / size.view(-1, *[1] * (v.dim() - 1))).to(v.dtype) for v in vs]
            # the divisions round: by the length v really has, the norm is never above ||J||
            image = self.push(vs, softmax) / _length(vs)[:, None]
        return image.detach().norm(dim=1).cpu(), image.detach()


def _one(state: State, n: int) -> State:
    return tuple(p[n : n + 1].clone() for p in state) if isinstance(state, tuple) else state[n : n + 1].clone()


def _length(vs: Sequence[torch.Tensor]) -> torch.Tensor:
    """l2 norm per image over all parts, (B,) float64."""
    squares = torch.stack([v.double().flatten(1).square().sum(1) for v in vs])
    return squares.sum(0).sqrt().clamp_min(1e-300)
