"""From the pieces of a network to the steps of its course.

A piece in which nothing mixes coordinates (activation, normalisation, reordering) is given to a neighbour.
"""

from __future__ import annotations

from dataclasses import replace

from stabilitykit.dynamics.model import Step
from stabilitykit_adapters.outline import ADDING, Outline, State
from stabilitykit_adapters.pieces import Piece
from stabilitykit_adapters.runs import CourseStep


class Steps:
    """How pieces become steps.

    Arguments:
        outline: of the recorded network.
    """

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.flow = outline.flow

    def of(self, pieces: list[Piece], wide: bool = False) -> list[CourseStep]:
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

    def _with_end(self, pieces: list[Piece], whole: list[int]) -> list[Piece]:
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

    def _joined(self, pieces: list[Piece], end: int) -> int:
        """Where what is alive beside the last block has become one tensor with it, by a layer if that is not the last.

        Else ``end``.
        """
        later = range(end, len(pieces) + 1)
        single = [n for n in later if len(pieces[n - 1].end) == 1 and any(p.mixes for p in pieces[n:])]
        by_layer = [n for n in single if any(piece.mixes for piece in pieces[end:n])]
        return next(iter((*by_layer, *single)), end)

    def _leads(self, steps: list[CourseStep], piece: Piece, following: Piece) -> bool:
        """Whether a piece that mixes nothing is executed before the step that follows it, whatever becomes of that."""
        after_residual = not steps or steps[-1].step == "residual"
        if not after_residual:
            return False
        if self.outline.permutes(piece.start, piece.end):
            return True
        same = self.outline.shapes(piece.start) == self.outline.shapes(piece.end)
        if same and steps and self.outline.kind(steps[-1].start, piece.end) in ("identity", "activated", "scaled"):
            return False
        return not following.residual or (same and self.outline.kind(piece.start, following.end) in ADDING)

    def _joins(self, step: CourseStep, piece: Piece) -> bool:
        if step.step != "residual":
            return True
        same = self.outline.shapes(piece.start) == self.outline.shapes(piece.end)
        return same and self.outline.kind(step.start, piece.end) in ("identity", "activated", "scaled")

    def _step(self, cut: State, piece: Piece) -> CourseStep:
        same = self.outline.shapes(cut) == self.outline.shapes(piece.end)
        names = self.outline.modules_between(cut, piece.end)
        name = piece.name or self.outline.step_name(names, piece.end)
        if piece.residual:
            return CourseStep(name, piece.kind, piece.start, piece.end, names, step="residual", lead=cut)
        step: Step = "equal" if same else "transition"
        return CourseStep(name, piece.kind if piece.whole and same else "none", cut, piece.end, names, step=step)

    def _longer(self, step: CourseStep, piece: Piece) -> CourseStep:
        same = self.outline.shapes(step.before) == self.outline.shapes(piece.end)
        names = self.outline.modules_between(step.before, piece.end)
        if step.step == "residual":
            return replace(step, end=piece.end, kind=self.outline.kind(step.start, piece.end), modules=names)
        return replace(step, end=piece.end, modules=names, step=step.step if same else "transition")


def unique(steps: list[CourseStep]) -> list[CourseStep]:
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
