"""Blocks that are no module: ``x = x + f(x)`` written out in a forward, found between cuts of the dataflow graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from .dataflow import Dataflow
from .program import Program
from .runs import Block


def functional_blocks(program: Program, flow: Dataflow, covered: Sequence[tuple[float, float]], *,
                      plain: bool = False) -> Iterable[list[Block]]:
    """Chains of blocks between single tensors that everything passes through (cuts), outside ``covered``.

    A block is a step between two cuts with a skip, and the steps without one that follow it before the next
    (activation, normalisation after the addition). With ``plain``: every step that mixes coordinates, skip or not.

    Args:
        covered: (birth of the first state, birth of the last) of runs that are already known.
    """
    cuts = _cuts(program, flow)
    steps = [(a, b) for a, b in itertools.pairwise(cuts)
             if not any(low <= flow.vertices[a].birth and flow.vertices[b].birth <= high for low, high in covered)]
    owners = _owners(program)
    chain: list[list[tuple[int, int]]] = []
    for a, b in steps:
        joined = bool(chain) and chain[-1][-1][1] == a
        equal = flow.vertices[a].numel == flow.vertices[b].numel
        starts = equal and (flow.parameters_between((a,), (b,)) if plain else flow.skip((a,), b) != "none")
        if starts and (joined or not chain):
            chain.append([(a, b)])
        elif joined and equal and (plain or not flow.parameters_between((a,), (b,))):
            chain[-1].append((a, b))
        else:
            yield from _blocks(program, flow, chain, owners)
            chain = [[(a, b)]] if starts else []
    yield from _blocks(program, flow, chain, owners)


def _blocks(program: Program, flow: Dataflow, chain: list[list[tuple[int, int]]],
            owners: dict[int, str]) -> Iterable[list[Block]]:
    """The chain with the steps after its last skip cut back to what also follows the one before."""
    if len(chain) < 2:
        return
    pattern = [flow.signature((a,), (b,)) for a, b in chain[-2][1:]]
    last = [chain[-1][0]]
    for (a, b), names in zip(chain[-1][1:], pattern):
        if flow.signature((a,), (b,)) != names:
            break
        last.append((a, b))
    blocks: list[Block] = []
    for steps in (*chain[:-1], last):
        start, end = steps[0][0], steps[-1][1]
        kind = flow.skip((start,), end)
        if kind == "none" and flow.skip((start,), steps[0][1]) != "none":
            kind = "inner"
        name = owners.get(steps[0][1], "forward")
        blocks.append(Block(f"{name}+{len(blocks)}", kind, (start,), (end,), _modules(program, start, end)))
    yield blocks


def _modules(program: Program, start: int, end: int) -> tuple[str, ...]:
    """Outermost modules called between two states."""
    low, high = program.first_seen[start], program.first_seen[end]
    found: list[tuple[int, ...]] = []
    for path, event in program.calls.items():
        within = low < event.start and event.end <= high + 1
        if path and within and not any(path[:len(outer)] == outer for outer in found):
            found.append(path)
    return tuple(dict.fromkeys(program.name(path) for path in found))


def _cuts(program: Program, flow: Dataflow) -> list[int]:
    """Single tensors that everything passes through and that a call or an operation returns, in order."""
    found = []
    for vertex in flow.vertices:
        live = flow.live(vertex.birth)
        if live is not None and live == {vertex.number} and vertex.number in program.shapes:
            found.append(vertex.number)
    return [v for v in found if program.shapes[v].per_image is not None]


def _owners(program: Program) -> dict[int, str]:
    """Vertex -> name of the module whose code makes it."""
    return {leaf.vertex: program.name(path) or "forward"
            for (path, _), event in program.ops.items() for leaf in event.outputs if leaf.vertex is not None}
