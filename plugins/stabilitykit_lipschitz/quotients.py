"""A lower bound for a module that is only run: how far its outputs move between two inputs, over how far these are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.extract import undisturbed
from stabilitykit_lipschitz.layerwise import LayerReading
from stabilitykit_lipschitz.regions import Ball, Box
from stabilitykit_lipschitz.trace import InDouble

# Points tried, outputs differentiated at each, and what of the outputs rounding may have moved.
POINTS, MOST_OUTPUTS = 12, 16
ROUNDING = 1e-11


@dataclass(frozen=True)
class Quotient:
    """value: ||f(x) - f(y)||_q / ||x - y||_p, less what rounding may add; x, y: (n,) float64."""

    value: float
    x: np.ndarray
    y: np.ndarray


def steepest_pair(reading: LayerReading, p: int, q: int, data: np.ndarray | None, seed: int) -> Quotient:
    """The steepest pair of inputs found: from points of the region, or near the given data, along the direction in
    which autograd's Jacobian stretches most. Autograd only chooses; the value is from the outputs themselves.

    Arguments:
        reading: the module. p, q: positions of the norms in `pairs.NORMS`.
        data: optional inputs (B, ...). seed: of the points.
    """
    rng = np.random.default_rng(seed)
    n, region = int(np.prod(reading.shape)), reading.region
    if isinstance(region, (Ball, Box)):
        points = region.sample(POINTS, rng)
    else:
        points = rng.standard_normal((POINTS, n)) * np.reshape(np.geomspace(0.1, 100.0, POINTS), (-1, 1))
    if data is not None and len(data):
        given = np.reshape(data, (len(data), -1))[:POINTS]
        points = np.concatenate([region.project(given) if isinstance(region, (Ball, Box)) else given, points])
    best = Quotient(0.0, points[0], points[0])
    for x in points:
        direction = pairs.stretched(_jacobian(reading, x, rng), p, q)
        for step in (1e-2, 1e-4):
            y = x + step * max(float(np.abs(x).max(initial=0.0)), 1e-3) * direction
            if isinstance(region, (Ball, Box)):
                y = region.project(y[None])[0]
                if not region.contains(x) or not region.contains(y):
                    continue
            found = _quotient(reading, x, y, p, q)
            if found > best.value:
                best = Quotient(found, x.copy(), y.copy())
    return best


def _quotient(reading: LayerReading, x: np.ndarray, y: np.ndarray, p: int, q: int) -> float:
    far = float(np.linalg.norm(x - y, pairs.NORMS[p]))
    if far == 0.0:
        return 0.0
    at, there = reading.values(np.stack([x, y]))
    lost = ROUNDING * (np.abs(at) + np.abs(there))
    moved = np.maximum(0.0, np.abs(at - there) - lost)
    value = float(np.linalg.norm(moved, pairs.NORMS[q])) / far * (1 - 1e-12)
    return value if np.isfinite(value) else 0.0


def _jacobian(reading: LayerReading, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of the Jacobian at x, (at most 16, n): of single outputs, or of random mixtures of many."""
    with undisturbed(2), InDouble(), torch.enable_grad():
        start = torch.tensor(x.reshape(1, *reading.shape), requires_grad=True)
        out = reading.copy(start).reshape(-1)
        mix = np.eye(len(out)) if len(out) <= MOST_OUTPUTS else rng.standard_normal((MOST_OUTPUTS, len(out)))
        rows = []
        for weights in torch.from_numpy(mix):
            if not out.requires_grad:
                break
            (row,) = torch.autograd.grad((out * weights).sum(), start, retain_graph=True, allow_unused=True)
            rows.append(np.zeros(x.shape) if row is None else row.numpy().ravel())
    return np.nan_to_num(np.array(rows)) if rows else np.zeros((1, len(x)))
