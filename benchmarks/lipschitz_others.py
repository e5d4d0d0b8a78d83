"""Other ways to bound Lip(g), each as it is installed: what `lipschitz_solvers.py` sets beside ours.

A package that is not installed, or does not import, is not run; the tables say why. To have eclipse-nn or auto_LiRPA:
``pip install --no-deps --target FOLDER eclipse-nn auto_LiRPA`` and PYTHONPATH=FOLDER.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stabilitykit_lipschitz.network import Network
from torch import nn

OTHERS = ("CLARABEL", "SCS", "ECLipsE", "ECLipsE_Fast", "spectral product")


def why_not(package: str) -> str:
    """Why ``package`` cannot be imported, or "" where it can."""
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever an import raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
    return ""


def bound(net: Network, solver: str, tol: float) -> dict[str, Any]:
    """says: the value that the solver gives; status; upper: certified afterwards, where it gives multipliers."""
    if solver in ("CLARABEL", "SCS"):
        return _by_cvxpy(net, solver, tol)
    if solver == "spectral product":
        value = math.prod(float(np.linalg.norm(w, 2)) for w in _chain(net)) * math.prod(
            max(np.abs(layer.alpha).max(), np.abs(layer.beta).max()) for layer in net.layers
        )
        return {"says": value, "status": "a norm product", "upper": math.nan}
    slopes = [(float(layer.alpha.min()), float(layer.beta.max())) for layer in net.layers]
    value = _eclipse(solver, weights=_chain(net), alphas=[a for a, _ in slopes], betas=[b for _, b in slopes])
    return {"says": value, "status": "gives no multipliers", "upper": math.nan}


def _chain(net: Network) -> list[np.ndarray]:
    blocks = [*(layer.blocks for layer in net.layers), net.outputs]
    if any(list(held) != [level] for level, held in enumerate(blocks)):
        raise ValueError("expected a chain without skips")
    return [held[level] for level, held in enumerate(blocks)]


def _by_cvxpy(net: Network, solver: str, tol: float) -> dict[str, Any]:
    from stabilitykit_lipschitz.cvxpy_solver import propose
    from stabilitykit_lipschitz.proofs import repaired
    from stabilitykit_lipschitz.reduce import prepare
    from stabilitykit_lipschitz.units import constant, dual_constant

    problem = prepare(net, False, False)
    proposal = propose(problem, solver, tol, None)
    proof = repaired(problem, proposal.mu, proposal.t)
    says = dual_constant(problem, max(proposal.level, 0.0))
    upper = math.nan if proof is None else constant(problem, proof)
    return {"says": says, "status": proposal.status, "upper": upper}


def _eclipse(method: str, **given: Any) -> float:
    from eclipse_nn import LipConstEstimator

    if "weights" in given:
        given["weights"] = [torch.from_numpy(np.array(w)) for w in given["weights"]]
    with contextlib.redirect_stdout(io.StringIO()) as told:
        value = LipConstEstimator(**given).estimate(method)
    if value is None:
        raise ValueError(f"no value: {told.getvalue().strip()[:80]}")
    return float(value)


def _ours(net: nn.Module, shape: tuple[int, ...], **options: Any) -> float:
    from stabilitykit_lipschitz import lipschitz

    return lipschitz(net, input_shape=shape, search_seconds=0.05, **options).upper


def _product(net: nn.Module, shape: tuple[int, ...]) -> float:
    """What is often written: the spectral norms of the linear layers, multiplied."""
    return math.prod(float(torch.linalg.matrix_norm(m.weight.double(), 2)) for m in net.modules() if _is_linear(m))


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _lirpa(net: nn.Module, shape: tuple[int, ...]) -> float:
    """auto_LiRPA bounds Jacobians on a region; on the box [-1, 1]^n the rows' bounds give the Frobenius norm's."""
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm
    from auto_LiRPA.jacobian import JacobianOP

    class Jacobian(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return JacobianOP.apply(net(x), x)

    x = torch.zeros(1, *shape)
    region = BoundedTensor(x, PerturbationLpNorm(norm=np.inf, eps=1.0))
    low, high = BoundedModule(Jacobian(), x).compute_jacobian_bounds(region)
    return float(torch.maximum(low.abs(), high.abs()).norm())


# Tools that take a torch module: name -> (package, bound(module, shape of one sample)).
READERS: dict[str, tuple[str, Callable[[nn.Module, tuple[int, ...]], float]]] = {
    "ours": ("stabilitykit_lipschitz", _ours),
    "eclipse-nn ECLipsE": ("eclipse_nn", lambda net, shape: _eclipse("ECLipsE", model=net)),
    "eclipse-nn ECLipsE_Fast": ("eclipse_nn", lambda net, shape: _eclipse("ECLipsE_Fast", model=net)),
    "auto_LiRPA": ("auto_LiRPA", _lirpa),
    "product of spectral norms": ("torch", _product),
}
