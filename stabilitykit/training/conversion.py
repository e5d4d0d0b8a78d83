"""What a library's converter did to weights: renamed and regrouped them, or made new numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def changes(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """(names of tensors whose values are lost, names of tensors with values that were in no tensor before).

    Renaming, reshaping, splitting, joining and permuting keep the multiset of all values: then both are empty.

    Arguments:
        before: tensors of any shape and dtype, by the file's names.
        after: the same by the network's names.
    """
    sources = {t.untyped_storage().data_ptr(): n for n, t in before.items() if t.numel()}
    covered: dict[str, int] = dict.fromkeys(before, 0)
    fresh: dict[str, torch.Tensor] = {}
    for name, tensor in after.items():
        source = sources.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
        if source is not None and before[source].dtype == tensor.dtype:
            covered[source] += tensor.numel()
        elif tensor.numel():
            fresh[name] = tensor
    left = {n: t for n, t in before.items() if covered[n] < t.numel()}
    # What was copied whole, perhaps permuted, is paired one to one; what was joined is compared as one heap.
    for name, tensor in list(fresh.items()):
        twin = next((n for n, t in left.items() if t.numel() == tensor.numel() and _same_values([t], [tensor])), None)
        if twin is not None:
            del fresh[name], left[twin]
    whole = {n: t for n, t in left.items() if covered[n] == 0}
    if fresh and len(whole) == len(left) and _same_values(list(whole.values()), list(fresh.values())):
        return [], []
    resampled = [f"{n} ({_change(before.get(n), t)})" for n, t in fresh.items()]
    replaced = set(fresh)
    return [name for name in left if name not in replaced], resampled


def _change(old: torch.Tensor | None, new: torch.Tensor) -> str:
    sizes = ["x".join(map(str, t.shape)) for t in (old, new) if t is not None]
    return " -> ".join(sizes)


def _same_values(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether both lists hold the same values equally often."""
    import torch

    if sum(t.numel() for t in one) != sum(t.numel() for t in other):
        return False
    first, second = (torch.cat([t.flatten().double() for t in tensors]).sort().values for tensors in (one, other))
    return torch.equal(first, second)
