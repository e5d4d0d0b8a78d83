"""Slopes of a network found without the plugin: by mpmath's difference quotients, or by torch's own autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
import torch
from torch import nn

from benchmarks.lipschitz_nets import Case

Rng = np.random.Generator
# Digits of mpmath: scales of 1e150 meet scales of 1e-150, and a difference must keep some digits of both.
DIGITS = 420
# Step of a difference quotient, relative to the size of the point.
STEP = "1e-30"


@dataclass
class Slope:
    """value: the largest slope found, in the norm asked for; x: where, (n,) float64."""

    value: Any
    x: np.ndarray


@dataclass
class Place:
    """A region: ``region`` for the plugin, ``sample(count)`` draws points (count, n) strictly inside,
    ``project`` brings points (B, n) back inside. None everywhere for the whole space."""

    name: str
    region: Any
    sample: Callable[[int], np.ndarray]
    project: Callable[[np.ndarray], np.ndarray]


def stretch(j: np.ndarray, infinity: bool) -> tuple[float, np.ndarray]:
    """(||J d||, d) for the unit direction d, in l2 or among sign vectors, that J (K, n) stretches most."""
    if infinity:
        n = j.shape[1]
        signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * min(n, 8))).reshape(min(n, 8), -1).T
        signs = np.concatenate([signs, np.ones((len(signs), n - signs.shape[1]))], axis=1)
        lengths = np.linalg.norm(signs @ j.T, axis=1)
        return float(lengths.max()), signs[lengths.argmax()]
    _, s, vt = np.linalg.svd(j)
    return float(s[0]), vt[0]


def by_autograd(case: Case, place: Place, infinity: bool, rng: Rng, seeds: list[np.ndarray]) -> Slope:
    """Hill climbing on the norm of the Jacobian, batch by batch, in float64."""
    module = _double(case.module)
    points = np.concatenate([place.sample(48), *(place.project(s[None]) for s in seeds)])
    best = Slope(0.0, points[0])
    spread = np.abs(points).max(axis=0).max() or 1.0
    for turn in range(7):
        jacobians = _jacobians(module, points, case.shape)
        norms = np.array([stretch(j, infinity)[0] if np.isfinite(j).all() else 0.0 for j in jacobians])
        order = np.argsort(-norms)
        if norms[order[0]] > best.value:
            best = Slope(float(norms[order[0]]), points[order[0]])
        if place.name == "Data":
            break  # the bound is for inputs like the given ones
        chosen = points[order[:8]]
        step = spread * 10.0 ** -rng.uniform(0.3, 0.7 + 0.7 * turn, (40, 1))
        moved = chosen[rng.integers(0, len(chosen), 40)] + step * rng.standard_normal((40, points.shape[1]))
        points = place.project(np.concatenate([chosen, moved]))
    return best


def by_quotient(case: Case, place: Place, infinity: bool, at: Slope) -> Slope:
    """The largest difference quotient of torch's own values near ``at``, less what float64 can have added to it: torch
    differentiates some activations by rounded constants (hardsigmoid's 1/6 is a float32)."""
    module, x = _double(case.module), at.x
    _, d = stretch(_jacobians(module, x[None], case.shape)[0], infinity)
    best = Slope(0.0, x)
    for step in np.geomspace(1e-1, 1e-6, 11) * (np.abs(x).max() or 1.0):
        for sign in (1.0, -1.0):
            moved = x + sign * step * d
            y = moved if place.name == "Data" else place.project(moved[None])[0]
            with torch.no_grad():
                values = module(torch.tensor(np.stack([x, y])).reshape(-1, *case.shape)).flatten(1).numpy()
            length = np.abs(y - x).max() if infinity else np.linalg.norm(y - x)
            rose = np.linalg.norm(values[1] - values[0]) - 1e-14 * np.abs(values).max()
            if length > 0 and rose / length > best.value:
                best = Slope(float(rose / length), x)
    return best


def _double(module: nn.Module) -> nn.Module:
    from copy import deepcopy

    return deepcopy(module).double().eval()


def _jacobians(module: nn.Module, points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    x = torch.tensor(points).reshape(-1, *shape).requires_grad_()
    out = module(x).flatten(1)
    rows = [torch.autograd.grad(out[:, k].sum(), x, retain_graph=True)[0] for k in range(out.shape[1])]
    return torch.stack(rows, 1).flatten(2).numpy()


def by_mpmath(case: Case, place: Place, infinity: bool, rng: Rng, seeds: list[np.ndarray]) -> Slope:
    """Difference quotients between two real inputs, with DIGITS digits: true slopes whatever the scales."""
    assert case.exactly is not None
    points = np.concatenate([place.sample(5), *(place.project(s[None]) for s in seeds)])
    best = Slope(mp.mpf(0), points[0])
    with mp.workdps(DIGITS):
        for x in points:
            start = [mp.mpf(float(v)) for v in x]
            step = mp.mpf(STEP) * max([abs(v) for v in start] + [mp.mpf(float(case.typical)) * mp.mpf("1e-6")])
            base = case.exactly(start)
            columns = [_difference(case, start, base, {i: step}) for i in range(len(start))]
            top = max((abs(v) for c in columns for v in c), default=mp.mpf(0))
            if top == 0:
                continue
            j = np.array([[float(v / top) for v in c] for c in columns]).T
            _, d = stretch(j, infinity)
            moved = _difference(case, start, base, {i: step * mp.mpf(float(v)) for i, v in enumerate(d)})
            length = max(abs(mp.mpf(float(v))) for v in d) if infinity else mp.norm([mp.mpf(float(v)) for v in d])
            slope = mp.norm(moved) / (step * length)
            if slope > best.value:
                best = Slope(slope, x)
    return best


def _difference(case: Case, start: list[Any], base: list[Any], by: dict[int, Any]) -> list[Any]:
    assert case.exactly is not None
    there = case.exactly([v + by.get(i, 0) for i, v in enumerate(start)])
    return [a - b for a, b in zip(there, base)]


def find(case: Case, place: Place, infinity: bool, rng: Rng, seeds: list[np.ndarray]) -> Slope:
    """The largest slope found inside `place`. seeds: inputs (n,) worth a look, such as the plugin's own witness."""
    finite = [s for s in seeds if np.isfinite(s).all()]
    look = by_autograd if case.exactly is None else by_mpmath
    if case.exactly is not None:
        with np.errstate(all="ignore"):  # beyond float64 autograd only loses the hint
            hint = by_autograd(case, place, infinity, rng, finite)
        finite = [*finite, hint.x]
    return look(case, place, infinity, rng, finite)
