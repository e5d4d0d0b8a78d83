"""Find the course of a network: a chain of cuts from behind its stem to its classifier, through every stage.

The blocks with a skip that the search for runs knows (modules and additions written out in a forward) are its anchors,
whatever their sizes. What lies between two anchors is cut where modules end, and where nothing mixes coordinates
(activation, normalisation, reordering) it is given to a neighbour.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from stabilitykit.dynamics.model import Step
from stabilitykit_adapters.besides import Beside, aligned, besides
from stabilitykit_adapters.candidates import Candidate, Candidates
from stabilitykit_adapters.following import Path
from stabilitykit_adapters.functional import modules_within, owners_of, single_cuts
from stabilitykit_adapters.nodes import mixes, node_name
from stabilitykit_adapters.program import Unreachable, image_shape_of
from stabilitykit_adapters.runs import Course, CourseStep
from stabilitykit_adapters.segments import point_of

State = tuple[int, ...]
_ADDING = ("identity", "activated", "scaled", "normalised")
"""Kinds of skips that run through an addition (``partial`` ones may)."""
MOST_ALIVE = 4
"""Tensors of a state where no single tensor will do."""
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def find_course(candidates: Candidates) -> Course | str:
    """The course of a recorded network, or the reason why it has none with at least two steps."""
    return _Search(candidates).course()


@dataclass(frozen=True)
class _Piece:
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


class _Search:
    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.program, self.flow = candidates.program, candidates.flow
        self.singles = single_cuts(self.program, self.flow)
        self.owners = owners_of(self.program)
        self.anchors = {atom.path: atom for atom in self._atoms(()) if self._reachable(atom.start, atom.end)}
        self.above = {path[:n] for path in self.anchors for n in range(len(path))}
        self.classes = {self._class(path) for path in self.anchors}
        self.stages = {self._class(path) for path in self.above if path} - self.classes

    def course(self) -> Course | str:
        opened: set[Path] = set()
        several = False
        while True:
            pieces, units = self._pieces(opened, several)
            steps = self._steps(pieces)
            if len(steps) >= 2:
                if self._share(steps) < 0.5 and not several:
                    wide = self._steps(self._pieces(opened, several=True)[0], wide=True)
                    if self._share(wide) > self._share(steps) + 0.25:
                        steps = wide
                return self._finished(steps)
            # A network inside a wrapper, stages that are modules of their own: look into the one that does most.
            closed = [path for path in units if path not in opened and any(self._working(path))]
            if not closed and several:
                return self._reason()
            if not closed:
                several, opened = True, set()
                continue
            opened.add(max(closed, key=self._work))

    # Anchors and units

    def _atoms(self, path: Path) -> list[Candidate]:
        """Closed blocks with a skip at the finest level that still has one in each."""
        below = [atom for child in self.program.children(path) for atom in self._atoms(child)]
        own = self.candidates.by_path.get(path)
        if own is None or not own.closed or own.skip not in (*_ADDING, "partial"):
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
        if self._class(path) in self.classes:
            return False
        if self._class(path) in self.stages and any(self._working(path)):
            return True
        if not isinstance(self._module(path), _CONTAINERS):
            return False
        return self._alone(path) or len(list(itertools.islice(self._working(path), 2))) > 1

    def _alone(self, path: Path) -> bool:
        """Whether a call makes one call only."""
        return (*path, 0) in self.program.calls and (*path, 1) not in self.program.calls

    def _working(self, path: Path) -> Iterator[Path]:
        """Direct children of a call that mix coordinates."""
        return (child for child in self.program.children(path) if self._mixing(child) is not None)

    def _mixing(self, path: Path) -> tuple[list[int], list[int]] | None:
        """(starts, ends) of a call that mixes coordinates, else None."""
        event = self.program.calls[path]
        starts = [v for v in dict.fromkeys(leaf.vertex for leaf in event.inputs) if v is not None]
        ends = [v for v in dict.fromkeys(leaf.vertex for leaf in event.outputs) if v is not None and v not in starts]
        return (starts, ends) if starts and ends and self._mixes(starts, ends) else None

    def _mixes(self, start: Sequence[int], end: Sequence[int]) -> bool:
        """Whether a product with weights or attention lies between; pooling alone is no step."""
        return any(
            mixes(name) and name != "AvgPool2DBackward0" for name in map(node_name, self.flow.between(start, end))
        )

    def _adds(self, start: State, end: State, kind: str) -> bool:
        """Whether the state reaches all of the result through additions: of ``partial`` skips, those that add."""
        fresh = [v for v in end if v not in start]
        return kind in _ADDING or (kind == "partial" and all(self.flow.adds(start, v) for v in fresh))

    def _module(self, path: Path) -> nn.Module:
        return self.candidates.modules[self.program.modules[path]]

    def _class(self, path: Path) -> type:
        return type(self._module(path))

    def _work(self, path: Path) -> float:
        event = self.program.calls[path]
        return sum(a for seq, a in self.candidates.flops if event.seq_start <= seq - 1 < event.seq_end)

    # Cuts and what lies between them

    def _pieces(self, opened: set[Path], several: bool) -> tuple[list[_Piece], list[Path]]:
        """The network from its first to its last cut in pieces, and the calls that were not looked into.

        With ``several``: where calls end, what is alive may be up to four tensors.
        """
        blocks: dict[tuple[State, State], tuple[str, str]] = {
            (atom.start, atom.end): (self.program.name(atom.path), atom.skip) for atom in self.anchors.values()
        }
        units = list(self._units((), opened))
        single = set(self.singles)
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
                if self._class(path) in self.classes:
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
        cuts = {cut for cut in cuts if self._reachable(cut)}
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
            kind = kind or self._kind(start, end)
            pieces.append(
                _Piece(
                    start,
                    end,
                    kind,
                    (start, end) in blocks and self._adds(start, end, kind),
                    self._mixes(start, end),
                    whole,
                    name,
                    (start, end) in along,
                )
            )
        return pieces, units

    def _besides(self, known: Sequence[tuple[State, State]]) -> list[Beside]:
        """Blocks that are no cuts, outside ``known`` ones, that can be entered and left."""
        inside = [(self.flow.birth(a), self.flow.birth(b)) for a, b in known]
        return [
            block
            for block in besides(self.candidates, self.anchors.keys(), {*_ADDING, "partial"}, MOST_ALIVE)
            if not any(low < self.flow.birth(block.end) and self.flow.birth(block.start) < high for low, high in inside)
            and self._reachable(block.start, block.end)
        ]

    def _alive_after(self, path: Path) -> set[State]:
        """All that is alive where a call ends, if it is two to four tensors."""
        live = self.flow.live(self.program.calls[path].seq_end - 0.5)
        return {tuple(sorted(live))} if live is not None and 2 <= len(live) <= MOST_ALIVE else set()

    def _like_block(self, path: Path) -> bool:
        """Whether a call without a skip stands where blocks stand: of their class, or of several layers among them."""
        if self._mixing(path) is None:
            return False
        if self._class(path) in self.classes:
            return True
        parent = path[:-1]
        while parent and self._alone(parent):
            parent = parent[:-1]
        among = parent and parent in self.above and isinstance(self._module(parent), _CONTAINERS)
        return bool(among) and self._layers(path) > 1

    def _layers(self, path: Path) -> int:
        """Calls of modules without children that mix coordinates inside a call."""
        below = [self._layers(child) for child in self.program.children(path)]
        return sum(below) if below else int(self._mixing(path) is not None)

    def _written_out(self, closed: Sequence[tuple[State, State]]) -> dict[tuple[State, State], tuple[str, str]]:
        """Steps x + f(x) between neighbouring single cuts outside ``closed``: states -> (name, kind)."""
        inside = [(self.flow.birth(a), self.flow.birth(b)) for a, b in closed]
        found: dict[tuple[State, State], tuple[str, str]] = {}
        count: dict[str, int] = {}
        for a, b in itertools.pairwise(self.singles):
            first, last = self.flow.vertices[a], self.flow.vertices[b]
            if first.shape != last.shape or any(low < last.birth and first.birth < high for low, high in inside):
                continue
            kind = self.flow.skip((a,), b)
            if kind in _ADDING and self.flow.adds((a,), b) and self._reachable((a,), (b,)):
                name = self.owners.get(b, "forward")
                found[((a,), (b,))] = f"{name}+{count.setdefault(name, 0)}", kind
                count[name] += 1
        return found

    def _reachable(self, *states: State) -> bool:
        """Whether the states keep images apart and can be put in place."""
        try:
            for state in states:
                for vertex in state:
                    image_shape_of(self.program, vertex)
                point_of(self.program, state)
        except Unreachable:
            return False
        return True

    # From pieces to steps

    def _steps(self, pieces: list[_Piece], wide: bool = False) -> list[CourseStep]:
        """From the first block to the last; without blocks, or ``wide``, all but the first layer and the last."""
        whole = [n for n, piece in enumerate(pieces) if piece.whole]
        if whole and not wide:
            pieces = self._with_end(pieces, whole)
        else:
            working = [n for n, piece in enumerate(pieces) if piece.mixes]
            if len(working) < 3:
                return []
            # Without blocks: the first layer is the stem, the last one the classifier.
            pieces = pieces[min(working[1], *whole) if whole else working[1] : working[-1]]
        steps: list[CourseStep] = []
        waiting: State | None = None  # the cut before a step, where a lead comes before it
        for n, piece in enumerate(pieces):
            following = pieces[n + 1] if n + 1 < len(pieces) else None
            if piece.whole or piece.mixes:
                steps.append(self._step(waiting or piece.start, piece))
                waiting = None
            elif waiting is not None or (following is not None and self._leads(steps, piece, following)):
                waiting = waiting or piece.start
            elif steps and self._joins(steps[-1], piece):
                steps[-1] = self._longer(steps[-1], piece)
            else:
                steps.append(self._step(piece.start, piece))
        return steps

    def _with_end(self, pieces: list[_Piece], whole: list[int]) -> list[_Piece]:
        """From the first block to the last; what follows the last as it follows the one before belongs to it."""
        first, last = whole[0], whole[-1]
        end = last + 1
        pattern = pieces[whole[-2] + 1 : last] if len(whole) > 1 else []
        for piece, former in zip(pieces[end:], pattern):
            same = self.flow.signature(piece.start, piece.end) == self.flow.signature(former.start, former.end)
            if piece.mixes or not same or piece.kind not in ("identity", "activated"):
                break
            end += 1
        if pieces[last].beside:
            end = self._joined(pieces, end)
        return pieces[first:end]

    def _joined(self, pieces: list[_Piece], end: int) -> int:
        """Where what is alive beside the last block has become one tensor with it, by a layer if that is not the last.

        Else ``end``.
        """
        later = range(end, len(pieces) + 1)
        single = [n for n in later if len(pieces[n - 1].end) == 1 and any(p.mixes for p in pieces[n:])]
        by_layer = [n for n in single if any(piece.mixes for piece in pieces[end:n])]
        return next(iter((*by_layer, *single)), end)

    def _leads(self, steps: list[CourseStep], piece: _Piece, following: _Piece) -> bool:
        """Whether a piece that mixes nothing is executed before the step that follows it, whatever becomes of that."""
        after_residual = not steps or steps[-1].step == "residual"
        if not after_residual:
            return False
        if self._permutes(piece):
            return True
        same = self._shapes(piece.start) == self._shapes(piece.end)
        if same and steps and self._kind(steps[-1].start, piece.end) in ("identity", "activated", "scaled"):
            return False
        return not following.residual or (same and self._kind(piece.start, following.end) in _ADDING)

    def _joins(self, step: CourseStep, piece: _Piece) -> bool:
        if step.step != "residual":
            return True
        same = self._shapes(piece.start) == self._shapes(piece.end)
        return same and self._kind(step.start, piece.end) in ("identity", "activated", "scaled")

    def _step(self, cut: State, piece: _Piece) -> CourseStep:
        same = self._shapes(cut) == self._shapes(piece.end)
        names = self._modules(cut, piece.end)
        name = piece.name or self._name(names, piece.end)
        if piece.residual:
            return CourseStep(name, piece.kind, piece.start, piece.end, names, step="residual", lead=cut)
        step: Step = "equal" if same else "transition"
        return CourseStep(name, piece.kind if piece.whole and same else "none", cut, piece.end, names, step=step)

    def _longer(self, step: CourseStep, piece: _Piece) -> CourseStep:
        same = self._shapes(step.before) == self._shapes(piece.end)
        names = self._modules(step.before, piece.end)
        if step.step == "residual":
            return replace(step, end=piece.end, kind=self._kind(step.start, piece.end), modules=names)
        return replace(step, end=piece.end, modules=names, step=step.step if same else "transition")

    def _kind(self, start: State, end: State) -> str:
        if len(end) != 1:
            return "none"
        return self.flow.skip(start, end[0])

    def _permutes(self, piece: _Piece) -> bool:
        return len(piece.start) == len(piece.end) == 1 and self.flow.permutation(piece.start[0], piece.end[0])

    def _shapes(self, state: State) -> list[tuple[int, ...]]:
        return [image_shape_of(self.program, vertex) for vertex in state]

    def _modules(self, start: State, end: State) -> tuple[str, ...]:
        """Outermost modules called between two states."""
        low = max(self.program.first_seen[v] for v in start)
        return modules_within(self.program, low, point_of(self.program, end))

    def _name(self, names: Sequence[str], end: State) -> str:
        """What people call a step: the module that does its work, the first and the last of several."""
        paths = {self.program.name(path): path for path in self.program.calls}
        working = [self._inner(paths[name]) for name in names if self._mixing(paths[name]) is not None] or list(names)
        if not working:
            return self.owners.get(end[0], "forward")
        return working[0] if len(working) == 1 else f"{working[0]}..{working[-1]}"

    def _inner(self, path: Path) -> str:
        """Name of a call; of the only call inside it where it is a container of one."""
        while isinstance(self._module(path), _CONTAINERS) and self._alone(path):
            path = (*path, 0)
        return self.program.name(path)

    # The course

    def _finished(self, steps: list[CourseStep]) -> Course:
        steps = aligned(_unique(steps), self._shapes)
        cuts = [steps[0].before, *(step.end for step in steps)]
        births = [self.flow.birth(cut) for cut in cuts]
        work = [self._between(a, b) for a, b in itertools.pairwise(births)]
        leads = [self._between(self.flow.birth(s.before), self.flow.birth(s.start)) for s in steps]
        tail = self._between(births[-1], float("inf"))
        executed = [lead if s.step == "residual" else all_ for s, lead, all_ in zip(steps, leads, work)]
        readouts = [sum(executed[t:]) + tail for t, s in enumerate(steps) if s.step == "residual"]
        return Course(
            "whole",
            "whole",
            tuple(steps),
            (),
            tuple(self._shapes(cuts[-1])),
            tail=tail,
            share=sum(work),
            cuts=tuple(cuts),
            shapes=tuple(tuple(self._shapes(cut)) for cut in cuts),
            readouts=tuple(readouts),
        )

    def _share(self, steps: list[CourseStep]) -> float:
        """Share of a forward pass spent from the first state to the last."""
        return self._between(self.flow.birth(steps[0].before), self.flow.birth(steps[-1].end)) if steps else 0.0

    def _between(self, low: float, high: float) -> float:
        """Share of a forward pass spent between two moments."""
        return sum(a for seq, a in self.candidates.flops if low < seq - 1 <= high) / self.candidates.total

    def _reason(self) -> str:
        if not self.singles:
            return "there is no tensor that everything passes through, to cut the network at"
        return f"between its stem and its classifier everything is one module ({len(self.singles)} cuts)"


def _unique(steps: list[CourseStep]) -> list[CourseStep]:
    """The steps with names that occur once: a block called repeatedly is numbered."""
    counts: dict[str, int] = {}
    for step in steps:
        counts[step.name] = counts.get(step.name, 0) + 1
    turn: dict[str, int] = {}
    named = []
    for step in steps:
        if counts[step.name] == 1:
            named.append(step)
            continue
        number = turn[step.name] = turn.get(step.name, -1) + 1
        named.append(replace(step, name=f"{step.name}#{number}"))
    return named
