"""The largest singular values of Jacobians that are too large to write down: subspace iteration by jvp and vjp."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Map = Callable[[torch.Tensor], torch.Tensor]

# Extra vectors: the k-th value then converges at the ratio to the (k + 5)-th singular value, not to the next one.
GUARD = 4


@dataclass(frozen=True)
class SingularValues:
    """Ritz approximations of the k largest singular values for each image of a batch.

    Attributes:
        values: (B, k), descending. Realised lower bounds: sigma_j(M V) <= sigma_j(M) for orthonormal V, up to
            rounding of the arithmetic.
        residuals: (B, k), ||M'u_j - sigma_j v_j|| / sigma_1; 0 where sigma_1 is 0.
        iterations: (B,) int64, iterations until every residual of an image was below the tolerance.
    """

    values: torch.Tensor
    residuals: torch.Tensor
    iterations: torch.Tensor


def top_singular_values(
    function: Map,
    points: torch.Tensor,
    k: int,
    seeds: Sequence[int],
    *,
    iterations: int = 60,
    tolerance: float = 1e-6,
    guard: int = GUARD,
) -> SingularValues:
    """The k largest singular values of the Jacobian of ``function`` at every point.

    Arguments:
        function: (B, n) -> (B, n) for any B, rows independent of one another.
        points: (B, n).
        k: how many, at most n.
        seeds: one per point; an image's result depends on its own seed only, not on its batch.
        iterations: most iterations; each is one jvp and one vjp with k + guard vectors.
        tolerance: on the residuals; an image that meets it is left as it is.
        guard: extra vectors.
    """
    count, size = points.shape
    if not 1 <= k <= size:
        raise ValueError(f"k: expected 1..{size} (the dimension of a state), got {k}")
    width = min(k + guard, size)
    basis = _start(points, width, seeds)
    values = points.new_zeros(count, k)
    residuals = points.new_full((count, k), float("inf"))
    used = torch.zeros(count, dtype=torch.int64, device=points.device)
    active = torch.ones(count, dtype=torch.bool, device=points.device)
    for _ in range(iterations):
        rows = active.nonzero()[:, 0]
        images = jvp(function, points[rows], basis[rows])  # M V
        left, sigma, right = torch.linalg.svd(images, full_matrices=False)
        vectors = basis[rows] @ right.mT  # Ritz vectors, M v_j = sigma_j u_j
        back = vjp(function, points[rows], left)  # M'U
        gaps = torch.linalg.vector_norm(back - vectors * sigma[:, None, :], dim=1)[:, :k]
        largest = sigma[:, :1]
        relative = torch.where(largest > 0, gaps / largest.clamp_min(torch.finfo(gaps.dtype).tiny), 0.0)
        values[rows], residuals[rows] = sigma[:, :k], relative
        used[rows] += 1
        active[rows] = relative.amax(dim=1) > tolerance
        if not bool(active.any()):
            break
        # U spans M V, so M'U spans M'M V: one step of subspace iteration, better scaled than M'(M V).
        basis[rows] = torch.linalg.qr(back).Q
    return SingularValues(values, residuals, used)


def jvp(function: Map, points: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Jacobians at points (B, n) times vectors (B, n, p) -> (B, n, p), by forward-mode differentiation."""
    repeated, tangents = _spread(points, vectors)
    with warnings.catch_warnings():
        # Forward mode compiles torch's own decompositions on first use, by way of a deprecated part of torch.
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        out = torch.func.jvp(function, (repeated,), (tangents,))[1]
    return _gather(out, vectors)


def vjp(function: Map, points: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Transposed Jacobians at points (B, n) times vectors (B, n, p) -> (B, n, p), by reverse mode."""
    repeated, cotangents = _spread(points, vectors)
    pull = torch.func.vjp(function, repeated)[1]
    return _gather(pull(cotangents)[0], vectors)


def _spread(points: torch.Tensor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # Rows are independent, so p vectors per image are p copies of the image, each with one vector.
    width = vectors.shape[2]
    return points.repeat_interleave(width, 0), vectors.mT.reshape(-1, vectors.shape[1])


def _gather(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return rows.detach().reshape(like.shape[0], like.shape[2], like.shape[1]).mT.contiguous()


def _start(points: torch.Tensor, width: int, seeds: Sequence[int]) -> torch.Tensor:
    """Random orthonormal columns (B, n, width), drawn on the CPU in float64: the same on every device."""
    start = [
        torch.randn(points.shape[1], width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    return torch.linalg.qr(torch.stack(start)).Q.to(points)
