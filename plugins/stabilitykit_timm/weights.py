"""What timm knows of checkpoint files: converters of other formats, the size of a classifier."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from stabilitykit.training.checkpoints import load_weights
from stabilitykit_timm.names import skeleton


def classes_in(checkpoint: str | Path, spec: str) -> int | None:
    """Number of classes a checkpoint was trained for, by the size of the classifier; None when it cannot be told."""
    module = skeleton(spec)
    heads = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    config = getattr(module, "pretrained_cfg", None) or {}
    named = config.get("classifier") if isinstance(config, Mapping) else None
    names = [named] if isinstance(named, str) else list(named or ()) or heads[-1:]
    state, _ = load_weights(checkpoint)
    for name in names:
        found = {int(tensor.shape[0]) for key, tensor in state.items() if f".{key}".endswith(f".{name}.weight")}
        if len(found) == 1:
            return found.pop()
    return None


def converted(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` through the family's ``checkpoint_filter_fn``, if timm has one and it works."""
    convert = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if convert is None or not type(module).__module__.startswith("timm."):
        return state
    try:
        converted = convert(dict(state), module)
    except Exception:  # a converter for another format than this one; the plain mismatch is reported instead
        return state
    wanted = module.state_dict()
    fits = set(converted) >= {n for n in wanted if not n.endswith("num_batches_tracked")}
    return {k: v for k, v in converted.items() if k in wanted} if fits else state
