"""Where a network can be entered and left: parts between two program points, and what to give and take there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stabilitykit_adapters.following import OpKey, Path
from stabilitykit_adapters.program import Program, Unreachable


@dataclass(frozen=True)
class Segment:
    """A part of a network between two program points.

    Attributes:
        point: events up to this one are skipped (-1: none, the part starts at the model's input).
        inject: vertices given from outside, in the order of the tensors passed to ``Replayer.run``.
        capture: vertices wanted; empty for the logits.
    """

    point: int
    inject: tuple[int, ...]
    capture: tuple[int, ...]
    captures_in_calls: Mapping[Path, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    captures_in_ops: Mapping[OpKey, tuple[tuple[int, int], ...]] = field(default_factory=dict)


def point_of(program: Program, vertices: Sequence[int], at_least: int = -1) -> int:
    """The last event before which nothing new is computed once ``vertices`` are there.

    Raises:
        Unreachable: one of them is returned by no call or operation.
    """
    if any(v not in program.first_seen for v in vertices):
        raise Unreachable("a tensor of the state is made where no call or operation can be seen")
    point = max(at_least, *(program.first_seen[v] for v in vertices))
    newest = max(program.births[v] for v in vertices)
    for tick, what, key in program.timeline[bisect_right(program.timeline, point, key=lambda entry: entry[0]) :]:
        if what == "start":
            continue
        event = program.event(what, key)
        if what == "op" and event.carries_data:
            break
        if any(leaf.vertex is not None and program.births[leaf.vertex] > newest for leaf in event.outputs):
            break
        point = tick
    _check_reachable(program, point, vertices)
    return point


def sides_at(program: Program, sides: Sequence[int], state: Sequence[int], tick: int) -> tuple[int, ...]:
    """The part of a run's side state that is computed by the time of ``state`` and is not part of it."""
    limit = max(tick, *(program.first_seen.get(v, -1) for v in state))
    return tuple(v for v in sides if v not in state and program.first_seen.get(v, limit + 1) <= limit)


def _check_reachable(program: Program, point: int, vertices: Sequence[int]) -> None:
    wanted = set(vertices) - {program.input_vertex}
    pending: list[Path] = [()]
    entered: set[Path] = set()
    while pending and wanted:
        path = pending.pop()
        entered.add(path)
        for child in program.children(path):
            event = program.calls[child]
            if event.start > point:
                break
            if event.end <= point and event.skippable:
                wanted -= {leaf.vertex for leaf in event.outputs if leaf.vertex is not None}
            else:
                pending.append(child)
    for (path, _), event in program.ops.items():
        if path in entered and event.end <= point:
            wanted -= {leaf.vertex for leaf in event.outputs if leaf.vertex is not None}
    if wanted:
        raise Unreachable("a tensor of the state never leaves the call that makes it")


def segment(program: Program, point: int, inject: Sequence[int], capture: Sequence[int]) -> Segment:
    """Prepare a part of the network; see :class:`Segment`.

    A tensor is captured where the last call before anything new is computed returns it, so that hooks on that
    call have had their say; inside a body only if no call returns it.
    """
    in_calls: dict[Path, list[tuple[int, int]]] = {}
    in_ops: dict[OpKey, list[tuple[int, int]]] = {}
    for vertex in dict.fromkeys(capture):
        if vertex == program.input_vertex:
            continue
        point_after = point_of(program, (vertex,))
        hits = [
            (event.end, path, n)
            for path, event in program.calls.items()
            for n, leaf in enumerate(event.outputs)
            if leaf.vertex == vertex and leaf.kind == "data" and event.end <= point_after
        ]
        if hits:
            _, path, n = max(hits)
            in_calls.setdefault(path, []).append((n, vertex))
        else:
            for key, event in program.ops.items():
                for n, leaf in enumerate(event.outputs):
                    if leaf.vertex == vertex and leaf.kind == "data":
                        in_ops.setdefault(key, []).append((n, vertex))
    return Segment(
        point,
        tuple(inject),
        tuple(capture),
        {k: tuple(v) for k, v in in_calls.items()},
        {k: tuple(v) for k, v in in_ops.items()},
    )
