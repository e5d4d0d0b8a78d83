"""Find runs of equal-dimension blocks in any network, from one recorded forward pass and no family knowledge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from stabilitykit_adapters.candidates import Candidate, Candidates
from stabilitykit_adapters.courses import find_course
from stabilitykit_adapters.following import Path
from stabilitykit_adapters.functional import functional_blocks, open_functional_blocks
from stabilitykit_adapters.program import Unreachable, image_shape_of, trace
from stabilitykit_adapters.reasons import explain
from stabilitykit_adapters.runs import MODES, Block, Discovery, Mode, Reason, Run
from stabilitykit_adapters.segments import point_of, sides_at
from stabilitykit_adapters.tracing import Wanted


def discover(module: nn.Module, input_shape: tuple[int, ...], wanted: Wanted | None = None) -> Discovery:
    """All runs of at least two equal-dimension blocks in ``module``.

    Arguments:
        module: any module taking one tensor (B, *input_shape) to logits; weights may be on the meta device, are
            not read and left as they are.
        input_shape: (C, H, W), or whatever one input looks like.
        wanted: which of several outputs holds the logits.

    Returns:
        a :class:`Discovery`: runs by falling depth, closed before open before plain, and for every other candidate the
        reason why it is none.

    Raises:
        TraceProblem: the forward pass cannot be recorded.
        OutputProblem: no logits among the outputs, or several tensors that might be.
    """
    program, flow, recording = trace(module, input_shape, wanted)
    candidates = Candidates(module, program, flow, recording)
    search = _Search(candidates)
    runs = search.runs()
    notes = [f"recorded on {program.device}: the meta device failed ({program.fallback})"] if program.fallback else []
    return Discovery(
        runs, explain(candidates, runs, search.lost), program, find_course(candidates), candidates.total, notes
    )


class _Search:
    """Joins candidates to chains of blocks, and chains to runs; ``lost``: reasons for chains that are none."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.program, self.flow = candidates.program, candidates.flow
        self.lost: list[Reason] = []

    def runs(self) -> list[Run]:
        found: list[Run] = []
        for mode in MODES:
            for history in (False, True) if mode == "open" else (False,):
                fresh: list[Run] = []
                atoms = sorted(self._atoms((), mode, history), key=lambda c: self.program.calls[c.path].start)
                for blocks, sides in self._chains(atoms, mode, history):
                    fresh += self._finish(blocks, mode, sides)
                found += self._new(fresh, found)
            covered = [(self.flow.birth(r.blocks[0].start), self.flow.birth(r.blocks[-1].end)) for r in found]
            if mode == "open":
                fresh = [
                    run
                    for blocks, sides in open_functional_blocks(self.program, self.flow, covered)
                    for run in self._finish(blocks, mode, tuple(sorted(sides)))
                ]
                for run in sorted(fresh, key=lambda r: -r.depth):
                    found += self._new([run], found)
            else:
                fresh = [
                    run
                    for blocks in functional_blocks(self.program, self.flow, covered, plain=mode == "plain")
                    for run in self._finish(blocks, mode, ())
                ]
                found += self._new(fresh, found)
        found.sort(key=lambda r: (MODES.index(r.mode), -r.depth, -r.share))
        return _named(found)

    # From candidates to blocks

    def _atoms(self, path: Path, mode: Mode, history: bool) -> list[Candidate]:
        """Blocks at the finest level that still has a skip in each (plain: at the coarsest below a container)."""
        below = [atom for child in self.program.children(path) for atom in self._atoms(child, mode, history)]
        own = self.candidates.by_path.get(path)
        if own is None or not _eligible(own, mode, history):
            return below
        if mode == "plain":
            container = isinstance(self.candidates.modules[self.program.modules[path]], (nn.Sequential, nn.ModuleList))
            return below if container and len(below) > 1 else [own]
        size = self.candidates.size(own.start)
        same = [
            atom for atom in below if self.candidates.size(atom.start) == size and (history or atom.sides == own.sides)
        ]
        return below if len(same) > 1 else [own]

    def _chains(
        self, atoms: Sequence[Candidate], mode: Mode, history: bool
    ) -> Iterable[tuple[list[Block], tuple[int, ...]]]:
        """Maximal chains of blocks whose states have equal dimension (and, if open, one side state).

        With ``history`` the side state may grow by what the run itself computes: all of it is held constant.
        """
        chain: list[Block] = []
        sides: frozenset[int] = frozenset()
        for atom in atoms:
            assert atom.around is not None
            block = Block(
                self.program.name(atom.path),
                atom.skip,
                atom.start,
                atom.end,
                (self.program.name(atom.path),),
                atom.ticks,
            )
            joins = bool(chain) and (history or atom.around == sides)
            linked = self._link(chain[-1], block, mode) if joins else None
            if linked is None:
                if chain:
                    yield chain, tuple(sorted(sides))
                chain, sides = [block], atom.around
            else:
                chain.append(linked)
                sides |= atom.around
        if chain:
            yield chain, tuple(sorted(sides))

    def _link(self, last: Block, block: Block, mode: Mode) -> Block | None:
        """``block`` as the successor of ``last``, with what lies between them taken in; None if they do not join."""
        if last.end == block.start:
            return block
        if (
            self.candidates.size(last.end) != self.candidates.size(block.start)
            or len(last.end) > 1
            or len(block.start) > 1
        ):
            return None
        if self.program.births.get(block.start[0], -1) <= self.program.births.get(last.end[0], -1):
            return None
        if self.flow.permutation(last.end[0], block.start[0]):
            return block
        if mode == "open" or self.flow.vertices[last.end[0]].shape != self.flow.vertices[block.start[0]].shape:
            return None
        if self.flow.parameters_between(last.end, block.start):
            return None
        skip = self.candidates.skip(last.end, block.end, frozenset())
        if skip == "none" and mode != "plain":
            return None
        return replace(block, start=last.end, kind=skip, ticks=(last.ticks[1], block.ticks[1]))

    # From chains to runs

    def _finish(self, blocks: list[Block], mode: Mode, sides: tuple[int, ...]) -> list[Run]:
        """The run of a chain, if it is long enough, of the mode, and can be executed."""
        if mode == "open" and not sides:
            return []
        if mode == "plain" and all(block.kind != "none" for block in blocks):
            return []
        if len(blocks) < 2:
            return []
        shapes: list[tuple[int, ...]] = []
        try:
            for vertex in (*blocks[-1].end, *sides):
                shapes.append(image_shape_of(self.program, vertex))
            for block in blocks:
                for vertex in (*block.start, *block.end):
                    image_shape_of(self.program, vertex)
                for state, tick in ((block.start, block.ticks[0]), (block.end, block.ticks[1])):
                    point_of(self.program, (*state, *sides_at(self.program, sides, state, tick)), tick)
        except Unreachable as problem:
            code = "batch layout" if "images" in str(problem) else "out of reach"
            self.lost.append(Reason(code, f"{len(blocks)} blocks from {blocks[0].name}", str(problem)))
            return []
        parts = len(blocks[-1].end)
        first, last = self.flow.birth(blocks[0].start), self.flow.birth(blocks[-1].end)
        tail = sum(amount for seq, amount in self.candidates.flops if seq - 1 > last) / self.candidates.total
        share = sum(amount for seq, amount in self.candidates.flops if first < seq - 1 <= last) / self.candidates.total
        history = any(self.program.births[v] > first for v in sides)
        return [
            Run(
                _common([b.name for b in blocks]),
                mode,
                tuple(blocks),
                sides,
                tuple(shapes[:parts]),
                tuple(shapes[parts:]),
                tail,
                share,
                history,
            )
        ]

    def _new(self, runs: Iterable[Run], known: Sequence[Run]) -> list[Run]:
        """Runs that are not part of one already known."""
        taken = [(self.flow.birth(r.blocks[0].start), self.flow.birth(r.blocks[-1].end)) for r in known]
        fresh = []
        for run in runs:
            low, high = self.flow.birth(run.blocks[0].start), self.flow.birth(run.blocks[-1].end)
            if not any(a <= low and high <= b for a, b in taken):
                fresh.append(run)
        return fresh


def _eligible(candidate: Candidate, mode: Mode, history: bool) -> bool:
    if mode == "plain":
        return candidate.closed
    if candidate.skip == "none":
        return False
    if mode == "closed":
        return candidate.closed
    if history:
        return candidate.around is not None
    return bool(candidate.sides)


def _common(names: Sequence[str]) -> str:
    """Longest common dotted prefix of block names; ``first..last`` when they have none."""
    parts = [name.split(".") for name in names]
    prefix = []
    for pieces in zip(*parts):
        if len(set(pieces)) > 1:
            break
        prefix.append(pieces[0])
    if prefix and ".".join(prefix) not in names:
        return ".".join(prefix)
    return names[0] if len(set(names)) == 1 else f"{names[0]}..{names[-1]}"


def _named(runs: list[Run]) -> list[Run]:
    """The runs with unique names: repeated ones carry the first block's name."""
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.name] = counts.get(run.name, 0) + 1
    named, used = [], set()
    for run in runs:
        name = run.name if counts[run.name] == 1 else f"{run.blocks[0].name}..{run.blocks[-1].name}"
        while name in used:
            name += "'"
        used.add(name)
        named.append(replace(run, name=name))
    return named
