"""What timm knows of checkpoint files: converters of other formats, the size of a classifier."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import nn

from stabilitykit.training.containers import Checkpoint


def classes_in(found: Checkpoint, module: nn.Module) -> int | None:
    """Number of classes a checkpoint was trained for, by the size of the classifier; None when it cannot be told.

    Arguments:
        module: the network with any number of classes; its weights are not read.
    """
    heads = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    config = getattr(module, "pretrained_cfg", None) or {}
    named = config.get("classifier") if isinstance(config, Mapping) else None
    names = [named] if isinstance(named, str) else list(named or ()) or heads[-1:]
    for name in names:
        sizes = {
            int(tensor.shape[0])
            for key, tensor in found.tensors.items()
            if f".{key}".endswith(f".{name}.weight") and tensor.ndim
        }
        if len(sizes) == 1:
            return sizes.pop()
    return None


def converted(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """``state`` through the family's ``checkpoint_filter_fn``; None if timm has none or it does not know the format.

    It may rename tensors, and it resizes patch embeddings and position tables: callers tell the two apart.
    """
    convert = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if convert is None or not type(module).__module__.startswith("timm."):
        return None
    try:
        return {str(name): tensor for name, tensor in convert(dict(state), module).items()}
    except Exception:  # a converter for another format than this one; the plain mismatch is reported instead
        return None
