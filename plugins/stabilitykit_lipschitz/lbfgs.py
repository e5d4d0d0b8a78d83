"""Limited-memory BFGS with a line search that keeps working when the values agree to rounding."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg.blas import saxpy

Objective = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass
class Descent:
    """x, value and gradient at the end; evaluations spent; converged: the gradient reached its goal."""

    x: np.ndarray
    value: float
    gradient: np.ndarray
    evaluations: int
    converged: bool


def _two_loop(gradient: np.ndarray, memory: deque) -> np.ndarray:
    """The direction of descent (n,), in the gradient's dtype. memory: (s, y, rho) in float32: a direction needs no more
    digits, and reading the memory is what it costs."""
    q = gradient.astype(np.float32)
    weights = []
    for s, y, rho in reversed(memory):
        a = rho * float(s @ q)
        weights.append(a)
        q = saxpy(y, q, a=-a)  # in place
    if memory:
        s, y, rho = memory[-1]
        q *= np.float32(1.0 / (rho * float(y @ y)))
    for (s, y, rho), a in zip(memory, reversed(weights)):
        q = saxpy(s, q, a=a - rho * float(y @ q))
    return -q.astype(gradient.dtype, copy=False)


def minimise(objective: Objective, x: np.ndarray, goal: float, most: int, history: int = 20) -> Descent:
    """Minimise from x until the gradient's 2-norm is at most `goal` or `most` evaluations are spent.

    x is float64 or float32, and so is the gradient. Steps are accepted by the approximate Wolfe conditions (Hager and
    Zhang): near the optimum the value is flat to rounding and only the slope along the step carries information.
    """
    value, gradient = objective(x)
    spent, first = 1, True
    memory: deque = deque(maxlen=history)
    while spent < most:
        norm = float(np.sqrt(gradient @ gradient))
        if norm <= goal:
            return Descent(x, value, gradient, spent, True)
        direction = _two_loop(gradient, memory)
        slope = float(gradient @ direction)
        if slope >= 0.0:
            memory.clear()
            direction, slope = -gradient, -norm * norm
        step = min(1.0, 0.3 * max(float(np.sqrt(x @ x)), 1e-300) / norm) if first or not memory else 1.0
        low, high = 0.0, np.inf
        slack = 45.0 * float(np.finfo(x.dtype).eps) * abs(value)
        accepted = None
        for _ in range(25):
            trial = x + step * direction
            new_value, new_gradient = objective(trial)
            spent += 1
            new_slope = float(new_gradient @ direction)
            drop = new_value <= value + 1e-4 * step * slope
            flat = new_value <= value + slack and new_slope <= (2e-4 - 1.0) * slope
            if not (drop or flat):
                high = step
            elif new_slope < 0.9 * slope:
                low = step
                accepted = (trial, new_value, new_gradient)
            else:
                accepted = (trial, new_value, new_gradient)
                break
            if spent >= most:
                break
            if np.isinf(high):
                step *= 4.0
            elif new_slope > 0 and not (drop or flat):
                # secant on the slopes, safeguarded
                guess = low + (step - low) * min(max(-slope / (new_slope - slope), 0.1), 0.5)
                step = guess if low < guess < high else 0.5 * (low + high)
            else:
                step = 0.5 * (low + high)
        if accepted is None:
            if not memory:
                break
            memory.clear()
            continue
        trial, new_value, new_gradient = accepted
        s, y = trial - x, new_gradient - gradient
        curvature = float(s @ y)
        if curvature > 1e-14 * float(np.sqrt((s @ s) * (y @ y))):
            size = float(np.sqrt(s @ s))  # pairs of unit steps stay well inside float32's range
            memory.append(((s / size).astype(np.float32), (y / size).astype(np.float32), size * size / curvature))
        x, value, gradient, first = trial, new_value, new_gradient, False
    return Descent(x, value, gradient, spent, float(np.sqrt(gradient @ gradient)) <= goal)
