"""Blocks beside which something else is alive: their states, with all of it, are cuts of several tensors.

A block inside one half of a split (CSPNet), beside a query for all of its stage (GCViT), or of a tree that hands what
it computed on to its root (DLA) has a state that is no cut of the network. That state together with what is alive
beside it is one. Where what is alive is the same before and after, leaving the block out leaves it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace

from stabilitykit_adapters.candidates import Candidate, Candidates
from stabilitykit_adapters.following import Path
from stabilitykit_adapters.runs import CourseStep

State = tuple[int, ...]


@dataclass(frozen=True)
class Beside:
    """A block and all that is alive around it.

    Attributes:
        path: of its call; ``start``, ``end``: all that is alive before and after, sorted.
        kind: how its skip runs; "none" where what is alive beside it changes: then it is executed, whatever it adds.
    """

    path: Path
    start: State
    end: State
    kind: str


def besides(candidates: Candidates, known: Set[Path], kinds: Set[str], most: int) -> list[Beside]:
    """Blocks with a skip that are no cuts, at the finest level that still has one in each; [] of a single one.

    Arguments:
        known: calls that are blocks already: nothing inside them counts.
        kinds: how a skip may run.
        most: tensors of a state.
    """
    found = [b for atom in _atoms(candidates, (), known, kinds) if (b := _beside(candidates, atom, most)) is not None]
    return found if len(found) > 1 else []


def _atoms(candidates: Candidates, path: Path, known: Set[Path], kinds: Set[str]) -> Iterator[Candidate]:
    if path in known:
        return
    below = [atom for child in candidates.program.children(path) for atom in _atoms(candidates, child, known, kinds)]
    own = candidates.by_path.get(path)
    if own is not None and not own.closed and own.around is not None and own.skip in kinds:
        size = candidates.size(own.start)
        if len([atom for atom in below if candidates.size(atom.start) == size]) < 2:
            below = [own]
    yield from below


def _beside(candidates: Candidates, atom: Candidate, most: int) -> Beside | None:
    event, flow = candidates.program.calls[atom.path], candidates.flow
    before, after = flow.live(event.seq_start - 0.5), flow.live(event.seq_end - 0.5)
    if not before or not after or max(len(before), len(after)) > most or flow.birth(before) >= flow.birth(after):
        return None
    adds = all(flow.adds(atom.start, vertex) for vertex in atom.end)
    steady = len(atom.start) == 1 and before - set(atom.start) == after - set(atom.end)
    kind = atom.skip if adds and steady else "none"
    return Beside(atom.path, tuple(sorted(before)), tuple(sorted(after)), kind)


def aligned(steps: list[CourseStep], shapes: Callable[[State], list[tuple[int, ...]]]) -> list[CourseStep]:
    """The steps with states of several tensors in an order that a residual step keeps.

    What it computes stands where what it consumes stood; a step after which the shapes do not agree is executed.
    """
    found: list[CourseStep] = []
    for step in steps:
        before, start, end = step.before, step.start, step.end
        if found and set(before) == set(found[-1].end):
            before = found[-1].end
        if set(start) == set(before):
            start = before
        gone, new = [v for v in start if v not in end], [v for v in end if v not in start]
        if step.step == "residual" and len(gone) == len(new) == 1:
            end = tuple(new[0] if v == gone[0] else v for v in start)
        kept = replace(step, start=start, end=end, lead=before if step.lead else ())
        if kept.step == "residual" and shapes(start) != shapes(end):
            kept = replace(kept, step="transition", kind="none", start=before, lead=())
        found.append(kept)
    return found
