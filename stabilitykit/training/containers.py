"""Files that hold weights: what they are is told by their content, and nothing inside is ever executed."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabilitykit.base.errors import DataProblem, UsageProblem, describe

if TYPE_CHECKING:
    import torch

METADATA_KEY = "stabilitykit"
EXTRA_STATE = "_extra_state"
"""Last part of the name under which a module keeps what is no tensor (``get_extra_state``)."""
_MAX_JSON = 64_000_000
_DEEPEST = 8
_SHARD = re.compile(r"-(\d{2,})-of-(\d{2,})\.")


@dataclass(frozen=True)
class Checkpoint:
    """Everything a file, a set of shards or a folder holds.

    Attributes:
        path: the file that was named, or the file found in the folder that was named.
        tensors: every tensor by its dotted name, those of optimizers included; on the CPU.
        extras: what modules keep beside tensors (names ending in ``_extra_state``).
        nests: dotted names of the mappings that hold tensors themselves; ``""`` for the file as a whole.
        metadata: what :func:`stabilitykit.training.checkpoints.save_weights` stored; ``{}`` for files of others.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    extras: dict[str, Any] = field(default_factory=dict)
    nests: tuple[str, ...] = ("",)
    metadata: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read safetensors, what ``torch.save`` wrote (``weights_only``), shards with their index, or a folder of those.

    Raises:
        DataProblem: it is none of these, damaged, a program (TorchScript, a pickled module), or holds no tensor.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise DataProblem(f"checkpoint {path} {what}; give a .safetensors or .pth file, or a folder that holds one")
    if path.stat().st_size == 0:
        raise DataProblem(f"checkpoint {path} is empty")
    if path.name.endswith(".index.json"):
        return _shards(path)
    shard = _SHARD.search(path.name)
    if shard and int(shard[2]) > 1:
        raise DataProblem(
            f"checkpoint {path} is one of {int(shard[2])} shards; give their folder, or the .index.json beside them"
        )
    if path.suffix == ".safetensors" or _looks_like_safetensors(path):
        tensors, metadata = _read_safetensors(path)
        found = Checkpoint(path, tensors, metadata=metadata)
    else:
        found = _flattened(load_pickled(path), path)
    if not found.tensors:
        raise DataProblem(
            f"checkpoint {path} holds no tensors: no state_dict (expected name -> tensor, perhaps under a key such as "
            "state_dict or model)"
        )
    return found


def load_pickled(path: str | Path) -> Any:
    """``torch.load(weights_only=True)`` on the CPU; DataProblem, naming what was refused, when that fails."""
    import torch

    path = Path(path)
    other = _what_else(path)
    if other:
        raise DataProblem(f"checkpoint {path} is {other}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fed damaged bytes raises nearly anything, AssertionError included
        refused = _refused_globals(path)
        if refused:
            raise DataProblem(
                f"checkpoint {path} is a pickle that asks for {', '.join(refused)}; it may run code when "
                "loaded and was not executed: ask its author for a .safetensors file or a plain state_dict"
            ) from None
        raise DataProblem(
            f"checkpoint {path} is truncated or corrupt, or no file of weights (expected safetensors or what "
            f"torch.save wrote): {_plain_line(error)}"
        ) from None


def _plain_line(error: BaseException) -> str:
    """The start of a library's message; torch's advice to switch the protection off is left out."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", describe(error))
    return type(error).__name__ if "weights_only" in line or "Weights only" in line else line[:200]


def read_json(path: Path) -> Any:
    """What a JSON file holds; DataProblem when it is too large, too deep or no JSON."""
    try:
        if path.stat().st_size > _MAX_JSON:
            raise DataProblem(f"{path} is larger than {_MAX_JSON // 10**6} MB; that is no configuration")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataProblem(f"{path} cannot be read as JSON: {describe_short(error)}") from None


def describe_short(error: BaseException) -> str:
    """One short line about ``error``."""
    return "too deeply nested" if isinstance(error, RecursionError) else describe(error, 200)


def _in_folder(folder: Path) -> Path:
    """The one file of weights in a folder as hubs keep them: an index of shards first, safetensors before pickles."""
    for patterns in (("*.safetensors.index.json",), ("*.safetensors",), ("*.bin.index.json",), ("*.bin",)):
        found = sorted(p for pattern in patterns for p in folder.glob(pattern) if not p.name.startswith("."))
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageProblem(
                f"checkpoint {folder} is a folder with {len(found)} files of weights "
                f"({', '.join(p.name for p in found[:4])}); give one of them"
            )
    raise DataProblem(
        f"checkpoint {folder} is a folder without model.safetensors, pytorch_model.bin or an index of shards; "
        "give the file itself"
    )


def _shards(index: Path) -> Checkpoint:
    content = read_json(index)
    where = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(where, Mapping) or not where or not all(isinstance(v, str) for v in where.values()):
        raise DataProblem(f"checkpoint {index}: expected a weight_map from tensor names to files")
    tensors: dict[str, torch.Tensor] = {}
    for name in dict.fromkeys(where.values()):
        if name != Path(name).name or name.startswith("."):
            raise DataProblem(f"checkpoint {index}: the shard {name!r} does not lie beside its index")
        shard = index.parent / name
        if not shard.is_file():
            raise DataProblem(f"checkpoint {index}: the shard {name} is missing")
        if shard.suffix == ".safetensors":
            part = _read_safetensors(shard)[0]
        else:
            part = _flattened(load_pickled(shard), shard).tensors
        twice = sorted(part.keys() & tensors.keys())
        if twice:
            raise DataProblem(f"checkpoint {index}: {twice[0]} stands in more than one shard")
        tensors |= part
    absent = [str(name) for name in where if name not in tensors]
    if absent:
        raise DataProblem(f"checkpoint {index}: {len(absent)} tensors are in no shard, {absent[0]} among them")
    return Checkpoint(index, tensors)


def _looks_like_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and 2 <= int.from_bytes(head[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise DataProblem(f"checkpoint {path} is truncated or corrupt: {describe(error, 200)}") from None
    try:
        metadata = json.loads(header.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise DataProblem(
            f"checkpoint {path}: its {METADATA_KEY} metadata is not JSON ({describe_short(error)})"
        ) from None
    return state, metadata if isinstance(metadata, dict) else {}


def _flattened(content: Any, path: Path) -> Checkpoint:
    """All tensors of what a pickle held, by dotted names."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    extras: dict[str, Any] = {}
    nests: dict[str, None] = {}

    def walk(thing: Any, name: str, depth: int) -> None:
        for key, value in _items(thing):
            full = f"{name}.{key}" if name else key
            if isinstance(value, torch.Tensor):
                if full in tensors:
                    raise DataProblem(f"checkpoint {path}: two tensors are called {full}")
                tensors[full] = value.detach()
                nests[name] = None
            elif key.rpartition(".")[2] == EXTRA_STATE:
                extras[full] = value
            elif depth < _DEEPEST:
                walk(value, full, depth + 1)

    if isinstance(content, Mapping):
        walk(content, "", 0)
    return Checkpoint(path, tensors, extras, tuple(nests))


def _items(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, Mapping):
        yield from ((str(key), value) for key, value in thing.items())
    elif isinstance(thing, (list, tuple)):
        yield from ((str(number), value) for number, value in enumerate(thing))


def _what_else(path: Path) -> str:
    """What a file is that is certainly no pickled state, with what to do about it; nothing when it may be one."""
    import tarfile

    with open(path, "rb") as file:
        head = file.read(8)
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return ""
        if any(name.endswith("constants.pkl") for name in names) and any("/code/" in f"/{name}" for name in names):
            return (
                "a TorchScript program, not weights alone, and was not executed: save its weights with "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            )
        if not any(name.endswith("data.pkl") for name in names):
            return "a zip archive that torch.save did not write: unpack it and give the file of weights inside"
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\x00":
        return "compressed: unpack it and give the file of weights inside"
    if head[:4] == b"\x89HDF":
        return "an HDF5 file (Keras?), not PyTorch weights: convert it to safetensors"
    if head[:6] == b"\x93NUMPY":
        return "a NumPy array: store a state_dict as safetensors"
    if tarfile.is_tarfile(path) and not _old_torch_tar(path):
        return "a tar archive: unpack it and give the file of weights inside"
    return ""


def _old_torch_tar(path: Path) -> bool:
    """Whether torch's own tar format of 2016 is meant; torch.load says what it makes of it."""
    import tarfile

    try:
        with tarfile.open(path) as archive:
            return "storages" in archive.getnames()
    except (tarfile.TarError, OSError):
        return False


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
