"""Why a network, or a part of it, has no closed run: a named reason for every repeated kind of module."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import nn

from stabilitykit_adapters.candidates import Candidates
from stabilitykit_adapters.dataflow import Dataflow
from stabilitykit_adapters.nodes import node_name
from stabilitykit_adapters.runs import REASONS, Reason, Run

MOST = 12


def explain(candidates: Candidates, runs: list[Run], lost: list[Reason]) -> list[Reason]:
    """``lost``, then a reason for every class of modules that does work and stands in no closed run.

    In the order of :data:`stabilitykit_adapters.runs.REASONS`, which puts the nearest misses first, then by work.

    Arguments:
        lost: reasons for chains of blocks that could not be run.
    """
    return (
        _explained(candidates, runs, lost, False)
        or _explained(candidates, runs, lost, True)
        or ([] if runs else [Reason("no candidate", "the whole network")])
    )


def _explained(candidates: Candidates, runs: list[Run], lost: list[Reason], everything: bool) -> list[Reason]:
    """``everything``: also for parts of what a block may be, equal in size but beside their own shortcut."""
    inside = {name for run in runs if run.mode == "closed" for block in run.blocks for name in block.modules}
    groups: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for path, event in candidates.program.calls.items():
        name = candidates.program.name(path)
        if not path or any(
            name == known or name.startswith(known + ".") or known.startswith(name + ".") for known in inside
        ):
            continue
        found = _reason(candidates, path, everything)
        if found is not None:
            code, detail = found
            work = sum(a for seq, a in candidates.flops if event.seq_start <= seq - 1 < event.seq_end)
            groups[(type(candidates.modules[candidates.program.modules[path]]).__name__, code)].append((work, detail))
    reasons = []
    telling = list(REASONS)
    for (kind, code), entries in sorted(
        groups.items(), key=lambda g: (telling.index(g[0][1]), -sum(w for w, _ in g[1]))
    ):
        details = list(dict.fromkeys(detail for _, detail in entries if detail))
        more = f", and {len(details) - 2} more" if len(details) > 2 else ""
        reasons.append(Reason(code, f"{len(entries)} x {kind}", "; ".join(details[:2]) + more))
    return (lost + reasons)[:MOST]


def _reason(candidates: Candidates, path: Any, everything: bool) -> tuple[str, str] | None:
    """(code, detail) for one call; None for calls that are no candidates: small parts and containers."""
    event, flow = candidates.program.calls[path], candidates.flow
    module = candidates.modules[candidates.program.modules[path]]
    if not candidates.weights[candidates.program.modules[path]] or isinstance(module, (nn.Sequential, nn.ModuleList)):
        return None
    starts = [v for v in dict.fromkeys(leaf.vertex for leaf in event.inputs) if v is not None]
    ends = [v for v in dict.fromkeys(leaf.vertex for leaf in event.outputs) if v is not None and v not in starts]
    if not starts or not ends or not flow.parameters_between(starts, ends):
        return None
    candidate = candidates.by_path.get(path)
    small = not any(True for _ in module.children())
    if candidate is not None:
        if candidate.skip == "none" and (candidate.closed or not everything):
            return ("no skip", _size(flow, candidate.end)) if candidate.closed else None
        if candidate.closed:
            return "one block per stage", _size(flow, candidate.end)
        if candidate.sides is not None:
            return "side state", "beside " + " and ".join(_size(flow, (v,)) for v in sorted(candidate.sides))
        return "changing side state", _size(flow, candidate.end)
    if small:
        return None
    change = f"{_size(flow, starts)} to {_size(flow, ends)}"
    if len(ends) == 1 and len(starts) >= 1 and _appends(flow, starts[0], ends[0]):
        return "concatenation growth", change
    return "changing widths", change


def _appends(flow: Dataflow, start: int, end: int) -> bool:
    """Whether ``end`` is larger than ``start`` because channels were appended (and not added to)."""
    bigger = flow.vertices[end].numel > flow.vertices[start].numel
    joined = (node_name(node) == "CatBackward0" for node in flow.between((start,), (end,)))
    return bigger and not flow.adds((start,), end) and any(joined)


def _size(flow: Dataflow, state: Any) -> str:
    return " + ".join("x".join(map(str, flow.vertices[v].shape[1:])) or "scalar" for v in state)
