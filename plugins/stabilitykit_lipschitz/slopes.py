"""Slope bounds of activations: sup and inf of (f(a) - f(b)) / (a - b), globally and on an interval.

Each activation gives its derivative and the points between which the derivative is monotone (kinks and the roots
of the second derivative), so the range on any interval is attained at its ends or at one of those points.
Computed roots are rounded outward by SLACK.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import erf, expit

# The derivative is flat at a root of the second derivative, so a root error of 1e-12 moves the extremum by 1e-24;
# evaluation costs a few ulp. 1e-12 covers both.
SLACK = 1e-12

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Diagonal:
    """Derivative of an elementwise layer at one batch of points: slope (B, N)."""

    slope: np.ndarray

    def push(self, v: np.ndarray) -> np.ndarray:
        return self.slope * v

    pull = push


@dataclass(frozen=True)
class Activation:
    """An elementwise activation.

    value, derivative: arrays (..., N) -> (..., N). turning: (point, lowest, highest derivative near the point);
    limits: derivative at -inf and +inf. exact: bounds are exact numbers, no outward rounding.
    kinks: points where the derivative jumps. blur: how far torch's own values may be away (a branch it takes for
    speed). Arrays of shape (N,) are allowed in place of the numbers (PReLU).
    """

    name: str
    value: Function
    derivative: Function
    turning: tuple[tuple[float, Any, Any], ...]
    limits: tuple[Any, Any]
    kinks: tuple[float, ...] = ()
    exact: bool = False
    piecewise_linear: bool = False
    blur: float = 0.0

    def bounds(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Global (alpha, beta), each (size,) float64."""
        full = np.full(size, np.inf)
        return self._rounded(*self._range(-full, full))

    def bounds_on(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(alpha, beta) valid for every pair of pre-activations in [lower, upper], each (..., N); never wider than the
        global bounds."""
        low, high = self._rounded(*self._range(lower, upper))
        least, most = self.bounds(lower.shape[-1])
        return np.maximum(low, least), np.minimum(high, most)

    def _range(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            left = np.where(np.isinf(lower), self.limits[0], self.derivative(np.maximum(lower, -1e300)))
            right = np.where(np.isinf(upper), self.limits[1], self.derivative(np.minimum(upper, 1e300)))
        low, high = np.minimum(left, right), np.maximum(left, right)
        for point, least, most in self.turning:
            inside = (lower <= point) & (point <= upper)
            low = np.where(inside, np.minimum(low, least), low)
            high = np.where(inside, np.maximum(high, most), high)
        return low, high

    def _rounded(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outward by SLACK, but where the bounds are exact."""
        if not self.exact:
            # Monotone saturating activations have infimum exactly 0: keep it, do not round below.
            low = np.where(low == 0.0, 0.0, low - SLACK * (1.0 + np.abs(low)))
            high = np.where((high == 1.0) & self._tops_at_one, high, high + SLACK * (1.0 + np.abs(high)))
        return np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)

    @property
    def _tops_at_one(self) -> bool:
        """True when 1 is the exact supremum (tanh, softplus): a turning point or limit says so exactly."""
        tops = [most for _, _, most in self.turning] + list(self.limits)
        return all(np.all(np.asarray(top) <= 1.0) for top in tops)

    def linearise(self, z: np.ndarray) -> Diagonal:
        return Diagonal(self.derivative(z))


def _smooth(
    name: str,
    value: Function,
    first: Function,
    second: Callable[[float], float],
    brackets: tuple[tuple[float, float], ...],
    limits: tuple[float, float],
) -> Activation:
    """A smooth activation whose derivative turns once inside each bracket."""
    turning = []
    for a, b in brackets:
        root = brentq(second, a, b, xtol=1e-14, rtol=8.9e-16)
        level = float(first(np.array(root)))
        turning.append((root, level, level))
    return Activation(name, value, first, tuple(turning), limits)


def _gelu() -> Activation:
    def pdf(z):
        return np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)

    def cdf(z):
        return 0.5 * (1.0 + erf(z / math.sqrt(2.0)))

    # f'' = pdf(z) (2 - z^2)
    return _smooth(
        "gelu",
        lambda z: z * cdf(z),
        lambda z: cdf(z) + z * pdf(z),
        lambda z: 2.0 - z * z,
        ((-3.0, 0.0), (0.0, 3.0)),
        (0.0, 1.0),
    )


def _gelu_tanh() -> Activation:
    k, a = math.sqrt(2.0 / math.pi), 0.044715

    def first(z):
        t = np.tanh(k * (z + a * z**3))
        return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * k * (1.0 + 3.0 * a * z * z)

    def second(z):
        u, du, ddu = k * (z + a * z**3), k * (1.0 + 3.0 * a * z * z), 6.0 * k * a * z
        t = np.tanh(u)
        s = 1.0 - t * t
        return s * du + 0.5 * z * (s * ddu - 2.0 * t * s * du * du)

    return _smooth(
        "gelu-tanh",
        lambda z: 0.5 * z * (1.0 + np.tanh(k * (z + a * z**3))),
        first,
        second,
        ((-3.0, -0.5), (0.5, 3.0)),
        (0.0, 1.0),
    )


def silu(rate: float = 1.0, name: str = "silu") -> Activation:
    def first(z):
        s = expit(rate * z)
        return s * (1.0 + rate * z * (1.0 - s))

    def second(z):
        s = expit(rate * z)
        return 2.0 + rate * z * (1.0 - 2.0 * s)

    return _smooth(
        name,
        lambda z: z * expit(rate * z),
        first,
        second,
        ((-5.0 / rate, -0.5 / rate), (0.5 / rate, 5.0 / rate)),
        (0.0, 1.0),
    )


def _mish() -> Activation:
    def softplus(z):
        return np.logaddexp(0.0, z)

    def first(z):
        t = np.tanh(softplus(z))
        return t + z * (1.0 - t * t) * expit(z)

    def second(z):
        t, s = np.tanh(softplus(z)), expit(z)
        d = 1.0 - t * t
        return 2.0 * d * s + z * (-2.0 * t * d * s * s + d * s * (1.0 - s))

    return _smooth("mish", lambda z: z * np.tanh(softplus(z)), first, second, ((-6.0, -1.0), (0.5, 6.0)), (0.0, 1.0))


def _pieces(
    name: str,
    value: Function,
    derivative: Function,
    kinks: tuple[tuple[float, object, object], ...],
    limits: tuple[object, object],
    linear: bool = True,
) -> Activation:
    """An activation made of pieces with exactly known one-sided slopes at its kinks."""
    return Activation(name, value, derivative, kinks, limits, tuple(k[0] for k in kinks), linear, linear)


def leaky(slope: object, name: str = "leaky relu") -> Activation:
    """max(z, 0) + slope min(z, 0); slope a number or an array (N,) (PReLU)."""
    a = np.asarray(slope, dtype=np.float64)
    kink = (0.0, np.minimum(a, 1.0), np.maximum(a, 1.0))
    return _pieces(name, lambda z: np.where(z > 0, z, a * z), lambda z: np.where(z > 0, 1.0, a), (kink,), (a, 1.0))


def clipped(low: float, high: float, name: str = "hardtanh", gain: float = 1.0) -> Activation:
    """gain * clip(z, low, high): slope gain inside, 0 outside; low may be -inf, high inf."""
    kinks = tuple((edge, 0.0, gain) for edge in (low, high) if np.isfinite(edge))
    return _pieces(
        name,
        lambda z: gain * np.clip(z, low, high),
        lambda z: np.where((z > low) & (z < high), gain, 0.0),
        kinks,
        (gain if np.isneginf(low) else 0.0, gain if np.isposinf(high) else 0.0),
    )


def identity() -> Activation:
    return _pieces("identity", lambda z: z, lambda z: np.ones_like(z), (), (1.0, 1.0))


def elu(a: float, scale: float = 1.0, rate: float = 1.0, name: str = "elu") -> Activation:
    """scale * (z if z > 0 else a (exp(rate z) - 1)): slopes between 0, scale and scale a rate, or, for a negative rate
    (CELU with alpha < 0), without bound below zero."""
    top = scale * a * rate

    def value(z):
        with np.errstate(over="ignore"):
            return np.where(z > 0, scale * z, scale * a * np.expm1(rate * np.minimum(z, 0.0)))

    def derivative(z):
        with np.errstate(over="ignore"):
            return np.where(z > 0, scale, top * np.exp(rate * np.minimum(z, 0.0)))

    far = 0.0 if rate > 0 else math.copysign(math.inf, top)
    return Activation(name, value, derivative, ((0.0, min(top, scale), max(top, scale)),), (far, scale), (0.0,))


# From this threshold on torch's softplus, linear above it, jumps by less than 3e-9 / rate: a choice for speed that is
# not part of the function meant.
NEGLIGIBLE = 20.0


def softplus(rate: float = 1.0, threshold: float = NEGLIGIBLE) -> Activation:
    """log(1 + exp(rate z)) / rate: slope expit(rate z). Below a threshold of 20 torch's branch (z itself where
    rate z > threshold) is a jump that counts: no slope bounds hold across it."""
    if threshold >= NEGLIGIBLE:
        return Activation(
            "softplus",
            lambda z: np.logaddexp(0.0, rate * z) / rate,
            lambda z: expit(rate * z),
            (),
            (0.0, 1.0),
            blur=3e-9 / rate,
        )
    edge = threshold / rate
    return Activation(
        "softplus that jumps",
        lambda z: np.where(rate * z > threshold, z, np.logaddexp(0.0, rate * z) / rate),
        lambda z: np.where(rate * z > threshold, 1.0, expit(rate * z)),
        ((edge, -math.inf, 1.0),),
        (0.0, 1.0),
        (edge,),
    )


def stepped(edge: float, level: float) -> Activation:
    """z above ``edge``, ``level`` elsewhere: a jump where the two differ."""
    return Activation(
        "threshold",
        lambda z: np.where(z > edge, z, level),
        lambda z: np.where(z > edge, 1.0, 0.0),
        ((edge, -math.inf, math.inf),),
        (0.0, 1.0),
        (edge,),
    )


def softshrink(edge: float) -> Activation:
    kinks = ((-edge, 0.0, 1.0), (edge, 0.0, 1.0))
    return _pieces(
        "softshrink",
        lambda z: np.sign(z) * np.maximum(np.abs(z) - edge, 0.0),
        lambda z: np.where(np.abs(z) > edge, 1.0, 0.0),
        kinks,
        (1.0, 1.0),
    )


def named(name: str) -> Activation:
    """The activation of that name: one of `NAMES`.

    Errors: ValueError naming the known ones.
    """
    if name not in NAMES:
        raise ValueError(f"no slope bounds known for activation {name!r}; known: {', '.join(NAMES)}")
    return NAMES[name]()


def _sech2(z):
    return 1.0 - np.tanh(z) ** 2


def _relu() -> Activation:
    return leaky(0.0, "relu")


def _tanh() -> Activation:
    return Activation("tanh", np.tanh, _sech2, ((0.0, 1.0, 1.0),), (0.0, 0.0))


def _sigmoid() -> Activation:
    return Activation("sigmoid", expit, lambda z: expit(z) * expit(-z), ((0.0, 0.25, 0.25),), (0.0, 0.0))


def _softsign() -> Activation:
    return Activation(
        "softsign", lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0, ((0.0, 1.0, 1.0),), (0.0, 0.0)
    )


def _tanhshrink() -> Activation:
    return Activation("tanhshrink", lambda z: z - np.tanh(z), lambda z: np.tanh(z) ** 2, ((0.0, 0.0, 0.0),), (1.0, 1.0))


def _logsigmoid() -> Activation:
    return Activation("logsigmoid", lambda z: -np.logaddexp(0.0, -z), lambda z: expit(-z), (), (1.0, 0.0))


def _hardswish() -> Activation:
    def derivative(z):
        return np.where(z <= -3, 0.0, np.where(z >= 3, 1.0, (2 * z + 3) / 6))

    return _pieces(
        "hardswish",
        lambda z: z * np.clip(z + 3, 0, 6) / 6,
        derivative,
        ((-3.0, -0.5, 0.0), (3.0, 1.0, 1.5)),
        (0.0, 1.0),
        linear=False,
    )


def _hardsigmoid() -> Activation:
    sixth = float(np.nextafter(1.0 / 6.0, 1.0))
    return Activation(
        "hardsigmoid",
        lambda z: np.clip(z / 6 + 0.5, 0, 1),
        lambda z: np.where(np.abs(z) < 3, sixth, 0.0),
        ((-3.0, 0.0, sixth), (3.0, 0.0, sixth)),
        (0.0, 0.0),
        (-3.0, 3.0),
        True,
        True,
    )


def _selu() -> Activation:
    return elu(1.6732632423543772848170429916717, 1.0507009873554804934193349852946, name="selu")


NAMES: dict[str, Callable[[], Activation]] = {
    "identity": identity,
    "relu": _relu,
    "relu6": lambda: clipped(0.0, 6.0, "relu6"),
    "hardtanh": lambda: clipped(-1.0, 1.0),
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "leaky relu": lambda: leaky(0.01),
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": softplus,
    "softsign": _softsign,
    "tanhshrink": _tanhshrink,
    "logsigmoid": _logsigmoid,
    "elu": lambda: elu(1.0),
    "selu": _selu,
    "gelu": _gelu,
    "gelu-tanh": _gelu_tanh,
    "silu": silu,
    "quickgelu": lambda: silu(1.702, "quickgelu"),
    "mish": _mish,
}
