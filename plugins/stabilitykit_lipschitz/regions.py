"""Where a local constant is taken, and the slopes that interval bounds leave possible there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.affine import UNDERFLOW, Form, activated, affine, row_norms
from stabilitykit_lipschitz.network import Layer, Network
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.norms import spectral
from stabilitykit_lipschitz.rounding import UNIT, gamma


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
    low, high = region.box()
    if len(low) != network.inputs:
        raise ValueError(f"region has {len(low)} coordinates; expected {network.inputs}, the size of one input")
    return network.with_slopes(_propagate(network, region, low, high, norm or spectral))


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
    from dataclasses import replace

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


def _propagate(network: Network, region: Region, low: np.ndarray, high: np.ndarray, norm: Norm) -> list:
    """Bounds of every pre-activation, hence slopes: the intersection of interval arithmetic, of affine forms and, on a
    ball, of what the value at its centre and a norm product allow. Rounding is paid by relative margins."""
    lows, highs = [low], [high]
    center, radius = None, 0.0
    centers: list[np.ndarray] = []
    lost = [np.zeros(network.inputs)]  # rounding of the forward pass at the centre, per state
    half: np.ndarray | float = 0.5 * (high - low) * (1 + 4 * UNIT)
    middle = 0.5 * (low + high)
    if isinstance(region, Ball):
        center, radius = np.ravel(np.asarray(region.center, dtype=np.float64)), float(region.radius)
        centers = network.states(center[None])[1]
        half, middle = radius, center
    none = np.zeros((network.inputs, 0))
    forms: list[Form | None] = [Form(middle, none, none, 4 * UNIT * np.abs(middle), center is not None)]
    gains = [1.0]  # bound on how fast each state moves with x, in l2
    slopes = []
    for index, layer in enumerate(network.layers, start=1):
        z_low, z_high = layer.bias.copy(), layer.bias.copy()
        size = np.abs(layer.bias)
        reach = np.zeros(layer.size)
        errors = {k: network.errors.get((index, k), 0.0) for k in layer.blocks}
        for k, w in layer.blocks.items():
            between, wide = 0.5 * (lows[k] + highs[k]), 0.5 * (highs[k] - lows[k])
            spread = np.abs(w) @ wide
            shift = w @ between
            z_low, z_high = z_low + shift - spread, z_high + shift + spread
            size = size + np.abs(w) @ (np.abs(between) + wide)
            reach = reach + (row_norms(w) + errors[k]) * gains[k]
            size = size + errors[k] / UNIT * np.sqrt(float((np.abs(between) + wide) @ (np.abs(between) + wide)))
        rate = 4.0 * gamma(sum(w.shape[1] for w in layer.blocks.values()) + 8)
        z_low, z_high = z_low - rate * size - UNDERFLOW, z_high + rate * size + UNDERFLOW
        if center is not None:
            at = layer.bias + sum(w @ centers[k][0] for k, w in layer.blocks.items())
            terms = np.abs(layer.bias) + sum(np.abs(w) @ np.abs(centers[k][0]) for k, w in layer.blocks.items())
            inherited = sum((np.abs(w) @ lost[k]) for k, w in layer.blocks.items())
            away = rate * (terms + size) + inherited * (1 + 1e-12) + UNDERFLOW
            steep = np.maximum(np.abs(layer.alpha), np.abs(layer.beta))
            lost.append(steep * away + 1e-14 * (1.0 + np.abs(centers[index][0]) + np.abs(at)))
            margin = away + radius * reach * (1 + 1e-12)
            z_low, z_high = np.fmax(z_low, at - margin), np.fmin(z_high, at + margin)
        form = affine(layer.blocks, layer.bias, forms, half, errors)
        if form is not None:
            least, most = form.bounds()
            z_low, z_high = np.fmax(z_low, least), np.fmin(z_high, most)
        z_low, z_high = np.where(np.isnan(z_low), -np.inf, z_low), np.where(np.isnan(z_high), np.inf, z_high)
        if isinstance(layer.activation, Normalisation):
            alpha, beta, y_low, y_high = _normalised(layer, z_low, z_high)
            form = None
        else:
            alpha, beta = layer.activation.bounds_on(z_low, z_high)
            y_low, y_high = _image(layer, z_low, z_high, alpha, beta)
            form = None if form is None else activated(form, layer.activation, z_low, z_high)
        if form is not None:
            least, most = form.bounds()
            y_low, y_high = np.fmax(y_low, least), np.fmin(y_high, most)
        forms.append(form)
        slopes.append((alpha, beta))
        lows.append(y_low)
        highs.append(y_high)
        steepest = float(np.maximum(np.abs(alpha), np.abs(beta)).max(initial=0.0))
        gains.append(steepest * sum((norm(w) + errors[k]) * gains[k] for k, w in layer.blocks.items()) * (1 + 1e-14))
    return slopes


def _normalised(layer: Layer, low: np.ndarray, high: np.ndarray) -> tuple:
    assert isinstance(layer.activation, Normalisation)
    nearest = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    power = float((nearest * nearest).mean()) * (1 - 1e-12)
    floor = power + layer.activation.eps
    if floor <= 0.0 or power == 0.0:
        raise ValueError(
            f"normalisation layer {layer.name!r}: interval bounds on this region do not keep its standard "
            "deviation away from zero; expected a smaller Ball or Box, or Data(inputs)"
        )
    beta = np.full(layer.size, floor**-0.5 * (1 + 1e-12))
    bound = np.sqrt(layer.size) * np.ones(layer.size)
    return np.zeros(layer.size), beta, -bound, bound


def _image(layer: Layer, low: np.ndarray, high: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> tuple:
    """Range of the activation on [low, high]: from both ends, and from a slope cone about the middle."""
    value = layer.activation.value
    with np.errstate(over="ignore", invalid="ignore"):
        left, right, middle = value(low), value(high), value(0.5 * (low + high))
        fall = np.minimum(alpha, 0.0) * (high - low)  # how far it can fall on the way, 0 where it only rises
        cone = np.maximum(np.abs(alpha), np.abs(beta)) * 0.5 * (high - low)
        y_low, y_high = np.fmax(left + fall, middle - cone), np.fmin(right - fall, middle + cone)
    y_low, y_high = np.where(np.isnan(y_low), -np.inf, y_low), np.where(np.isnan(y_high), np.inf, y_high)
    margin = 1e-14 * (1.0 + np.abs(y_low) + np.abs(y_high) + np.abs(low) + np.abs(high))
    return y_low - margin, y_high + margin
