"""The dual of LipSDP in Burer-Monteiro form: the forward pass of a vector-valued network.

y_0 = Y_0 with unit Frobenius norm (or unit rows for the l-infinity norm), and for neuron i with z = sum W y:
y_i = centre_i z_i + radius_i ||z_i|| q_i, ||q_i|| = 1. The value ||sum C_k Y_k||_F^2 of any such point is a lower
bound of the SDP's optimum. A shared layer has one sphere: Y = centre Z + sqrt(sum radius^2 ||z||^2) Q, ||Q||_F = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.reduce import Problem

FLOOR = 1e-300


def _rows(a: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("ij,ij->i", a, a))


@dataclass
class Point:
    """Everything one evaluation produces; lists are indexed by state 0..L (pre, length by layer from index 1)."""

    value: float
    unit: list[np.ndarray]  # q: unit rows, or unit Frobenius norm where shared
    size: list[np.ndarray]  # norm of the raw parameters
    y: list[np.ndarray]
    pre: list[np.ndarray]
    length: list[np.ndarray]  # ||z_i|| (N,), or the layer's radius (1,) where shared
    grad: list[np.ndarray]  # half the gradient of the value with respect to y


class Dual:
    """Evaluates the dual value and its gradient for `problem`.

    inflate: every slope interval is widened, and the output raised, by this share. The multipliers of the widened
    problem leave the true matrix inequality strictly feasible, which is what makes them usable; the cost in L is
    about layers * inflate.
    """

    def __init__(self, problem: Problem, inflate: float = 0.0) -> None:
        self.problem = problem
        self.whole = [not problem.per_input, *(p.shared for p in problem.parts)]
        self.centre = [p.centre[:, None] for p in problem.parts]
        self.radius = [p.radius[:, None] * (1.0 + inflate) for p in problem.parts]
        self.outputs = {k: c * (1.0 + inflate) for k, c in problem.outputs.items()}

    def start(self, columns: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Random Y_0, and q = z (every neuron at its largest slope): raw parameters per state."""
        params = [rng.standard_normal((self.problem.inputs, columns))]
        y = [self._unit(params[0], self.whole[0])[0]]
        for part, c, r in zip(self.problem.parts, self.centre, self.radius):
            z = sum(w @ y[k] for k, w in part.blocks.items())
            params.append(z + 1e-3 * rng.standard_normal(z.shape) * (np.abs(z).max() + FLOOR))
            y.append((c + r) * z)
        return params

    @staticmethod
    def _unit(p: np.ndarray, whole: bool) -> tuple[np.ndarray, np.ndarray]:
        if whole:
            size = np.array([np.sqrt(np.vdot(p, p)) + FLOOR])
            return p / size, size
        size = _rows(p) + FLOOR
        return p / size[:, None], size

    def evaluate(self, params: list[np.ndarray]) -> Point:
        problem = self.problem
        unit, size, y, pre, length = [], [], [], [np.empty(0)], [np.empty(0)]
        for p, whole in zip(params, self.whole):
            q, s = self._unit(p, whole)
            unit.append(q)
            size.append(s)
        y.append(unit[0])
        for level, part in enumerate(problem.parts, start=1):
            z = sum(w @ y[k] for k, w in part.blocks.items())
            c, r = self.centre[level - 1], self.radius[level - 1]
            if part.shared:
                rz = r * z
                n = np.array([np.sqrt(np.vdot(rz, rz)) + FLOOR])
                y.append(c * z + n * unit[level])
            else:
                n = _rows(z) + FLOOR
                y.append(c * z + (r * n[:, None]) * unit[level])
            pre.append(z)
            length.append(n)
        out = sum(c @ y[k] for k, c in self.outputs.items())
        value = float(np.vdot(out, out))
        grad: list = [0.0] * len(y)
        for k, c in self.outputs.items():
            grad[k] = grad[k] + c.T @ out
        for level in range(len(problem.parts), 0, -1):
            part, g = problem.parts[level - 1], grad[level]
            c, r = self.centre[level - 1], self.radius[level - 1]
            if np.ndim(g) == 0:
                grad[level] = g = np.zeros_like(y[level])
            z, n, q = pre[level], length[level], unit[level]
            if part.shared:
                back = c * g + (r * r) * z * (np.vdot(q, g) / n)
            else:
                back = c * g + (r[:, 0] * np.einsum("ij,ij->i", q, g) / n)[:, None] * z
            for k, w in part.blocks.items():
                grad[k] = grad[k] + w.T @ back
        if np.ndim(grad[0]) == 0:
            grad[0] = np.zeros_like(y[0])
        return Point(value, unit, size, y, pre, length, grad)

    def slope(self, point: Point) -> list[np.ndarray]:
        """Half the gradient of the value with respect to the raw parameters."""
        result = []
        for level, (q, s, g, whole) in enumerate(zip(point.unit, point.size, point.grad, self.whole)):
            if whole:
                gain = point.length[level] if level else 1.0
                result.append((g - q * np.vdot(q, g)) * (gain / s))
            else:
                along = np.einsum("ij,ij->i", q, g)
                gain = self.radius[level - 1][:, 0] * point.length[level] if level else 1.0
                result.append((g - q * along[:, None]) * (gain / s)[:, None])
        return result

    def fixed_point(self, point: Point) -> list[np.ndarray]:
        """Turn every q parallel to its gradient (one step of a generalised power iteration)."""
        return [
            np.where(np.abs(g).sum(1, keepdims=True) > 0, g, q) if not whole else (g if g.any() else q)
            for g, q, whole in zip(point.grad, point.unit, self.whole)
        ]

    def balanced(self, point: Point) -> list[np.ndarray]:
        """Raw parameters of the same point whose norms make the Hessian's diagonal about one."""
        result = []
        for level, (q, g, whole) in enumerate(zip(point.unit, point.grad, self.whole)):
            if whole:
                gain = float(point.length[level][0]) if level else 1.0
                result.append(q * np.sqrt(gain * np.sqrt(np.vdot(g, g)) + FLOOR))
            else:
                gain = self.radius[level - 1][:, 0] * point.length[level] if level else 1.0
                scale = np.sqrt(gain * _rows(g))
                floor = 1e-8 * scale.max(initial=0.0) + FLOOR
                result.append(q * np.maximum(scale, floor)[:, None])
        return result

    def multipliers(self, point: Point) -> tuple[np.ndarray, list[np.ndarray]]:
        """(input multipliers (n,), t per layer (N,)) read off the gradients; t >= 0.

        For the l2 norm the input multiplier is the value itself in every coordinate.
        """
        if self.problem.per_input:
            mu = _rows(point.grad[0])
            mu = np.maximum(mu, 1e-10 * mu.max(initial=0.0) + FLOOR)
        else:
            mu = np.ones(self.problem.inputs)
        t = []
        for level, part in enumerate(self.problem.parts, start=1):
            g, n = point.grad[level], point.length[level]
            if part.shared:
                t.append(np.full(part.size, 0.5 * np.sqrt(np.vdot(g, g)) / n[0]))
            else:
                t.append(0.5 * _rows(g) / (self.radius[level - 1][:, 0] * n))
        return mu, t
