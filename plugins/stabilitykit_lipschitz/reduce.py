"""Exact and certified simplifications before any optimisation.

Neurons of fixed slope are substituted away, dead ones dropped, rows rescaled by powers of two (exact) and the input
compressed: Lip(h(W x)) <= Lip(h(L x)) whenever L L' >= W W', because then [W E] [W E]' = L L' for some E.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.rounding import TINY, UNIT, frobenius, gamma


@dataclass
class Part:
    """One layer of the reduced problem: blocks {state: (N, size)}, slopes (N,), shared multiplier or not."""

    blocks: dict[int, np.ndarray]
    alpha: np.ndarray
    beta: np.ndarray
    shared: bool
    vector: bool  # a normalisation layer: its coordinates cannot be dropped one by one
    origin: int  # index of the layer in the original network
    kept: np.ndarray  # indices of the kept neurons there
    exponent: np.ndarray  # state_original = 2^exponent * state_here

    @property
    def size(self) -> int:
        return len(self.alpha)

    @property
    def centre(self) -> np.ndarray:
        return 0.5 * (self.alpha + self.beta)

    @property
    def radius(self) -> np.ndarray:
        return 0.5 * (self.beta - self.alpha)


@dataclass
class Problem:
    """The reduced problem: Lip = 2^exponent * (Lip of this), plus `slack` for rounding done while folding.

    per_input: True for the l-infinity input norm (one multiplier per input coordinate, no compression).
    """

    inputs: int
    parts: list[Part]
    outputs: dict[int, np.ndarray]
    classes: int
    exponent: int
    per_input: bool
    slack: float
    used: np.ndarray  # which inputs of the network are read at all, (n,) bool

    @property
    def sizes(self) -> list[int]:
        return [self.inputs, *(p.size for p in self.parts)]

    @property
    def rows(self) -> int:
        """Rows of the compressed matrix inequality: inputs plus hidden neurons."""
        return sum(self.sizes)

    def empty(self) -> bool:
        """True when the output does not depend on the input at all."""
        return not self.outputs or self.inputs == 0


# Slope intervals this narrow, relative to their middle, are split into a linear part and a small remainder: left whole,
# their multipliers grow like the inverse of their width and no certificate in float64 survives.
NEAR = 0.1


def substitute(network: Network, shared: bool) -> tuple[list[Part], dict[int, np.ndarray], dict]:
    """Drop dead neurons and substitute those of (nearly) fixed slope.

    Returns:
        Parts, outputs, Frobenius error bounds.
    """
    parts = []
    for index, layer in enumerate(network.layers):
        parts.append(
            Part(
                {k: np.array(w, dtype=np.float64) for k, w in layer.blocks.items()},
                layer.alpha.copy(),
                layer.beta.copy(),
                layer.shared or shared,
                isinstance(layer.activation, Normalisation),
                index,
                np.arange(layer.size),
                np.zeros(layer.size, dtype=np.int64),
            )
        )
    outputs = {k: np.array(c, dtype=np.float64) for k, c in network.outputs.items()}
    errors = dict(network.errors)
    for level, part in enumerate(parts, start=1):
        if part.vector:
            continue
        near = part.radius <= NEAR * np.abs(part.centre)
        if near.any():
            _bypass(parts, outputs, errors, level, near)
    changed = True
    while changed:
        changed = False
        for level, part in enumerate(parts, start=1):
            if part.vector or part.size == 0:
                continue
            alive = np.zeros(part.size, dtype=bool)
            for block in part.blocks.values():
                alive |= (block != 0.0).any(1)
            used = np.zeros(part.size, dtype=bool)
            for reader in [*(p.blocks for p in parts), outputs]:
                if level in reader:
                    used |= (reader[level] != 0.0).any(0)
            keep = alive & used
            if not keep.all():
                changed = True
                _restrict(parts, outputs, level, keep)
    return parts, outputs, errors


def _bypass(parts: list[Part], outputs: dict[int, np.ndarray], errors: dict, level: int, near: np.ndarray) -> None:
    """Write y = c z + v for the neurons ``near``: readers take c z from the neurons' own inputs, what stays is v with
    slopes in [-r, r]. Where r = 0 nothing stays. The multipliers of v are those of y:
    (v + r z)(v - r z) = (y - alpha z)(y - beta z)."""
    part = parts[level - 1]
    slope = part.centre[near]
    away = np.maximum(part.beta[near] - slope, slope - part.alpha[near])
    fixed = near.copy()
    fixed[near] = away == 0.0
    away = np.where(away > 0.0, away * (1 + 4 * UNIT) + 4 * UNIT * np.abs(slope), 0.0)
    part.alpha[near], part.beta[near] = -away, away
    readers = [(index, p.blocks) for index, p in enumerate(parts, start=1)] + [(len(parts) + 1, outputs)]
    for index, blocks in readers:
        if level not in blocks:
            continue
        column = blocks[level][:, near] * slope
        left = frobenius(column)
        for k, block in part.blocks.items():
            rows = block[near]
            blocks[k] = blocks.get(k, 0.0) + column @ rows
            right = frobenius(rows)
            grow = errors.get((index, level), 0.0) * float(np.abs(slope).max()) * right
            grow += errors.get((level, k), 0.0) * (left + errors.get((index, level), 0.0))
            lost = gamma(len(slope) + 2) * left * right + 2 * UNIT * frobenius(blocks[k])
            errors[index, k] = (errors.get((index, k), 0.0) + grow + lost) * (1 + 1e-10)
        blocks[level][:, fixed] = 0.0


def _restrict(parts: list[Part], outputs: dict[int, np.ndarray], level: int, keep: np.ndarray) -> None:
    part = parts[level - 1]
    part.blocks = {k: w[keep] for k, w in part.blocks.items()}
    part.alpha, part.beta, part.kept = part.alpha[keep], part.beta[keep], part.kept[keep]
    part.exponent = part.exponent[keep]
    for reader in [*(p.blocks for p in parts), outputs]:
        if level in reader:
            reader[level] = reader[level][:, keep]


SCALES = (
    "the layers' scales multiply to more or less than float64 holds; rescale the network's weights (for instance "
    "divide one layer by its norm)"
)


def prepare(
    network: Network,
    per_input: bool,
    shared: bool,
    slack: float = 0.0,
    reduced: tuple[list[Part], dict[int, np.ndarray]] | None = None,
    compress: bool = True,
) -> Problem:
    """Reduce, renumber, rescale and compress. `slack`: absolute rounding allowance for folded weights.

    compress=False keeps the input coordinates (unread ones included), so that solutions of related problems fit.
    """
    parts, outputs = reduced if reduced is not None else substitute(network, shared)[:2]
    alive = [level for level, part in enumerate(parts, start=1) if part.size]
    number = {0: 0} | {old: new for new, old in enumerate(alive, start=1)}

    def renumber(blocks: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        return {number[k]: np.array(b) for k, b in blocks.items() if k in number and b.size and (b != 0).any()}

    kept = []
    for level in alive:
        part = parts[level - 1]
        kept.append(
            Part(
                renumber(part.blocks),
                part.alpha,
                part.beta,
                part.shared,
                part.vector,
                part.origin,
                part.kept,
                part.exponent.copy(),
            )
        )
    outputs = renumber(outputs)
    for block in [*(w for p in kept for w in p.blocks.values()), *outputs.values()]:
        if not np.isfinite(block).all():
            raise ValueError(SCALES)
    inputs = network.inputs
    if outputs:
        used = _drop_inputs(kept, outputs, inputs) if compress else np.ones(inputs, dtype=bool)
        inputs = int(used.sum())
        exponent = _rescale(kept, outputs)
        if compress and not per_input:
            inputs = _compress(kept, outputs, inputs)
    else:
        exponent, used = 0, np.zeros(inputs, dtype=bool)
    return Problem(inputs, kept, outputs, network.classes, exponent, per_input, slack, used)


def _drop_inputs(parts: list[Part], outputs: dict[int, np.ndarray], inputs: int) -> np.ndarray:
    readers = [p.blocks for p in parts] + [outputs]
    used = np.zeros(inputs, dtype=bool)
    for reader in readers:
        if 0 in reader:
            used |= (reader[0] != 0).any(0)
    for reader in readers:
        if 0 in reader:
            reader[0] = np.ascontiguousarray(reader[0][:, used])
    return used


def _by_powers(block: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """block * 2^exponents, rounded once: what np.ldexp gives, several times as fast where each power is a float64."""
    if np.abs(exponents).max(initial=0) > 1000:
        return np.ldexp(block, exponents)
    return block * np.ldexp(1.0, exponents)


def _exponents(blocks: dict[int, np.ndarray]) -> np.ndarray:
    """Power of two nearest each row's norm, computed without overflow."""
    top = np.max([np.abs(b).max(1, initial=0.0) for b in blocks.values()], axis=0)
    _, lead = np.frexp(top)
    total = sum((_by_powers(b, -lead[:, None]) ** 2).sum(1) for b in blocks.values())
    with np.errstate(divide="ignore"):
        extra = np.where(total > 0, np.round(0.5 * np.log2(np.maximum(total, 1e-300))), 0)
    return np.where(top > 0, lead + extra, 0).astype(np.int64)


def _rescale(parts: list[Part], outputs: dict[int, np.ndarray]) -> int:
    for level, part in enumerate(parts, start=1):
        exps = _exponents(part.blocks)
        if part.shared:
            exps = np.full(part.size, int(np.median(exps)) if part.size else 0)
        part.blocks = {k: _by_powers(b, -exps[:, None]) for k, b in part.blocks.items()}
        part.exponent = part.exponent + exps
        for reader in [*(p.blocks for p in parts), outputs]:
            if level in reader:
                reader[level] = _columns_scaled(reader[level], exps)
    exponent = int(_exponents({0: np.concatenate([c.ravel() for c in outputs.values()])[None]})[0])
    for k in outputs:
        outputs[k] = np.ldexp(outputs[k], -exponent)
    return exponent


def _columns_scaled(block: np.ndarray, exps: np.ndarray) -> np.ndarray:
    """Columns times 2^exps. Errors: ValueError where the block leaves float64's range, upward or down to nothing."""
    with np.errstate(over="ignore"):
        scaled = _by_powers(block, exps[None, :])
    # Single entries may vanish beside others; a block that does would take its constant with it.
    if not np.isfinite(scaled).all() or (block.any() and np.abs(scaled).max() < TINY):
        raise ValueError(SCALES)
    return scaled


def _compress(parts: list[Part], outputs: dict[int, np.ndarray], inputs: int) -> int:
    readers = [p.blocks for p in parts if 0 in p.blocks] + ([outputs] if 0 in outputs else [])
    stacked = np.concatenate([r[0] for r in readers])
    if inputs <= len(stacked):
        return inputs
    factor = compressed(stacked)
    start = 0
    for reader in readers:
        stop = start + len(reader[0])
        reader[0] = factor[start:stop]
        start = stop
    return len(stacked)


def compressed(stacked: np.ndarray) -> np.ndarray:
    """Square L (M, M) with L L' >= W W' for W = `stacked` (M, n), rows brought to one scale for the factorisation."""
    exps = _exponents({0: stacked})
    return _by_powers(gram_factor(_by_powers(stacked, -exps[:, None])), exps[:, None])


def gram_factor(w: np.ndarray) -> np.ndarray:
    """Square L with L L' >= W W' proven despite rounding, and at most a few n * 1e-16 above it."""
    gram = w @ w.T
    rows = np.sqrt(np.einsum("ij,ij->i", w, w))
    delta = gamma(w.shape[1] + 4) * float(rows.max() * rows.sum()) + TINY
    lift = 4.0 * delta
    while True:
        target = gram + lift * np.eye(len(gram))
        try:
            factor = np.linalg.cholesky(target)
        except np.linalg.LinAlgError:
            lift *= 4.0
            continue
        residual = float(np.abs(target - factor @ factor.T).sum(1).max())
        absolute = np.abs(factor)
        residual += gamma(len(gram) + 4) * float((absolute @ absolute.sum(0)).max())
        residual += 4.0 * UNIT * (float(np.diag(gram).max()) + lift)
        if (residual + delta) * (1 + 1e-10) <= lift:
            return factor
        lift *= 4.0
