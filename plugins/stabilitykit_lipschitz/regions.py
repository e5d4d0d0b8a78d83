"""Where a local constant is taken, and the slopes that interval bounds leave possible there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stabilitykit_lipschitz.network import Layer, Network
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.norms import spectral
from stabilitykit_lipschitz.propagation import Slopes, propagated
from stabilitykit_lipschitz.rounding import UNIT


@dataclass(frozen=True)
class Ball:
    """All x with ||x - center||_2 <= radius. center: array with n numbers (any shape)."""

    center: np.ndarray
    radius: float

    def __post_init__(self) -> None:
        if not (0 <= self.radius < np.inf and np.isfinite(np.asarray(self.center, dtype=np.float64)).all()):
            raise ValueError(f"Ball: expected a finite center and a radius >= 0, got radius {self.radius}")

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        c = np.asarray(self.center, dtype=np.float64).ravel()
        margin = self.radius * (1 + 4 * UNIT)
        return c - margin - UNIT * np.abs(c), c + margin + UNIT * np.abs(c)

    def project(self, x: np.ndarray) -> np.ndarray:
        """Nearest points of the ball, (B, n) -> (B, n)."""
        c = np.asarray(self.center, dtype=np.float64).ravel()
        away = x - c
        length = np.linalg.norm(away, axis=1, keepdims=True)
        return c + away * np.minimum(1.0, self.radius * (1 - 1e-12) / np.maximum(length, 1e-300))

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        c = np.asarray(self.center, dtype=np.float64).ravel()
        away = rng.standard_normal((count, len(c)))
        away *= self.radius * rng.random((count, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
        return self.project(c + away)

    def contains(self, x: np.ndarray) -> bool:
        return bool(np.linalg.norm(np.ravel(x) - np.ravel(self.center)) <= self.radius)


@dataclass(frozen=True)
class Box:
    """All x with lower <= x <= upper, coordinate by coordinate (an l-infinity ball, an image's [0, 1])."""

    lower: np.ndarray
    upper: np.ndarray

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        low = np.asarray(self.lower, dtype=np.float64).ravel()
        high = np.asarray(self.upper, dtype=np.float64).ravel()
        if low.shape != high.shape or not (low <= high).all() or not np.isfinite([low, high]).all():
            raise ValueError("Box: expected finite lower <= upper of equal shapes")
        return low, high

    def project(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, *self.box())

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        low, high = self.box()
        return low + (high - low) * rng.random((count, len(low)))

    def contains(self, x: np.ndarray) -> bool:
        low, high = self.box()
        return bool((low <= np.ravel(x)).all() and (np.ravel(x) <= high).all())


@dataclass(frozen=True)
class Data:
    """The inputs whose normalisation layers see at least the spread the given inputs have: (B, ...) array.

    Only normalisation layers use it; the bound then holds for all pairs of inputs on which every LayerNorm's
    standard deviation is at least the smallest one measured here.

    powers: the smallest mean square entering each normalisation layer, in order, where it was measured elsewhere
    (over more inputs than fit in memory); count: how many inputs that was.
    """

    inputs: np.ndarray
    powers: tuple[float, ...] | None = None
    count: int = 0


Region = Ball | Box | Data
Norm = Callable[[np.ndarray], float]


def tighten(network: Network, region: Region | None, norm: Norm | None = None) -> Network:
    """The network with slope bounds valid on `region` (global ones for None), and its assumptions.

    norm: an upper bound of the spectral norm that remembers the weights' (`norms.Norms`), for many regions.
    Errors: ValueError naming a normalisation layer that no region bounds.
    """
    if region is None:
        for layer in network.layers:
            if isinstance(layer.activation, Normalisation):
                raise ValueError(_refusal(layer))
        return network
    if isinstance(region, Data):
        return _on_data(network, region)
    return slopes_of(network, [region], norm).network(network, 0)


def slopes_of(network: Network, regions: Sequence[Ball | Box], norm: Norm | None = None) -> Slopes:
    """Slope bounds valid on each of several regions of one kind. Errors: ValueError for a region of another size."""
    boxes = [region.box() for region in regions]
    for low, _ in boxes:
        if len(low) != network.inputs:
            raise ValueError(f"region has {len(low)} coordinates; expected {network.inputs}, the size of one input")
    lows, highs = (np.stack(ends) for ends in zip(*boxes, strict=True))
    balls = [region for region in regions if isinstance(region, Ball)]
    if not balls:
        return propagated(network, lows, highs, norm or spectral)
    centers = np.stack([np.ravel(np.asarray(ball.center, dtype=np.float64)) for ball in balls])
    radii = np.array([float(ball.radius) for ball in balls])
    return propagated(network, lows, highs, norm or spectral, centers, radii)


def _refusal(layer: Layer) -> str:
    assert isinstance(layer.activation, Normalisation)
    eps = layer.activation.eps
    known = f"1/sqrt(eps) = {eps**-0.5:.3g}" if eps > 0 else "unbounded"
    return (
        f"normalisation layer {layer.name!r} has no useful global Lipschitz constant (its factor is {known}, "
        "reached by constant inputs); expected region=Ball(...), Box(...) or Data(inputs), on which its standard "
        "deviation stays away from zero"
    )


def smallest_powers(network: Network, inputs: np.ndarray) -> tuple[float, ...]:
    """Smallest mean square entering each normalisation layer over inputs (B, ...), less 1e-9 of it for rounding."""
    x = np.asarray(inputs, dtype=np.float64)
    pre, _ = network.states(x.reshape(len(x), -1))
    return tuple(
        float((z * z).mean(1).min()) * (1 - 1e-9)
        for layer, z in zip(network.layers, pre)
        if isinstance(layer.activation, Normalisation)
    )


def _on_data(network: Network, region: Data) -> Network:
    powers = iter(smallest_powers(network, region.inputs) if region.powers is None else region.powers)
    count = region.count or len(region.inputs)
    layers: list[Layer] = []
    notes: list[str] = []
    for layer in network.layers:
        if isinstance(layer.activation, Normalisation):
            power = next(powers)
            if power + layer.activation.eps <= 0.0:
                raise ValueError(f"normalisation layer {layer.name!r} sees a constant input and has eps = 0: no bound")
            gain = np.full(layer.size, (power + layer.activation.eps) ** -0.5 * (1 + 1e-12))
            layers.append(replace(layer, alpha=-gain, beta=gain))
            notes.append(
                f"holds for inputs on which the root mean square entering {layer.name!r} is at least "
                f"{power**0.5:.6g}, the smallest of {count} given inputs"
            )
        else:
            layers.append(layer)
    return replace(network, layers=tuple(layers), assumptions=(*network.assumptions, *notes))
