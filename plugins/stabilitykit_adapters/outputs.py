"""Which of a network's outputs are its logits, and whether they are logits, probabilities or their logarithms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from stabilitykit import UsageProblem

OutputPath = tuple[Any, ...]
"""Keys, positions and attribute names that lead from what ``forward`` returned to one tensor."""
_DEEPEST = 6


class OutputProblem(UsageProblem):
    """The outputs hold no (B, K) logits, or several tensors that might be."""


def tensors_in(output: Any) -> list[tuple[OutputPath, torch.Tensor]]:
    """Every tensor in what a network returned: tensors, mappings, sequences, data classes and plain objects."""
    return list(_walk(output, ()))


def _walk(thing: Any, path: OutputPath) -> Iterator[tuple[OutputPath, torch.Tensor]]:
    if isinstance(thing, torch.Tensor):
        yield path, thing
    elif len(path) < _DEEPEST:
        for key, value in _members(thing):
            yield from _walk(value, (*path, key))


def _members(thing: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(thing, Mapping):
        yield from thing.items()
    elif hasattr(thing, "_fields") and isinstance(thing, tuple):
        yield from zip(thing._fields, thing)  # type: ignore[attr-defined]
    elif isinstance(thing, (list, tuple)):
        yield from enumerate(thing)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        yield from ((field.name, getattr(thing, field.name, None)) for field in dataclasses.fields(thing))
    elif not isinstance(thing, (str, bytes, type, torch.nn.Module)) and hasattr(thing, "__dict__"):
        yield from vars(thing).items()


def pick(output: Any, path: OutputPath) -> torch.Tensor:
    """The tensor at ``path`` as logits (B, K): axes of length 1 behind the classes are dropped."""
    for key in path:
        if isinstance(output, Mapping) or (isinstance(output, (list, tuple)) and isinstance(key, int)):
            output = output[key]
        else:
            output = getattr(output, key)
    tensor: torch.Tensor = output
    return tensor.flatten(1) if tensor.ndim > 2 else tensor


def choose_output(output: Any, wished: str | None, classes: int | None) -> OutputPath:
    """Where the logits are in what ``forward`` returned for a batch of B >= 2 inputs.

    Arguments:
        wished: name or position a user gave; None: the only tensor of the right form, the one called ``logits``, or
            the only one with ``classes`` columns.

    Raises:
        OutputProblem: none fits, or several do; with every tensor by name and shape.
    """
    found = tensors_in(output)
    if not found:
        raise OutputProblem(
            f"the forward pass returned a {type(output).__name__} with no tensor in it; expected logits (B, K)"
        )
    if wished is not None:
        named = [path for path, _ in found if text_of(path) == wished]
        if not named and wished.isdigit() and int(wished) < len(found):
            named = [found[int(wished)][0]]
        if not named:
            raise OutputProblem(f"the network has no output {wished!r}; it returns {_listed(found)}")
        if not _like_logits(dict(found)[named[0]]):
            raise OutputProblem(f"output {wished!r} is no batch of logits (B, K), K >= 2; there are {_listed(found)}")
        return named[0]
    fitting = [(path, tensor) for path, tensor in found if _like_logits(tensor)]
    if not fitting:
        raise OutputProblem(
            f"the network returns {_listed(found)}: no classifier's logits (B, K), K >= 2; segmentation, detection, "
            "single scores and lists of boxes have no readout in R^K"
        )
    for choice in (
        [path for path, _ in fitting if path and str(path[-1]).lower() == "logits"],
        [path for path, tensor in fitting if tensor.shape[1] == classes],
        [path for path, _ in fitting],
    ):
        if len(choice) == 1:
            return choice[0]
    raise OutputProblem(
        f"the network returns {_listed(found)}: say which are its logits with --model-output "
        f"{text_of(fitting[-1][0])} (or output={text_of(fitting[-1][0])})"
    )


def text_of(path: OutputPath) -> str:
    """``logits``, ``1`` or ``aux.0``."""
    return ".".join(map(str, path))


def _like_logits(tensor: torch.Tensor) -> bool:
    shape = tuple(tensor.shape)
    return tensor.is_floating_point() and len(shape) >= 2 and shape[1] >= 2 and all(n == 1 for n in shape[2:])


def _listed(found: list[tuple[OutputPath, torch.Tensor]]) -> str:
    return ", ".join(
        f"{text_of(path) or 'one tensor'} ({', '.join(['B', *map(str, tensor.shape[1:])])})"
        for path, tensor in found[:20]
    )


def as_logits(values: torch.Tensor, kind: str) -> torch.Tensor:
    """Logits (B, K) whose softmax is the network's answer. A probability of 0 counts as the smallest normal number."""
    if kind != "probabilities":
        return values  # the softmax of log-probabilities is the probabilities: they are logits already
    if values.dtype.itemsize < 4:  # in 16 bits, different probabilities would have one logarithm
        values = values.float()
    return values.clamp_min(torch.finfo(values.dtype).tiny).log()
