"""Blocks that are no module: ``x = x + f(x)`` written out in a forward, found between cuts of the dataflow graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from stabilitykit_adapters.dataflow import Dataflow
from stabilitykit_adapters.program import Program
from stabilitykit_adapters.runs import Block

_Steps = list[tuple[int, int]]
Covered = Sequence[tuple[float, float]]


def functional_blocks(
    program: Program, flow: Dataflow, covered: Covered, *, plain: bool = False
) -> Iterable[list[Block]]:
    """Chains of blocks between single tensors that everything passes through (cuts), outside ``covered``.

    A block is a step between two cuts with a skip, and the steps without one that follow it before the next
    (activation, normalisation after the addition). With ``plain``: every step that mixes coordinates, skip or not.

    Arguments:
        covered: (birth of the first state, birth of the last) of runs that are already known.
    """
    yield from _chains(program, flow, single_cuts(program, flow), covered, plain)


def open_functional_blocks(
    program: Program, flow: Dataflow, covered: Covered
) -> Iterable[tuple[list[Block], frozenset[int]]]:
    """The same between tensors that everything passes through but one constant side state: (blocks, side state)."""
    for sides, ticks in _beside(program, flow).items():
        for blocks in _chains(program, flow, list(ticks), covered, False):
            # Adding up what others make of the side state is no block: it must work on the state.
            if all(flow.mixes_state(block.start[0], block.end[0]) for block in blocks):
                yield [replace(block, ticks=(ticks[block.start[0]], ticks[block.end[0]])) for block in blocks], sides


def _chains(
    program: Program, flow: Dataflow, states: Sequence[int], covered: Covered, plain: bool
) -> Iterable[list[Block]]:
    owners = owners_of(program)
    chain: list[_Steps] = []
    lead: _Steps = []
    position: int | None = None
    gap = False
    for a, b in itertools.pairwise(states):
        known = any(low <= flow.vertices[a].birth and flow.vertices[b].birth <= high for low, high in covered)
        joined = bool(chain) and position == a and not known
        # Reordering coordinates is no step of a block: the adapter undoes it (stages that are joined by patching).
        if joined and flow.permutation(a, b):
            position, gap = b, True
            continue
        equal = not known and flow.vertices[a].shape == flow.vertices[b].shape
        mixes = equal and flow.parameters_between((a,), (b,))
        starts = equal and (mixes if plain else flow.skip((a,), b) != "none")
        if starts and (joined or not chain):
            chain.append([*lead, (a, b)])
            lead, gap = [], False
        elif joined and equal and (plain or not mixes):
            (lead if gap else chain[-1]).append((a, b))
        else:
            yield from _blocks(program, flow, chain, owners)
            chain, lead, gap = ([[(a, b)]] if starts else []), [], False
        position = b
    yield from _blocks(program, flow, chain, owners)


def _blocks(program: Program, flow: Dataflow, chain: list[_Steps], owners: dict[int, str]) -> Iterable[list[Block]]:
    """The chain with the steps after its last skip cut back to what also follows the one before."""
    if len(chain) < 2:
        return
    # What follows the last skip belongs to the last block as far as the same follows the skip before it.
    pattern = [flow.signature((a,), (b,)) for a, b in _after_skip(flow, chain[-2])]
    after = _after_skip(flow, chain[-1])
    last = chain[-1][: len(chain[-1]) - len(after)]
    for (a, b), names in zip(after, pattern):
        if flow.signature((a,), (b,)) != names:
            break
        last.append((a, b))
    blocks: list[Block] = []
    for steps in (*chain[:-1], last):
        start, end = steps[0][0], steps[-1][1]
        kind = flow.skip((start,), end)
        if kind == "none" and any(flow.skip((a,), b) != "none" for a, b in steps):
            kind = "inner"
        name = owners.get(steps[0][1], "forward")
        blocks.append(Block(f"{name}+{len(blocks)}", kind, (start,), (end,), _modules(program, start, end)))
    yield blocks


def _after_skip(flow: Dataflow, steps: _Steps) -> _Steps:
    """The steps of a block behind its skip (without any: behind its first step)."""
    skips = [n for n, (a, b) in enumerate(steps) if flow.skip((a,), b) != "none"]
    return steps[(skips[0] if skips else 0) + 1 :]


def _modules(program: Program, start: int, end: int) -> tuple[str, ...]:
    """Outermost modules called between two states."""
    return modules_within(program, program.first_seen[start], program.first_seen[end] + 1)


def modules_within(program: Program, low: int, high: int) -> tuple[str, ...]:
    """Outermost modules called after event ``low`` that end at ``high`` at the latest."""
    found: list[tuple[int, ...]] = []
    for path, event in program.calls.items():
        within = low < event.start and event.end <= high
        if path and within and not any(path[: len(outer)] == outer for outer in found):
            found.append(path)
    return tuple(dict.fromkeys(program.name(path) for path in found))


def single_cuts(program: Program, flow: Dataflow) -> list[int]:
    """Single tensors that everything passes through and that a call or an operation returns, in order."""
    found = []
    for vertex in flow.vertices:
        live = flow.live(vertex.birth)
        if live is not None and live == {vertex.number} and vertex.number in program.shapes:
            found.append(vertex.number)
    return [v for v in found if program.shapes[v].per_image is not None]


def _beside(program: Program, flow: Dataflow) -> dict[frozenset[int], dict[int, int]]:
    """Side state -> the tensors that are, one after the other, all that is alive beside it, and when that begins.

    "When": the event by which such a tensor and the whole side state are there.
    """
    found: dict[frozenset[int], dict[int, int]] = {}
    for live in flow.moments():
        if len(live) < 2 or any(v not in program.first_seen or program.shapes[v].per_image is None for v in live):
            continue
        tick = max(program.first_seen[v] for v in live)
        for vertex in live:
            found.setdefault(live - {vertex}, {}).setdefault(vertex, tick)
    return {sides: ticks for sides, ticks in found.items() if len(ticks) > 2}


def owners_of(program: Program) -> dict[int, str]:
    """Vertex -> name of the module whose code makes it."""
    return {
        leaf.vertex: program.name(path) or "forward"
        for (path, _), event in program.ops.items()
        for leaf in event.outputs
        if leaf.vertex is not None
    }
