"""The dual of LipSDP in Burer-Monteiro form: the forward pass of a vector-valued network.

y_0 = Y_0 with unit Frobenius norm (or unit rows for the l-infinity norm), and for neuron i with z = sum W y:
y_i = centre_i z_i + radius_i ||z_i|| q_i, ||q_i|| = 1. The value ||sum C_k Y_k||_F^2 of any such point is a lower
bound of the SDP's optimum. A shared layer has one sphere: Y = centre Z + sqrt(sum radius^2 ||z||^2) Q, ||Q||_F = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from stabilitykit_lipschitz.reduce import Problem

FLOOR = 1e-300


def rows(a: np.ndarray) -> np.ndarray:
    """Euclidean norms of the rows, (N,)."""
    return np.sqrt(np.einsum("ij,ij->i", a, a))


@dataclass
class Point:
    """Everything one evaluation produces: arrays over the rows of all states one below the other, and the same as lists
    by state 0..L.

    value: of the dual, float. unit: q, (rows, columns), unit rows, or unit Frobenius norm where a state has one sphere.
    size: norm of the raw parameters; length: ||z_i||, or sqrt(sum radius^2 ||z||^2) in every row where shared;
    gain: what q is multiplied by in y; along: <q, grad>; each (rows,). y, pre: states and pre-activations; grad: half
    the gradient of the value with respect to y; each (rows, columns).
    """

    value: float
    cuts: list[int]
    units: np.ndarray
    size: np.ndarray
    ys: np.ndarray
    pres: np.ndarray
    lengths: np.ndarray
    gains: np.ndarray
    grads: np.ndarray
    along: np.ndarray

    def _by_state(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[a:b] for a, b in pairwise(self.cuts)]

    @property
    def unit(self) -> list[np.ndarray]:
        return self._by_state(self.units)

    @property
    def y(self) -> list[np.ndarray]:
        return self._by_state(self.ys)

    @property
    def pre(self) -> list[np.ndarray]:
        return self._by_state(self.pres)

    @property
    def length(self) -> list[np.ndarray]:
        return self._by_state(self.lengths)

    @property
    def gain(self) -> list[np.ndarray]:
        return self._by_state(self.gains)

    @property
    def grad(self) -> list[np.ndarray]:
        return self._by_state(self.grads)


class Dual:
    """Evaluates the dual value and its gradient for `problem`.

    inflate: every slope interval is widened, and the output raised, by this share. The multipliers of the widened
    problem leave the true matrix inequality strictly feasible, which is what makes them usable; the cost in L is
    about layers * inflate. dtype: float64, or float32 for a first approach in less than half the time.

    Points are given by raw parameters, one array (rows of all states, columns): q is their direction.
    """

    def __init__(self, problem: Problem, inflate: float = 0.0, dtype: Any = np.float64) -> None:
        self.problem, self.inflate, self.dtype = problem, inflate, dtype
        self.floor = FLOOR if dtype is np.float64 else float(np.finfo(dtype).tiny)
        self.whole = [not problem.per_input, *(p.shared for p in problem.parts)]
        self.cuts = [0, *(int(n) for n in np.cumsum(problem.sizes))]
        self.centre = [p.centre[:, None].astype(dtype) for p in problem.parts]
        self.radius = [(p.radius * (1.0 + inflate)).astype(dtype) for p in problem.parts]
        self.blocks = [{k: w.astype(dtype, copy=False) for k, w in p.blocks.items()} for p in problem.parts]
        self.outputs = {k: (c * (1.0 + inflate)).astype(dtype) for k, c in problem.outputs.items()}

    @property
    def weights(self) -> int:
        """Numbers in all blocks: what one pass for one column multiplies."""
        return sum(w.size for blocks in [*self.blocks, self.outputs] for w in blocks.values())

    def start(self, columns: int, rng: np.random.Generator) -> np.ndarray:
        """Random Y_0, and q = z (every neuron at its largest slope): raw parameters."""
        params = [rng.standard_normal((self.problem.inputs, columns))]
        y = [self._unit(params[0], self.whole[0])]
        for part, blocks in zip(self.problem.parts, self.blocks):
            z = sum(w @ y[k] for k, w in blocks.items())
            params.append(z + 1e-3 * rng.standard_normal(z.shape) * (np.abs(z).max() + FLOOR))
            y.append((part.centre + part.radius)[:, None] * z)
        return np.concatenate(params)

    @staticmethod
    def _unit(p: np.ndarray, whole: bool) -> np.ndarray:
        return p / (np.sqrt(np.vdot(p, p)) + FLOOR) if whole else p / (rows(p) + FLOOR)[:, None]

    def spheres(self, norms: np.ndarray) -> np.ndarray:
        """Norms by row, (rows,), turned in place into the norm of the state where that has one sphere."""
        for whole, (a, b) in zip(self.whole, pairwise(self.cuts)):
            if whole:
                norms[a:b] = np.linalg.norm(norms[a:b])
        return norms

    def evaluate(self, params: np.ndarray) -> Point:
        cuts, layers = self.cuts, self.problem.parts
        raw: np.ndarray = params.astype(self.dtype, copy=False)
        size = self.spheres(rows(raw)) + self.floor
        units = raw / size[:, None]
        ys, pres, grads = np.empty_like(units), np.empty_like(units), np.zeros_like(units)
        lengths, gains, along = np.ones_like(size), np.ones_like(size), np.empty_like(size)
        states = [slice(a, b) for a, b in pairwise(cuts)]
        ys[states[0]] = units[states[0]]
        for level, (part, blocks) in enumerate(zip(layers, self.blocks), start=1):
            here = states[level]
            z, y, c, r = pres[here], ys[here], self.centre[level - 1], self.radius[level - 1]
            self._gather(blocks, ys, states, z)
            n = rows(z)
            if part.shared:
                n[:] = np.linalg.norm(r * n)
            n += self.floor
            lengths[here], gains[here] = n, n if part.shared else r * n
            np.multiply(gains[here, None], units[here], out=y)
            y += c * z
        out: np.ndarray = np.zeros((self.problem.classes, raw.shape[1]), self.dtype)
        self._gather(self.outputs, ys, states, out)
        value = float(np.vdot(out, out))
        for k, w in self.outputs.items():
            grads[states[k]] += w.T @ out
        for level in range(len(layers), 0, -1):
            part, here = layers[level - 1], states[level]
            g, c, r = grads[here], self.centre[level - 1], self.radius[level - 1]
            turn = along[here] = np.einsum("ij,ij->i", units[here], g)
            pull = r * r * (turn.sum() / lengths[here]) if part.shared else r * turn / lengths[here]
            back = pull[:, None] * pres[here]
            back += c * g
            for k, w in self.blocks[level - 1].items():
                grads[states[k]] += w.T @ back
        along[states[0]] = np.einsum("ij,ij->i", units[states[0]], grads[states[0]])
        for whole, here in zip(self.whole, states):
            if whole:
                along[here] = along[here].sum()
        return Point(value, cuts, units, size, ys, pres, lengths, gains, grads, along)

    @staticmethod
    def _gather(blocks: dict[int, np.ndarray], ys: np.ndarray, states: list[slice], out: np.ndarray) -> None:
        """out = sum_k W_k y_k; zero without blocks."""
        first = True
        for k, w in blocks.items():
            if first:
                np.matmul(w, ys[states[k]], out=out)
            else:
                out += w @ ys[states[k]]
            first = False
        if first:
            out[:] = 0.0

    def slope(self, point: Point) -> np.ndarray:
        """Half the gradient of the value with respect to the raw parameters."""
        result = point.units * -point.along[:, None]
        result += point.grads
        result *= (point.gains / point.size)[:, None]
        return result

    def fixed_point(self, point: Point) -> np.ndarray:
        """Turn every q parallel to its gradient (one step of a generalised power iteration)."""
        moves = self.spheres(rows(point.grads)) > 0
        return np.where(moves[:, None], point.grads, point.units)

    def balanced(self, point: Point) -> np.ndarray:
        """Raw parameters of the same point whose norms make the Hessian's diagonal about one."""
        scale = np.sqrt(point.gains * self.spheres(rows(point.grads)))
        for a, b in pairwise(self.cuts):
            scale[a:b] = np.maximum(scale[a:b], 1e-8 * scale[a:b].max(initial=0.0) + self.floor)
        return point.units * scale[:, None]

    def multipliers(self, point: Point) -> tuple[np.ndarray, list[np.ndarray]]:
        """(input multipliers (n,), t per layer (N,)) read off the gradients; t >= 0.

        For the l2 norm the input multiplier is the value itself in every coordinate.
        """
        grad, gain = point.grad, point.gain
        if self.problem.per_input:
            mu = rows(grad[0])
            mu = np.maximum(mu, 1e-10 * mu.max(initial=0.0) + FLOOR)
        else:
            mu = np.ones(self.problem.inputs)
        t = []
        for level, part in enumerate(self.problem.parts, start=1):
            size = np.full(part.size, np.linalg.norm(grad[level])) if part.shared else rows(grad[level])
            t.append(0.5 * size / gain[level])
        return mu, t
