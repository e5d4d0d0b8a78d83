"""Weights into a network: every tensor of a file is used as it is, or the load is refused with the list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stabilitykit.base.errors import DataProblem, UsageProblem, describe
from stabilitykit.training.containers import EXTRA_STATE, Checkpoint, read_checkpoint
from stabilitykit.training.conversion import changes
from stabilitykit.training.prefixes import WHOLE, canonical, choose_prefix, under

if TYPE_CHECKING:
    import torch
    from torch import nn

Convert = Callable[["nn.Module", dict[str, "torch.Tensor"]], "dict[str, torch.Tensor] | None"]

COUNTERS = ("num_batches_tracked", "n_averaged")
"""Tensors that count training steps: no forward pass in eval mode reads them."""
_TRAINING_NESTS = re.compile(r"(^|_)(optim\w*|(lr_)?scheduler\w*|rng\w*)($|_)", re.IGNORECASE)
_LOSSES = {"loss", "loss_fn", "loss_fct", "criterion", "criteria"}


@dataclass(frozen=True)
class Loading:
    """What a user lets through although it is not the file as it is.

    Attributes:
        allow_unused: patterns (``fnmatch``) of tensors that may be left out.
        resample: let the library's converter resize tensors (patch embeddings, position tables).
        weights: which of several sets of weights, by the start of its tensors' names; ``"."`` for no prefix.
    """

    allow_unused: tuple[str, ...] = ()
    resample: bool = False
    weights: str | None = None

    @classmethod
    def of(cls, allow_unused: Any = None, resample: bool = False, weights: str | None = None) -> Loading:
        """From option values: ``allow_unused`` is text with commas between patterns, or a sequence."""
        if isinstance(allow_unused, str):
            allow_unused = [pattern.strip() for pattern in allow_unused.split(",")]
        return cls(tuple(p for p in allow_unused or () if p), bool(resample), weights)


@dataclass
class _Fit:
    """How a state and a module go together: by category, the names concerned (with remarks)."""

    used: dict[str, Any] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    shaped: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)
    widened: set[str] = field(default_factory=set)
    rounded: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        return bool(self.unused or self.missing or self.shaped or self.kinds or self.torn)


def load_into(
    module: nn.Module,
    source: Checkpoint | str | Path,
    owner: str,
    how: Loading | None = None,
    convert: Convert | None = None,
) -> dict[str, Any]:
    """Put the weights of a file into ``module``; nothing is dropped, resized or guessed without a word.

    Arguments:
        source: a file, a folder or what :func:`~stabilitykit.training.containers.read_checkpoint` found in one.
        owner: what the module is, for messages, e.g. ``"resnet18"``.
        how: what is let through.
        convert: ``(module, state) -> state`` in the module's names, tried where names or shapes differ; None from it
            means it does not know the format.

    Returns:
        Where the weights come from and what was let through, as plain data.

    Raises:
        DataProblem: an unreadable file, NaN or infinite weights.
        UsageProblem: the file does not fit, with every tensor by category; the module is then left untouched. Or it
            holds several sets of weights.
    """
    how = how or Loading()
    found = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    where = f"{owner} ({found.path})" if found.path.name else owner
    tensors = canonical(found.tensors)
    wanted = _Wanted(module)
    choice = choose_prefix(tensors, wanted.needed, how.weights, found, where)
    state, rest = under(tensors, choice.prefix)
    if choice.prefix == WHOLE:
        state = {name: tensor for name, tensor in state.items() if name not in choice.others}
    extras, more = under(canonical(found.extras), choice.prefix)
    outside = [name for name in rest if name not in choice.others]
    left_out = [name for name in outside if _training_only(name, rest[name], found)]
    outside = [name for name in outside if name not in left_out]
    fit = wanted.fit(state)
    resampled: list[str] = []
    converted = False
    if convert is not None and (fit.missing or fit.unused or fit.shaped):
        other = convert(module, dict(state))
        if other is not None:
            again = wanted.fit(other)
            lost, resampled = changes(state, other)
            again.unused += [name for name in lost if not wanted.known(name, state[name])]
            if len(again.missing) + len(again.shaped) < len(fit.missing) + len(fit.shaped) or not again.wrong:
                fit, converted = again, True
            else:
                resampled = []
    own = [name for name in fit.unused if name in state and _training_only(name, state[name], found)]
    left_out += own
    fit.unused = [name for name in [*outside, *fit.unused, *more] if name not in own]
    fit.unused += [name for name in extras if name not in wanted.extras]
    allowed = [name for name in fit.unused if any(fnmatch(name, pattern) for pattern in how.allow_unused)]
    fit.unused = [name for name in fit.unused if name not in allowed]
    if fit.missing and not fit.used and not fit.shaped and not fit.kinds:
        training = ", the state of a training without its weights" if len(left_out) == len(tensors) else ""
        raise UsageProblem(
            f"the checkpoint for {where} holds none of the network's tensors{training}; it holds {listed(tensors)}, "
            f"the network wants {listed(fit.missing)}"
        )
    if fit.wrong or (resampled and not how.resample):
        raise UsageProblem(_refusal(where, fit, [] if how.resample else resampled, how, convert is not None))
    _require_finite(fit.used, found.path)
    _put(module, fit.used | {name: extras[name] for name in wanted.extras if name in extras}, where)
    facts = {
        "file": found.path.name,
        "set": "" if choice.prefix == WHOLE else choice.prefix,
        "other_sets": sorted(choice.sets),
        "unused_allowed": allowed,
        "left_out": left_out,
        "resampled": resampled,
        "converted": converted,
        "tied": fit.tied,
        "stored_as": ", ".join(sorted(fit.widened)),
        "rounded": fit.rounded,
        "not_in_file": [name for name in wanted.extras if name not in extras],
    }
    return {key: value for key, value in facts.items() if value}


def remarks(record: Mapping[str, Any]) -> list[str]:
    """What a person should hear of the record :func:`load_into` returned: one line each."""
    file = record.get("file", "checkpoint")
    texts = {
        "other_sets": "{file} holds several sets of weights: {set} is used, not {names}",
        "unused_allowed": "left out of {file} because it was allowed: {names}",
        "left_out": "left out of {file}, as no forward pass reads it: {names}",
        "resampled": "resampled, so not the weights of {file} as they are: {names}",
        "rounded": "rounded from float64, so not the weights of {file} to the last digit: {names}",
        "not_in_file": "not in {file}, left as the network was built: {names}",
    }
    chosen = record.get("set") or "the plain names"
    return [
        text.format(file=file, set=chosen, names=listed(record[key]))
        for key, text in texts.items()
        if record.get(key) and not (key == "left_out" and _only_counters(record[key]))
    ]


def listed(names: Iterable[str]) -> str:
    """All names, those that differ in numbers only as one pattern with their count: ``blocks.*.weight (12)``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), []).append(name)
    return ", ".join(m[0] if len(m) == 1 else f"{pattern} ({len(m)})" for pattern, m in groups.items())


class _Wanted:
    """What a module's state_dict asks for."""

    def __init__(self, module: nn.Module) -> None:
        import torch

        self.tensors = {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor)}
        self.extras = [k for k in module.state_dict() if k.rpartition(".")[2] == EXTRA_STATE]
        owners: dict[int, list[str]] = {}
        members = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
        for name, tensor in members:
            owners.setdefault(id(tensor), []).append(name)
        self.groups = {
            name: tuple(n for n in names if n in self.tensors) for names in owners.values() for name in names
        }
        self.constants = {k: v for k, v in module.named_buffers() if k not in self.tensors}
        self.needed = {
            self.groups.get(name, (name,)) or (name,) for name in self.tensors if not name.endswith(COUNTERS[0])
        }

    def known(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether the module computes this tensor by itself, to the same values."""
        import torch

        own = self.constants.get(name)
        return own is not None and own.shape == tensor.shape and torch.equal(own.cpu().to(tensor.dtype), tensor)

    def fit(self, state: Mapping[str, torch.Tensor]) -> _Fit:
        """Compare name by name."""
        import torch

        fit = _Fit()
        for name, want in self.tensors.items():
            given = state.get(name)
            twins = [twin for twin in self.groups.get(name, ()) if twin != name and twin in state]
            if given is None:
                if twins:
                    fit.tied.append(f"{name} = {twins[0]}")
                elif not name.endswith(COUNTERS[0]):
                    fit.missing.append(name)
                continue
            if given.shape != want.shape:
                fit.shaped.append(f"{name} (checkpoint {_size(given)}, model {_size(want)})")
            elif not _same_kind(given, want):
                fit.kinds.append(f"{name} ({_dtype(given)} for {_dtype(want)})")
            else:
                if any(state[t].shape == given.shape and not torch.equal(state[t], given) for t in twins):
                    fit.torn.append(name)
                if given.dtype != want.dtype and given.is_floating_point():
                    exact = torch.equal(given.to(want.dtype).to(given.dtype), given)
                    fit.widened.add(_dtype(given))
                    fit.rounded += [] if exact else [name]
                fit.used[name] = given
        fit.unused = [n for n, t in state.items() if n not in self.tensors and not self.known(n, t)]
        return fit


def _same_kind(given: torch.Tensor, want: torch.Tensor) -> bool:
    """Whether numbers of one kind stand for numbers of the other: floats of 16 bits and more; whole numbers."""
    if given.is_quantized or given.is_floating_point() != want.is_floating_point():
        return False
    if given.is_floating_point():
        return given.dtype.itemsize >= 2
    return given.dtype == want.dtype or (
        "int" in str(given.dtype) and "int" in str(want.dtype) and bool((given.to(want.dtype) == given).all())
    )


def _training_only(name: str, tensor: torch.Tensor, found: Checkpoint) -> bool:
    """Whether a tensor serves training alone: counters, optimizers, losses, scores beside a state_dict."""
    parts = name.split(".")
    if parts[-1] in COUNTERS or _LOSSES & set(parts[:-1]):
        return True
    nested = any(found.nests)
    if nested and len(parts) > 1 and parts[0] in {nest.partition(".")[0] for nest in found.nests}:
        return bool(_TRAINING_NESTS.search(parts[0]))
    if nested and len(parts) == 1:
        return tensor.numel() == 1 or bool(_TRAINING_NESTS.search(name))
    return False


def _only_counters(names: Iterable[str]) -> bool:
    return all(name.rpartition(".")[2] in COUNTERS or _TRAINING_NESTS.search(name.partition(".")[0]) for name in names)


def _refusal(where: str, fit: _Fit, resampled: list[str], how: Loading, convertible: bool) -> str:
    kinds = (
        (fit.missing, "missing"),
        (fit.unused, "unused"),
        (fit.shaped, "mis-shaped"),
        (fit.kinds, "of another number kind"),
        (fit.torn, "tied in the network but different in the file"),
        (resampled, "to be resampled"),
    )
    text = "; ".join(f"{len(names)} {what}: {listed(names)}" for names, what in kinds if names)
    if fit.kinds:
        hint = "Give float weights: quantised ones mean nothing without their scales"
    elif fit.missing or (fit.shaped and not convertible):
        hint = "Give the architecture options it was trained with"
    elif resampled or fit.shaped:
        hint = "Give the options it was trained with (img_size, patch_size, ...), or --resample to change the weights"
    else:
        pattern = fit.unused[0] if fit.unused else ""
        hint = f"Use a network that reads them, or let them go with --allow-unused PATTERN (as {pattern})"
    return f"the checkpoint does not fit {where}: {text}. {hint}"


def _require_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    for name, tensor in state.items():
        require_finite(name, tensor, path)


def require_finite(name: str, tensor: torch.Tensor, path: Path) -> None:
    """DataProblem for NaN and infinite values of a tensor of any shape and dtype.

    Numbers of 8 bits and fewer are judged by their kind elsewhere.
    """
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype.itemsize >= 2):
        count = int((~tensor.isfinite()).sum())
        if count:
            raise DataProblem(
                f"checkpoint {path}: tensor {name!r} holds {count} NaN or infinite values; "
                "retrain or take an earlier checkpoint"
            )


def _put(module: nn.Module, state: Mapping[str, Any], where: str) -> None:
    try:
        module.load_state_dict(dict(state), strict=False)
    except Exception as error:  # a module's own set_extra_state, or parametrisations that recompute
        raise UsageProblem(f"{where}: the network refuses these weights: {describe(error, 300)}") from None


def _size(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
