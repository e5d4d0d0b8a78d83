"""Local weights for a network: read safely, brought to the network's names, refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabilitykit import UsageProblem
from stabilitykit.training.checkpoints import fit_weights, load_weights

State = dict[str, torch.Tensor]


def load(
    module: nn.Module, checkpoint: str | Path, owner: str, convert: Callable[[nn.Module, State], State] | None = None
) -> Mapping[str, Any]:
    """Read weights from a local file into ``module``; returns the file's metadata.

    safetensors, or pickles under ``weights_only`` only; what a wrapper (DataParallel, torch.compile, a training
    module) put before the names is removed; where keys do not fit, ``convert(module, state)`` is tried.

    Raises:
        DataProblem: unreadable file, refused pickle (naming what it asked for), NaN weights.
        UsageProblem: it does not fit: missing, unexpected and mis-shaped names are listed; or it holds several sets
            of weights that do.
    """
    state, metadata = load_weights(checkpoint)
    wanted = module.state_dict()
    state = _unprefixed(state, wanted, f"checkpoint {checkpoint}")
    if convert is not None and (
        state.keys() != wanted.keys() or any(state[k].shape != wanted[k].shape for k in wanted)
    ):
        state = convert(module, state)
    fit_weights(module, state, f"{owner} ({checkpoint})")
    return metadata


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
