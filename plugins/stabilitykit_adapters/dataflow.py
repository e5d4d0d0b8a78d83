"""The autograd graph of a recording, read as a dataflow graph: what is alive when, and where skips run."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from stabilitykit_adapters.nodes import ADDING, NORMALISING, PARTIAL, PERMUTING, POINTWISE, SCALING, mixes, node_name
from stabilitykit_adapters.tracing import NodeKey, Recording

LIVE_LIMIT = 12
"""Program points with more live tensors than this are not described one by one: nobody would hold so many."""

KINDS = ("identity", "activated", "scaled", "normalised", "partial", "inner", "none")
"""How the skip of a block runs, from the plainest to none (see :func:`Dataflow.skip`)."""


@dataclass(frozen=True)
class Vertex:
    """One input-dependent tensor: when it is born, when last used, its shape while recording."""

    number: int
    birth: float
    death: float
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


class Dataflow:
    """Vertices and operations on the way from the input to the logits.

    What the output does not depend on is left out, so a vertex that is missing here is dead.
    """

    def __init__(self, recording: Recording) -> None:
        self._input = recording.input_node
        nodes = _reachable(recording.output.node, recording.input_node)
        order = _consistent_order(nodes, recording.input_node[0])
        self.nodes = sorted(nodes, key=lambda node: order[node])
        self._order = order
        self._slice_additions = _additions_to_views(recording)
        deaths: dict[NodeKey, float] = {}
        for node in self.nodes:
            for source in _sources(node, self._input):
                deaths[source] = max(deaths.get(source, -1.0), order[node])
        assert recording.output.node is not None
        deaths[recording.output.node] = float("inf")
        self.vertices: list[Vertex] = []
        self.keys: list[NodeKey] = []
        self._number: dict[NodeKey, int] = {}
        for key in sorted(deaths, key=lambda k: (order[k[0]], k[1])):
            self._number[key] = len(self.vertices)
            self.vertices.append(Vertex(len(self.vertices), order[key[0]], deaths[key], _shape(key)))
            self.keys.append(key)
        self.input = self._number[self._input]
        self.output = self._number[recording.output.node]
        self._points, self._live = self._sweep()

    def vertex(self, key: NodeKey | None) -> int | None:
        """Number of an autograd tensor, None when the output does not depend on it."""
        return None if key is None else self._number.get(key)

    def live(self, point: float) -> frozenset[int] | None:
        """Vertices computed at or before ``point`` and still needed after it; None when there are too many."""
        position = bisect_right(self._points, point) - 1
        return self._live[position] if position >= 0 else frozenset()

    def moments(self) -> Iterator[frozenset[int]]:
        """What is alive, from one program point to the next, leaving out points with too many."""
        return (live for live in self._live if live is not None)

    def birth(self, vertices: Iterable[int]) -> float:
        return max(self.vertices[v].birth for v in vertices)

    def skip(self, start: Iterable[int], end: int) -> str:
        """How a block's result ``end`` contains its state ``start``: one of :data:`KINDS`.

        ``identity``: x + f(x), up to a permutation of coordinates. ``activated``, ``scaled``, ``normalised``: the
        same followed by a pointwise function, a factor, a normalisation. ``partial``: some coordinates are
        carried over. ``none``: no such path ("inner" is decided by the caller).
        """
        return self._trace(start, end)[0]

    def adds(self, start: Iterable[int], end: int) -> bool:
        """Whether (part of) the state reaches the result through an addition."""
        return self._trace(start, end)[1]

    def _trace(self, start: Iterable[int], end: int) -> tuple[str, bool]:
        """(kind of skip, whether it runs through an addition), the plainest first."""
        start = set(start)
        queue: list[tuple[int, int, bool]] = [(0, end, False)]
        done: set[tuple[int, bool]] = set()
        low = self.birth(start)
        carried = "none"
        while queue:
            level, vertex, added = heapq.heappop(queue)
            if vertex in start:
                if added:
                    return KINDS[level], True
                if level >= KINDS.index("partial"):
                    carried = "partial"
                continue
            if (vertex, added) in done or self.vertices[vertex].birth <= low:
                continue
            done.add((vertex, added))
            node = self.keys[vertex][0]
            sources = [self._number[s] for s in _sources(node, self._input)]
            step, adds = self._step(node_name(node), node, vertex, sources)
            if step is None:
                continue
            for source in sources[:1] if node_name(node) in ("AddmmBackward0", "BaddbmmBackward0") else sources:
                heapq.heappush(queue, (max(level, step), source, added or adds))
        return carried, False

    def inner_skip(self, start: tuple[int, ...], end: tuple[int, ...], sides: frozenset[int]) -> bool:
        """Whether a skip runs somewhere between the states, without reaching from one to the other.

        Looked for between neighbouring single tensors that everything passes through (beside ``sides``).
        """
        low, high = self.birth(start), self.birth(end)
        first, last = bisect_right(self._points, low) - 1, bisect_right(self._points, high)
        before: int | None = None
        for live in self._live[max(first, 0) : last]:
            if live is None or len(live - sides) != 1:
                continue
            (vertex,) = live - sides
            if before is not None and vertex != before and self.skip((before,), vertex) != "none":
                return True
            before = vertex
        return False

    def permutation(self, start: int, end: int) -> bool:
        """Whether ``end`` is ``start`` with its coordinates reordered (or the same tensor)."""
        vertex = end
        while vertex != start:
            node = self.keys[vertex][0]
            sources = [self._number[s] for s in _sources(node, self._input)]
            whole = self.vertices[sources[0]].numel == self.vertices[vertex].numel if len(sources) == 1 else False
            if not whole or node_name(node) not in PERMUTING | {"SliceBackward0", "ExpandBackward0"}:
                return False
            vertex = sources[0]
        return True

    def between(self, start: Iterable[int], end: Iterable[int]) -> Iterator[Any]:
        """Autograd nodes that compute ``end`` from ``start``."""
        start, pending = set(start), [v for v in end if v not in start]
        low, done = self.birth(start), set()
        while pending:
            node = self.keys[pending.pop()][0]
            if node in done or (self._order[node] <= low and len(start) == 1):
                continue
            done.add(node)
            yield node
            pending += [n for n in (self._number[s] for s in _sources(node, self._input)) if n not in start]

    def signature(self, start: Iterable[int], end: Iterable[int]) -> tuple[str, ...]:
        """Sorted names of the operations between two states."""
        return tuple(sorted(node_name(node) for node in self.between(start, end)))

    def parameters_between(self, start: Iterable[int], end: Iterable[int]) -> bool:
        """Whether something that mixes coordinates (a product with weights, attention) lies between."""
        return any(mixes(node_name(node)) for node in self.between(start, end))

    def mixes_state(self, start: int, end: int) -> bool:
        """Whether something that mixes coordinates works on ``start`` itself on the way to ``end``."""
        reached: set[int] = {start}
        mixed: set[int] = set()
        for vertex in range(start + 1, end + 1):
            node = self.keys[vertex][0]
            sources = {self._number[s] for s in _sources(node, self._input)}
            if sources & reached:
                reached.add(vertex)
                if sources & mixed or mixes(node_name(node)):
                    mixed.add(vertex)
        return end in mixed

    def _step(self, name: str, node: Any, vertex: int, sources: list[int]) -> tuple[int | None, bool]:
        """(how far this operation takes a path from a plain identity, whether it is the skip's addition)."""
        identity, activated, scaled, normalised, partial = range(5)
        if name in ADDING or node in self._slice_additions:
            return identity, len(sources) > 1
        if name in PERMUTING:
            return identity, False
        if name in PARTIAL:
            same = len(sources) == 1 and self.vertices[sources[0]].numel == self.vertices[vertex].numel
            return (identity if same else partial), False
        if name in POINTWISE:
            return activated, False
        if name in SCALING:
            return (scaled if len(sources) == 1 else None), False
        if name in NORMALISING:
            return normalised, False
        return None, False

    def _sweep(self) -> tuple[list[float], list[frozenset[int] | None]]:
        births: dict[float, list[int]] = {}
        deaths: dict[float, list[int]] = {}
        for vertex in self.vertices:
            births.setdefault(vertex.birth, []).append(vertex.number)
            deaths.setdefault(vertex.death, []).append(vertex.number)
        points = sorted(set(births) | (set(deaths) - {float("inf")}))
        alive: set[int] = set()
        live: list[frozenset[int] | None] = []
        for point in points:
            alive.update(births.get(point, ()))
            alive.difference_update(deaths.get(point, ()))
            live.append(frozenset(alive) if len(alive) <= LIVE_LIMIT else None)
        return points, live


def _additions_to_views(recording: Recording) -> set[Any]:
    """Nodes by which autograd records ``x += y`` where x is a view: any in-place operation looks like that."""
    found = set()
    for event in recording.ops.values():
        if event.name in ("__iadd__", "__isub__", "add_", "sub_"):
            for leaf in event.outputs:
                node = leaf.node[0] if leaf.node is not None else None
                while node is not None and node_name(node) in PERMUTING | PARTIAL and node_name(node) != "CopySlices":
                    node = node.next_functions[0][0] if node.next_functions else None
                if node is not None and node_name(node) == "CopySlices":
                    found.add(node)
    return found


def _sources(node: Any, stop: NodeKey) -> list[NodeKey]:
    """Input-dependent operands of a node; none for the one that made the model's input."""
    if node is stop[0]:
        return []
    return [(function, number) for function, number in node.next_functions if function is not None]


def _reachable(output: NodeKey | None, stop: NodeKey) -> set[Any]:
    assert output is not None
    found, pending = {output[0]}, [output[0]]
    while pending:
        for function, _ in _sources(pending.pop(), stop):
            if function not in found:
                found.add(function)
                pending.append(function)
    return found | {stop[0]}


def _consistent_order(nodes: set[Any], first: Any) -> dict[Any, float]:
    """Creation order of the nodes.

    Autograd re-creates the node of a view after an in-place write, sometimes later than the node that uses
    it; such a node is moved to just before its first user.
    """
    order = {node: float(node._sequence_nr()) for node in nodes}
    order[first] = min(order.values())
    queue = [(-value, number, node) for number, (node, value) in enumerate(order.items())]
    heapq.heapify(queue)
    count = len(queue)
    while queue:
        value, _, node = heapq.heappop(queue)
        if -value != order[node]:
            continue  # moved since
        for source, _ in _sources(node, (first, 0)):
            if order[source] >= order[node]:
                order[source] = order[node] - 1e-3
                heapq.heappush(queue, (-order[source], count, source))
                count += 1
    return order


def _shape(key: NodeKey) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in key[0]._input_metadata[key[1]].shape)
    except (AttributeError, IndexError, RuntimeError):
        return ()
