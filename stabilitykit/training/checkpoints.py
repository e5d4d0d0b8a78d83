"""Reading and writing weights: safetensors first, pickles only under ``weights_only``, writes atomic."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabilitykit.base.errors import DataProblem, UsageProblem, describe
from stabilitykit.base.files import write_atomic

if TYPE_CHECKING:
    import torch
    from torch import nn

PICKLED = {".pth", ".pt", ".th", ".bin", ".ckpt", ".tar"}
METADATA_KEY = "stabilitykit"
NESTS = ("state_dict", "model_state_dict", "model", "net", "module", "state_dict_ema", "model_ema", "ema")
"""Keys under which training programs keep weights; averaged ones only where there are no others."""


def load_weights(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint without ever executing code from it.

    ``.safetensors`` is read as such; ``.pth``, ``.pt``, ``.th``, ``.bin``, ``.ckpt``, ``.tar`` with
    ``torch.load(weights_only=True)``. A nested ``state_dict`` or ``model`` is taken (else the only nest of tensors), a
    common prefix ``module.`` (DataParallel) removed.

    Returns: (name -> tensor on the CPU, metadata). Metadata is what :func:`save_weights` stored, ``{}`` for
        files of others.

    Raises:
        DataProblem: missing, truncated or corrupt file; a pickle that wants anything but tensors (the message
            names what it wanted); no tensors inside; NaN or infinite values (the message names the tensor).
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataProblem(f"checkpoint {path} {what}; give a .safetensors or .pth file")
    if path.stat().st_size == 0:
        raise DataProblem(f"checkpoint {path} is empty")
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    elif path.suffix in PICKLED:
        state, metadata = _tensors_of(load_pickled(path), path), {}
    else:
        raise DataProblem(
            f"checkpoint {path}: expected one of .safetensors {' '.join(sorted(PICKLED))}, "
            f"got {path.suffix or 'no suffix'}"
        )
    if not state:
        raise DataProblem(f"checkpoint {path} holds no tensors")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise DataProblem(
                f"checkpoint {path}: tensor {name!r} holds {count} NaN or infinite values; "
                "retrain or take an earlier checkpoint"
            )
    return state, metadata


def known_class_names(metadata: Mapping[str, Any], count: int) -> list[str] | None:
    """Names of the ``count`` classes the weights were trained on, as ``stabilitykit train`` keeps them; else None."""
    names = metadata.get("class_names")
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        return None
    return names


def load_pickled(path: str | Path) -> Any:
    """``torch.load(weights_only=True)`` on the CPU; DataProblem, naming what was refused, when that fails."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fed damaged bytes raises nearly anything, AssertionError included
        refused = _refused_globals(Path(path))
        if refused:
            raise DataProblem(
                f"checkpoint {path} is a pickle that asks for {', '.join(refused)}; it may run code when "
                "loaded and was not executed: ask its author for a .safetensors file or a plain state_dict"
            ) from None
        raise DataProblem(f"checkpoint {path} is truncated or corrupt: {describe(error, 200)}") from None


def save_weights(path: str | Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write ``state`` as safetensors, ``metadata`` as JSON in its header, atomically."""
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
    """Load ``state`` into ``module`` exactly (no missing, no extra, no mis-shaped tensors).

    Raises:
        UsageProblem: naming ``owner`` (what the module is, e.g. ``"resnet18"``) and every kind of mismatch in
            one line; the module is then left untouched.
    """
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in wanted]
    shaped = [
        f"{name} (checkpoint {_size(state[name])}, model {_size(wanted[name])})"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if missing or unexpected or shaped:
        found = [
            f"{len(names)} {what}: {_some(names)}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shaped))
            if names
        ]
        raise UsageProblem(
            f"the checkpoint does not fit {owner}: {'; '.join(found)}. "
            "Give the architecture options it was trained with"
        )
    module.load_state_dict(dict(state), strict=False)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataProblem(f"checkpoint {path} is truncated or corrupt: {describe(error, 200)}") from None
    try:
        metadata = json.loads(header.get(METADATA_KEY, "{}"))
    except (json.JSONDecodeError, RecursionError):
        raise DataProblem(f"checkpoint {path}: its {METADATA_KEY} metadata is not JSON, or too deeply nested") from None
    return state, metadata if isinstance(metadata, dict) else {}


def _tensors_of(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict inside what a pickle held, at most two nests deep."""
    import torch

    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        tensors = {str(name): value.detach() for name, value in content.items() if isinstance(value, torch.Tensor)}
        nests = [name for name, value in content.items() if isinstance(value, Mapping)]
        if tensors and not nests:
            return tensors  # beside numbers and names, such as the epoch
        named = [name for name in NESTS if name in nests]
        if not named and not tensors:
            # Under a name of the author's own, if only one of the nests holds nothing but tensors.
            full = [n for n in nests if content[n] and all(isinstance(v, torch.Tensor) for v in content[n].values())]
            named = full if len(full) == 1 else []
        if not named:
            break
        content = content[named[0]]
    got = f"keys {_some([str(key) for key in content])}" if isinstance(content, Mapping) else type(content).__name__
    raise DataProblem(
        f"checkpoint {path} holds no state_dict (expected name -> tensor, perhaps under one of "
        f"{', '.join(NESTS)}; got {got})"
    )


def _refused_globals(path: Path) -> list[str]:
    """What a pickle asks for beyond tensors, found without executing it; empty when it cannot be read."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:
        return _globals_by_opcode(path)


def _globals_by_opcode(path: Path) -> list[str]:
    """Global names in an old-style pickle, read off its opcodes; torch's own finder only takes zips."""
    import pickletools

    safe = ("torch._utils", "torch.storage", "collections OrderedDict")
    found: set[str] = set()
    strings: list[str] = []
    try:
        with open(path, "rb") as file:
            while file.peek(1):
                for opcode, argument, _ in pickletools.genops(file):
                    if opcode.name == "GLOBAL":
                        found.add(str(argument))
                    elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                        found.add(" ".join(strings[-2:]))
                    elif isinstance(argument, str):
                        strings.append(argument)
    except Exception:
        pass  # raw tensor bytes follow the pickles of an old-style file: what was found before counts
    return sorted(
        name.replace(" ", ".")
        for name in found
        if not name.startswith(safe) and not (name.startswith("torch ") and name.endswith("Storage"))
    )


def _size(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: list[str], count: int = 4) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
