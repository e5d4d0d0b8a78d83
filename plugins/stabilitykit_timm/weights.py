"""Local weights for a network: read safely, brought to the network's names, refused where they do not fit."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabilitykit import UsageProblem
from stabilitykit.checkpoints import fit_weights, load_weights
from stabilitykit_timm.loading import skeleton, split_spec


def load(module: nn.Module, checkpoint: str | Path, owner: str) -> Mapping[str, Any]:
    """Read weights from a local file into ``module``; returns the file's metadata.

    safetensors, or pickles under ``weights_only`` only; what a wrapper (DataParallel, torch.compile, a training
    module) put before the names is removed; where keys do not fit, timm's own converter for that family is tried.

    Raises:
        DataProblem: unreadable file, refused pickle (naming what it asked for), NaN weights.
        UsageProblem: it does not fit: missing, unexpected and mis-shaped names are listed; or it holds several sets
            of weights that do.
    """
    state, metadata = load_weights(checkpoint)
    wanted = module.state_dict()
    state = _unprefixed(state, wanted, f"checkpoint {checkpoint}")
    if state.keys() != wanted.keys() or any(state[k].shape != wanted[k].shape for k in wanted):
        state = _converted(module, state)
    fit_weights(module, state, f"{owner} ({checkpoint})")
    return metadata


def classes_in(checkpoint: str | Path, spec: str) -> int | None:
    """Number of classes a checkpoint was trained for, by the size of the classifier; None when it cannot be told."""
    library, _ = split_spec(spec)
    if library == "module":
        return None
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


def _unprefixed(state: dict[str, torch.Tensor], wanted: Mapping[str, Any], owner: str) -> dict[str, torch.Tensor]:
    """``state`` by the network's own names, where all of them stand in it behind one prefix.

    What stands elsewhere belongs to the wrapper and is left out.
    """
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    if not names or any(name in state for name in names):
        return state
    ends = [key.removesuffix(names[0]) for key in state if key.endswith(f".{names[0]}")]
    prefixes = [prefix for prefix in ends if all(prefix + name in state for name in names)]
    if len(prefixes) > 1:
        raise UsageProblem(
            f"{owner} holds {len(prefixes)} sets of weights that fit, under {', '.join(prefixes)}: save "
            "the one you mean by itself"
        )
    if not prefixes:
        return state
    return {key.removeprefix(prefixes[0]): tensor for key, tensor in state.items() if key.startswith(prefixes[0])}


def _converted(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
