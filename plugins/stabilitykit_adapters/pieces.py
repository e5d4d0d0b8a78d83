"""A network in pieces, from its first cut to its last.

The blocks with a skip that the search for runs knows (modules and additions written out in a forward) are its anchors,
whatever their sizes. What lies between two anchors is cut where modules end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stabilitykit_adapters.besides import Beside, besides
from stabilitykit_adapters.candidates import Candidate
from stabilitykit_adapters.following import Path
from stabilitykit_adapters.outline import ADDING, CONTAINERS, Outline, State

MOST_ALIVE = 4
"""Tensors of a state where no single tensor will do."""


@dataclass(frozen=True)
class Piece:
    """What lies between two neighbouring cuts.

    Attributes:
        kind: how its skip runs (one of :data:`stabilitykit_adapters.dataflow.KINDS`).
        residual: it is a block whose skip runs through an addition.
        mixes: whether it mixes coordinates.
        whole: it is a block: an anchor, or a module like those that are.
        beside: it is a block, and its state is alive beside something else.
    """

    start: State
    end: State
    kind: str
    residual: bool
    mixes: bool
    whole: bool
    name: str = ""
    beside: bool = False


class Pieces:
    """Cuts of a network and what lies between them.

    Arguments:
        outline: of the recorded network.
    """

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.candidates = outline.candidates
        self.program = outline.program
        self.flow = outline.flow
        self.anchors = {atom.path: atom for atom in self._atoms(()) if outline.reachable(atom.start, atom.end)}
        self.above = {path[:n] for path in self.anchors for n in range(len(path))}
        self.classes = {outline.class_of(path) for path in self.anchors}
        self.stages = {outline.class_of(path) for path in self.above if path} - self.classes

    def between_cuts(self, opened: set[Path], several: bool) -> tuple[list[Piece], list[Path]]:
        """The network from its first to its last cut in pieces, and the calls that were not looked into.

        With ``several``: where calls end, what is alive may be up to four tensors.
        """
        blocks: dict[tuple[State, State], tuple[str, str]] = {
            (atom.start, atom.end): (self.program.name(atom.path), atom.skip) for atom in self.anchors.values()
        }
        units = list(self._units((), opened))
        single = set(self.outline.singles)
        cuts: set[State] = set()
        like: set[tuple[State, State]] = set()
        closed = list(blocks)
        for path in units:
            event = self.program.calls[path]
            starts = {(v,) for v in (leaf.vertex for leaf in event.inputs) if v is not None and v in single}
            ends = {(v,) for v in (leaf.vertex for leaf in event.outputs) if v is not None and v in single}
            cuts |= starts | ends | (self._alive_after(path) if several else set())
            if path not in self.anchors and len(starts) == len(ends) == 1 and self._like_block(path):
                pair = starts.pop(), ends.pop()
                like.add(pair)
                if self.outline.class_of(path) in self.classes:
                    closed.append(pair)
        blocks |= self._written_out(closed)
        along: set[tuple[State, State]] = set()
        for beside in self._besides([*blocks, *closed]):
            both = (beside.start, beside.end)
            like.add(both)
            along.add(both)
            if beside.kind != "none":
                blocks[both] = self.program.name(beside.path), beside.kind
            else:
                closed.append(both)
                cuts |= set(both)
        cuts = {cut for cut in cuts if self.outline.reachable(cut)}
        cuts |= {state for pair in blocks for state in pair}
        inside = [(self.flow.birth(a), self.flow.birth(b)) for a, b in (*blocks, *closed)]
        kept: list[State] = []
        for cut in sorted(cuts, key=lambda state: (self.flow.birth(state), state)):
            birth = self.flow.birth(cut)
            if any(low < birth < high for low, high in inside) or (kept and set(kept[-1]) == set(cut)):
                continue
            if kept and self.flow.birth(kept[-1]) == birth and len(cut) > 1:
                continue  # computed by then, and read no more where a state of fewer tensors says it all
            kept.append(cut)
        pieces = []
        for start, end in itertools.pairwise(kept):
            name, kind = blocks.get((start, end), ("", ""))
            whole = bool(kind) or (start, end) in like
            kind = kind or self.outline.kind(start, end)
            pieces.append(
                Piece(
                    start,
                    end,
                    kind,
                    (start, end) in blocks and self.outline.adds(start, end, kind),
                    self.outline.mixes(start, end),
                    whole,
                    name,
                    (start, end) in along,
                )
            )
        return pieces, units

    def working(self, path: Path) -> Iterator[Path]:
        """Direct children of a call that mix coordinates."""
        return (child for child in self.program.children(path) if self.outline.mixing(child) is not None)

    def work(self, path: Path) -> float:
        """Floating point operations inside a call."""
        event = self.program.calls[path]
        return sum(a for seq, a in self.candidates.flops if event.seq_start <= seq - 1 < event.seq_end)

    def _atoms(self, path: Path) -> list[Candidate]:
        """Closed blocks with a skip at the finest level that still has one in each."""
        below = [atom for child in self.program.children(path) for atom in self._atoms(child)]
        own = self.candidates.by_path.get(path)
        if own is None or not own.closed or own.skip not in (*ADDING, "partial"):
            return below
        if len(below) == 1 and (below[0].start, below[0].end) == (own.start, own.end):
            return below
        same = [atom for atom in below if self.candidates.size(atom.start) == self.candidates.size(own.start)]
        return below if len(same) > 1 else [own]

    def _units(self, path: Path, opened: set[Path]) -> Iterator[Path]:
        """Calls below ``path`` that are not looked into, in order."""
        for child in self.program.children(path):
            if child in self.anchors:
                yield child
            elif child in self.above or child in opened or self._opens(child):
                yield from self._units(child, opened)
            else:
                yield child

    def _opens(self, path: Path) -> bool:
        """Whether a call without anchors is a stage, or a chain of several layers, rather than one block."""
        if self.outline.class_of(path) in self.classes:
            return False
        if self.outline.class_of(path) in self.stages and any(self.working(path)):
            return True
        if not isinstance(self.outline.module(path), CONTAINERS):
            return False
        return self.outline.alone(path) or len(list(itertools.islice(self.working(path), 2))) > 1

    def _besides(self, known: Sequence[tuple[State, State]]) -> list[Beside]:
        """Blocks that are no cuts, outside ``known`` ones, that can be entered and left."""
        inside = [(self.flow.birth(a), self.flow.birth(b)) for a, b in known]
        return [
            block
            for block in besides(self.candidates, self.anchors.keys(), {*ADDING, "partial"}, MOST_ALIVE)
            if not any(low < self.flow.birth(block.end) and self.flow.birth(block.start) < high for low, high in inside)
            and self.outline.reachable(block.start, block.end)
        ]

    def _alive_after(self, path: Path) -> set[State]:
        """All that is alive where a call ends, if it is two to four tensors."""
        live = self.flow.live(self.program.calls[path].seq_end - 0.5)
        return {tuple(sorted(live))} if live is not None and 2 <= len(live) <= MOST_ALIVE else set()

    def _like_block(self, path: Path) -> bool:
        """Whether a call without a skip stands where blocks stand: of their class, or of several layers among them."""
        if self.outline.mixing(path) is None:
            return False
        if self.outline.class_of(path) in self.classes:
            return True
        parent = path[:-1]
        while parent and self.outline.alone(parent):
            parent = parent[:-1]
        among = parent and parent in self.above and isinstance(self.outline.module(parent), CONTAINERS)
        return bool(among) and self.outline.layers(path) > 1

    def _written_out(self, closed: Sequence[tuple[State, State]]) -> dict[tuple[State, State], tuple[str, str]]:
        """Steps x + f(x) between neighbouring single cuts outside ``closed``: states -> (name, kind)."""
        inside = [(self.flow.birth(a), self.flow.birth(b)) for a, b in closed]
        found: dict[tuple[State, State], tuple[str, str]] = {}
        count: dict[str, int] = {}
        for a, b in itertools.pairwise(self.outline.singles):
            first, last = self.flow.vertices[a], self.flow.vertices[b]
            if first.shape != last.shape or any(low < last.birth and first.birth < high for low, high in inside):
                continue
            kind = self.flow.skip((a,), b)
            if kind in ADDING and self.flow.adds((a,), b) and self.outline.reachable((a,), (b,)):
                name = self.outline.owners.get(b, "forward")
                found[((a,), (b,))] = f"{name}+{count.setdefault(name, 0)}", kind
                count[name] += 1
        return found
