"""Reading and writing weights: safetensors first, pickles only under ``weights_only``, writes atomic.

``containers`` reads files, ``prefixes`` finds the network's tensors in them, ``fitting`` puts them into a network and
refuses what does not fit; ``conversion`` tells whether a converter changed numbers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabilitykit.base.errors import DataProblem
from stabilitykit.base.files import write_atomic
from stabilitykit.training.containers import METADATA_KEY, Checkpoint, load_pickled, read_checkpoint
from stabilitykit.training.fitting import Loading, load_into, remarks, require_finite
from stabilitykit.training.prefixes import under

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "Loading",
    "fit_weights",
    "known_class_names",
    "load_into",
    "load_pickled",
    "load_weights",
    "read_checkpoint",
    "remarks",
    "save_pickled",
    "save_weights",
]


def load_weights(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The one set of weights in a file, for callers that have no network to fit them into.

    Returns:
        (name -> tensor on the CPU, of any shape and dtype; metadata). Names are without the nest that holds the tensors
        and without a common ``module.`` (DataParallel). Metadata is what :func:`save_weights` stored, ``{}`` for files
        of others.

    Raises:
        DataProblem: missing, truncated or corrupt file; a pickle that wants anything but tensors (the message names
            what it wanted); no tensors, or several sets of them; NaN or infinite values (naming the tensor).
    """
    found = read_checkpoint(path)
    sets = [nest for nest in found.nests if not nest.startswith("optim")]
    if any(sets):
        sets = [nest for nest in sets if nest]  # loose scalars beside a state_dict are scores
    if len(sets) != 1:
        what = f"sets of weights under {', '.join(sets)}" if sets else "no state_dict, only an optimizer's state"
        raise DataProblem(f"checkpoint {found.path} holds {what}; give a file with one state_dict")
    state, _ = under(found.tensors, sets[0])
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        require_finite(name, tensor, found.path)
    return state, found.metadata


def known_class_names(metadata: Mapping[str, Any], count: int) -> list[str] | None:
    """Names of the ``count`` classes the weights were trained on, as ``stabilitykit train`` keeps them; else None."""
    names = metadata.get("class_names")
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        return None
    return names


def save_weights(path: str | Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``state`` as safetensors, ``metadata`` as JSON in its header, atomically.

    The tensors may be of any shape and dtype.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    # One key only: safetensors writes several in random order, and equal trainings shall give equal files.
    header = {METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    write_atomic(Path(path), save(tensors, header))


def save_pickled(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values so that :func:`load_pickled` reads them back; atomic."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_atomic(Path(path), buffer.getvalue())


def fit_weights(module: nn.Module, state: Mapping[str, torch.Tensor], owner: str) -> None:
    """Load ``state``, in the module's own names, exactly; see :func:`~stabilitykit.training.fitting.load_into`.

    Tensors are of any shape and dtype that the module has.
    """
    load_into(module, Checkpoint(Path(), dict(state)), owner, Loading(weights="."))
