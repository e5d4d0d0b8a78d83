"""Convolutions whose Lipschitz constant is at most 1, by a bound that holds at every step of training."""

from __future__ import annotations

import torch
from torch import nn

# Squarings of the Gram matrix: the bound is above the norm by at most rank^(1/2^7), 5 percent for rank 512.
SQUARINGS = 6


def norm_bound(matrices: torch.Tensor) -> torch.Tensor:
    """An upper bound of the largest singular value of matrices (G, M, N), float -> a scalar tensor, differentiable.

    Squaring the Gram matrix k times gives the singular values to the power 2^(k+1), and the Frobenius norm is no less
    than the largest (Gram iteration, Delattre et al. 2023). Unlike power iteration it is never below the norm.
    """
    gram = (
        matrices @ matrices.transpose(1, 2)
        if matrices.shape[1] <= matrices.shape[2]
        else (matrices.transpose(1, 2) @ matrices)
    )
    # Each matrix is scaled to Frobenius norm 1 before it is squared: no overflow, and the scales are put back at last.
    logarithm = torch.zeros(len(gram), dtype=gram.dtype, device=gram.device)
    power = 1.0
    for _ in range(SQUARINGS):
        size = gram.flatten(1).norm(dim=1).clamp_min(torch.finfo(gram.dtype).tiny)
        logarithm = logarithm + size.log() * power
        gram = gram / size[:, None, None]
        gram = gram @ gram
        power /= 2
    size = gram.flatten(1).norm(dim=1).clamp_min(torch.finfo(gram.dtype).tiny)
    return torch.exp((logarithm + size.log() * power) / 2).amax()


class AtMostOne(nn.Module):
    """Parametrization of a convolution's weight (O, I/groups, k, k): divided by the bound where that is above 1.

    A convolution with stride 1 reads every pixel at most k^2 times, so its norm is at most k times that of the
    matrix (O, I k^2) that is applied to every patch (of each group; the largest counts).

    Arguments:
        groups: of the convolution.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        bound = weight.shape[-1] * norm_bound(weight.reshape(self.groups, weight.shape[0] // self.groups, -1))
        # Rounding of the sums above is relative 1e-6 in float32.
        return weight / (bound * (1 + 1e-5)).clamp_min(1.0)


class Bias(nn.Module):
    """A number per channel, added to maps (B, C, H, W): stands where a BatchNorm would scale.

    Arguments:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.bias
