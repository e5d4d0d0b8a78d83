"""8-bit integers: scales, zero points, and tensors rounded to the levels they give.

Scales are those of torch's observers (torch.ao.quantization): symmetric weights, affine inputs, 256 levels each.
"""

from __future__ import annotations

import torch

WEIGHT_LEVELS = (-128, 127)
INPUT_LEVELS = (0, 255)
# Below this a scale says that everything is 0; torch's observers end there, too.
SMALLEST_SCALE = torch.finfo(torch.float32).eps


def weight_scales(weight: torch.Tensor, per_channel: bool) -> torch.Tensor:
    """Symmetric scales: the largest magnitude over 127.5.

    Arguments:
        weight: (C_out, ...), a float dtype.

    Returns:
        float32 (C_out,), or (1,) of one scale for all.
    """
    rows = weight.detach().float().reshape(len(weight) if per_channel else 1, -1)
    return (rows.abs().amax(dim=1) / 127.5).clamp_min(SMALLEST_SCALE)


def rounded_weight(weight: torch.Tensor, per_channel: bool) -> torch.Tensor:
    """``weight`` (C_out, ...), a float dtype, on the 256 levels of its scales, in its own dtype."""
    scales = weight_scales(weight, per_channel)
    kept = weight.detach().float().reshape(len(scales), -1)
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
    levels = torch.fake_quantize_per_channel_affine(kept, scales, zeros, 0, *WEIGHT_LEVELS)
    return levels.reshape(weight.shape).to(weight.dtype)


def input_scales(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Affine scales of ranges [low, high], float (R,) each, which are widened to hold 0: 0 stays 0.

    Returns:
        scales float32 (R,), zero points int32 (R,) in 0..255.
    """
    low, high = low.float().clamp_max(0), high.float().clamp_min(0)
    scales = ((high - low) / 255).clamp_min(SMALLEST_SCALE)
    points = (-torch.round(low / scales)).clamp(*INPUT_LEVELS)
    return scales, points.to(torch.int32)


def rounded_input(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """``values``, a float dtype, on the 256 levels of the range [low, high], in their own dtype.

    Arguments:
        values: (R, ...): a row per range; or any shape, where there is one range.
        low, high: float (R,) each.
    """
    scales, points = input_scales(low, high)
    kept = values.float().reshape(len(scales), -1)
    levels = torch.fake_quantize_per_channel_affine(kept, scales, points, 0, *INPUT_LEVELS)
    return levels.reshape(values.shape).to(values.dtype)
