"""How many digits of a distance between readouts can be trusted, and how to keep them where subtraction loses them.

Two things take digits away. **Subtraction**: two images classified with near certainty have probabilities that agree
to many digits, and a difference of probabilities is off by up to :data:`SUBTRACTION` whatever its size. The logarithms
of probabilities do not have that trouble: p - q = max(p, q) * expm1(-|log p - log q|), signed. **The network**: it ran
in float32 (or less), and a float64 pass through the same weights gives other logits. By how much a distance moves then
follows from how steep softmax is at the two readouts; :data:`NETWORK_ULPS` was measured (tests/core/test_digits.py).
"""

from __future__ import annotations

import math

import numpy as np
import torch

from stabilitykit.dynamics.space import Space

# A number with fewer trustworthy digits is flagged: tables show four.
ENOUGH = 4
# Bound of the error of an l2 distance between two float64 softmax rows that are subtracted. Each row is off by at most
# 24 units of 2^-53, relatively: rounding of exp, of the sum (numpy adds pairwise) and of the quotient.
SUBTRACTION = 2 * 24 * 2.0**-53
# Distances from here on keep ENOUGH digits when probabilities are subtracted.
LIMIT = 10.0**ENOUGH * SUBTRACTION
# Standard deviation of logits from those of a float64 pass, in units of rounding of the largest logit of the row.
NETWORK_ULPS = 4.0


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Logarithms of softmax, float64, each right to a few units of its own last place, also where it is near 0.

    Arguments:
        logits: (..., K), float32 or float64.

    Examples:
        >>> log_probabilities(np.array([0.0, -40.0])).tolist()
        [-4.248354255291589e-18, -40.0]
    """
    values = np.asarray(logits, dtype=np.float64)
    largest = values.argmax(axis=-1)[..., None]
    shifted = values - np.take_along_axis(values, largest, axis=-1)
    others = np.exp(shifted)
    # The largest term is exactly 1 and is left to log1p: in 1 + 1e-20 the rest would be lost.
    np.put_along_axis(others, largest, 0.0, axis=-1)
    found: np.ndarray = shifted - np.log1p(others.sum(axis=-1, keepdims=True))
    return found


def distances_from_logits(first: np.ndarray, second: np.ndarray, space: Space) -> np.ndarray:
    """l2 distances (...) between readouts in ``space``, float64, with the digits that subtracting probabilities loses.

    They are off by what a change of each logit by 2^-50 of the largest one would do, far below a float32 pass.

    Arguments:
        first, second: logits (..., K), float32 or float64.
    """
    if space == "logits":
        return _lengths(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))
    a, b = log_probabilities(first), log_probabilities(second)
    return _lengths(np.exp(np.maximum(a, b)) * np.expm1(-np.abs(a - b)))


def distance_errors(first: np.ndarray, second: np.ndarray, space: Space, dtype: str) -> np.ndarray:
    """By how much the network's rounding moves these distances, about (one standard deviation), float64 (...).

    Arguments:
        first, second: logits (..., K), float32 or float64.
        dtype: of the pass through the network, a name of torch's (``"float32"``, ``"bfloat16"``).
    """
    unit = NETWORK_ULPS * torch.finfo(getattr(torch, dtype)).eps
    rows = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    moved = unit * np.maximum(*(np.abs(row).max(axis=-1) for row in rows))
    if space == "logits":
        return np.asarray(math.sqrt(2) * moved)
    # d p_k / d z_k = p_k (1 - p_k); the other logits move p_k by no more than that together.
    steep = [_lengths(np.exp(logs) * np.expm1(logs)) for logs in map(log_probabilities, rows)]
    return np.asarray(math.sqrt(2) * moved * np.hypot(*steep))


def trustworthy(distance: float, error: float) -> int:
    """Decimal digits of a distance that an error leaves; at most 15, the number of a float64."""
    if distance <= 0:
        return 0
    return 15 if error <= 0 else min(max(math.floor(math.log10(distance) - math.log10(error)), 0), 15)


def digits_of(first: np.ndarray, second: np.ndarray, space: Space, dtype: str, rounding: float = 0.0) -> int | None:
    """Trustworthy digits of the distance between two readouts; None where they are equal to the last bit.

    Of a distance below :data:`LIMIT` it is taken that it was computed from logits.

    Arguments:
        first, second: logits (K,), float32 or float64.
        dtype: of the pass through the network.
        rounding: what else the distance is off by, absolutely.
    """
    if np.array_equal(first, second):
        return None
    distance = float(distances_from_logits(first, second, space))
    return trustworthy(distance, float(distance_errors(first, second, space, dtype)) + rounding)


def digits_note(digits: int | None, dtype: str) -> str:
    """Words for the note of a number that has fewer than :data:`ENOUGH` trustworthy digits; empty for others."""
    if digits is None or digits >= ENOUGH:
        return ""
    count = "no digit is" if digits == 0 else "1 digit is" if digits == 1 else f"{digits} digits are"
    return f"about {count} trustworthy: a {dtype} pass through the network moves it in the next"


def _lengths(differences: np.ndarray) -> np.ndarray:
    """l2 norms (...) of float64 vectors (..., K), also where their squares would vanish."""
    largest = np.abs(differences).max(axis=-1)
    scale = np.where(largest > 0, largest, 1.0)
    return np.asarray(largest * np.sqrt(np.square(differences / scale[..., None]).sum(axis=-1)))
