"""`Penalty`: an upper bound of Lip(g) to train with: its value certified, its gradient that of LipSDP's optimum.

The optimum of LipSDP is a maximum over the dual's points (`dual.py`). By the envelope theorem its derivative by the
weights is the dual value's own at the maximiser, held fixed: one vector-valued forward pass for autograd.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import nn

from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.certificate import certify
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import fold_slack, product_bound
from stabilitykit_lipschitz.proofs import repaired
from stabilitykit_lipschitz.reduce import Problem, prepare, substitute
from stabilitykit_lipschitz.regions import tighten
from stabilitykit_lipschitz.solver import Solution, solve
from stabilitykit_lipschitz.trace import UnsupportedModule
from stabilitykit_lipschitz.units import constant
from stabilitykit_lipschitz.wiring import Blocks, Wiring

# Columns that are kept from one solution to start the next.
MOST_COLUMNS, LEAST_COLUMNS = 16, 4


class Penalty:
    """Called, an upper bound of the l2 Lipschitz constant of ``model`` in eval mode, differentiable by its parameters.

        bound = Penalty(net)
        loss = cross_entropy(net(x), y) + 0.01 * bound()

    Every call solves LipSDP-Neuron from the last call's solution; the value is a checked certificate's, rounded up.

    Arguments:
        model: torch module that `lipschitz` reads, with elementwise activations of one operation each; on any device.
            Its parameters may change between calls, its structure, activations and slopes may not.
        input_shape: shape of one sample where it cannot be read off the first module.
        tol: relative accuracy asked of value and gradient.
        seconds: work allowed per call, in nominal processor seconds; where it is not enough the norm product bounds.

    Raises:
        UnsupportedModule: (a ValueError) layers without a rule, normalisation over vectors, learned slopes, activations
            without a largest slope.
    """

    def __init__(
        self, model: nn.Module, input_shape: tuple[int, ...] | None = None, tol: float = 1e-3, seconds: float = 10.0
    ) -> None:
        from stabilitykit_lipschitz.extract import extract

        if not tol > 0:
            raise ValueError(f"tol = {tol}; expected a positive relative tolerance")
        network = extract(model, input_shape)
        for layer in network.layers:
            if not layer.shared and not np.isfinite([layer.alpha, layer.beta]).all():
                raise UnsupportedModule(
                    f"{layer.activation.name} at {layer.name!r} has no largest slope, so there is no bound to lower"
                )
        self.wiring = Wiring(model, network)
        self.network = tighten(network, None)
        self.tol, self.seconds = tol, seconds
        self._last: Solution | None = None

    def __call__(self) -> torch.Tensor:
        """The bound: a scalar of the parameters' dtype on their device. Raises: ValueError for weights not finite."""
        weight = next(self.wiring.model.parameters(), torch.zeros(()))
        blocks = self.wiring()
        network = self._at(blocks)
        upper, points = self._solved(network)
        through = _stretched(network, blocks, points)
        factor = upper / float(through.detach()) if float(through.detach()) > 0 else 0.0
        value = _rounded_up(upper, weight.dtype)
        # exactly `value`, with the gradient of `through`, which is within the tolerance of it
        moving = (through - through.detach()) * factor
        return (value + moving.to(weight.dtype)).to(weight.device)

    def _at(self, blocks: Blocks) -> Network:
        plain = [{k: w.detach().numpy() for k, w in held.items()} for held in blocks]
        if not all(np.isfinite(w).all() for held in plain for w in held.values()):
            raise ValueError("the model has weights that are not finite; expected finite numbers")
        layers = tuple(replace(layer, blocks=held) for layer, held in zip(self.network.layers, plain))
        return replace(self.network, layers=layers, outputs=plain[-1], errors=blocks.errors)

    def _solved(self, network: Network) -> tuple[float, list[np.ndarray]]:
        """(proven bound, the dual's point: per state of the network (size, columns))."""
        parts, outputs, errors = substitute(network, False)
        reduced, slack = (parts, outputs), fold_slack(network, errors, False)
        problem = prepare(network, False, False, slack, reduced)
        if problem.empty():
            return problem.slack * network.factor, [np.zeros((n, 1)) for n in network.sizes]
        solution = solve(problem, self.tol, budget=Budget(self.seconds), start=self._start(problem))
        self._last = solution
        proof = None
        if np.isfinite(solution.level):
            proof = certify(problem, solution.mu, solution.t, found=solution.eliminated)
        if proof is None:
            proof = repaired(problem, solution.mu, solution.t)
        bound = product_bound(network) if proof is None else constant(problem, proof)
        wide = prepare(network, False, False, slack, reduced, compress=False)
        return bound * network.factor, _original(network, problem, wide, solution)

    def _start(self, problem: Problem) -> list[np.ndarray] | None:
        """The last point with as few columns as carry it, or None where the reduced problem has another shape."""
        if self._last is None or self._last.point is None:
            return None
        point = self._last.point
        if [len(q) for q in point.unit] != problem.sizes:
            return None
        _, sizes, turn = np.linalg.svd(np.concatenate(point.y), full_matrices=False)
        keep = int(np.clip((sizes > 1e-6 * sizes[0]).sum(), LEAST_COLUMNS, MOST_COLUMNS))
        return [q @ turn[:keep].T for q in point.unit]


def _original(network: Network, problem: Problem, wide: Problem, solution: Solution) -> list[np.ndarray]:
    """The dual's point in the network's own coordinates. wide: ``problem`` before its input was compressed.

    W = L V' with orthonormal columns V = W' L^-T, so the compressed point y stands for V y.
    """
    if solution.point is None:  # no hidden layer is left: the leading right singular vector
        _, _, vt = np.linalg.svd(wide.outputs[0], full_matrices=False)
        return [vt[:1].T, *(np.zeros((layer.size, 1)) for layer in network.layers)]
    unit = solution.point.unit
    first = np.zeros((network.inputs, unit[0].shape[1]))
    readers = [*(p.blocks for p in problem.parts), problem.outputs]
    if problem.inputs == int(problem.used.sum()):
        first[problem.used] = unit[0]
    else:
        factor = np.concatenate([r[0] for r in readers if 0 in r])
        whole = np.concatenate([r[0] for r in [*(p.blocks for p in wide.parts), wide.outputs] if 0 in r])
        first = whole.T @ solve_triangular(factor, unit[0], lower=True, trans=1, check_finite=False)
    points = [first / max(float(np.linalg.norm(first)), 1e-300)]
    points += [np.zeros((layer.size, first.shape[1])) for layer in network.layers]
    for part, q in zip(problem.parts, unit[1:]):
        points[part.origin + 1][part.kept] = q
    return points


def _stretched(network: Network, blocks: Blocks, points: list[np.ndarray]) -> torch.Tensor:
    """Root of the dual value at ``points``: what the vector-valued network makes of the input of unit length."""
    states = [torch.from_numpy(points[0])]
    for layer, held, q in zip(network.layers, blocks.layers, points[1:]):
        z = sum((w @ states[k] for k, w in held.items()), torch.zeros(layer.size, states[0].shape[1]).double())
        centre = torch.from_numpy(0.5 * (layer.alpha + layer.beta))[:, None]
        radius = torch.from_numpy(0.5 * (layer.beta - layer.alpha))[:, None]
        states.append(centre * z + radius * torch.linalg.vector_norm(z, dim=1, keepdim=True) * torch.from_numpy(q))
    nothing = torch.zeros(network.classes, states[0].shape[1]).double()
    return torch.linalg.vector_norm(sum((c @ states[k] for k, c in blocks.outputs.items()), nothing)) * network.factor


def _rounded_up(value: float, dtype: torch.dtype) -> torch.Tensor:
    """The smallest number of ``dtype`` that is not below ``value``, on the CPU."""
    there = torch.tensor(value, dtype=torch.float64).to(dtype)
    if there.double() < value:
        there = torch.nextafter(there, torch.full_like(there, torch.inf))
    return there
