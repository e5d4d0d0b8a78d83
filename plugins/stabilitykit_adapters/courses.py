"""Find the course of a network: a chain of cuts from behind its stem to its classifier, through every stage.

The network is taken apart in :mod:`stabilitykit_adapters.pieces`, the pieces become steps in
:mod:`stabilitykit_adapters.course_steps`; here it is decided how far to look into modules.
"""

from __future__ import annotations

import itertools

from stabilitykit_adapters.besides import aligned
from stabilitykit_adapters.candidates import Candidates
from stabilitykit_adapters.course_steps import Steps, unique
from stabilitykit_adapters.following import Path
from stabilitykit_adapters.outline import Outline
from stabilitykit_adapters.pieces import Pieces
from stabilitykit_adapters.runs import Course, CourseStep


def find_course(candidates: Candidates) -> Course | str:
    """The course of a recorded network, or the reason why it has none with at least two steps."""
    return _Search(candidates).course()


class _Search:
    def __init__(self, candidates: Candidates) -> None:
        self.outline = Outline(candidates)
        self.flow = self.outline.flow
        self.pieces = Pieces(self.outline)
        self.steps = Steps(self.outline)

    def course(self) -> Course | str:
        opened: set[Path] = set()
        several = False
        while True:
            pieces, units = self.pieces.between_cuts(opened, several)
            steps = self.steps.of(pieces)
            if len(steps) >= 2:
                if self._share(steps) < 0.5 and not several:
                    wide = self.steps.of(self.pieces.between_cuts(opened, several=True)[0], wide=True)
                    if self._share(wide) > self._share(steps) + 0.25:
                        steps = wide
                return self._finished(steps)
            # A network inside a wrapper, stages that are modules of their own: look into the one that does most.
            closed = [path for path in units if path not in opened and any(self.pieces.working(path))]
            if not closed and several:
                return self._reason()
            if not closed:
                several, opened = True, set()
                continue
            opened.add(max(closed, key=self.pieces.work))

    def _finished(self, steps: list[CourseStep]) -> Course:
        steps = aligned(unique(steps), self.outline.shapes)
        cuts = [steps[0].before, *(step.end for step in steps)]
        births = [self.flow.birth(cut) for cut in cuts]
        work = [self.outline.work_between(a, b) for a, b in itertools.pairwise(births)]
        leads = [self.outline.work_between(self.flow.birth(s.before), self.flow.birth(s.start)) for s in steps]
        tail = self.outline.work_between(births[-1], float("inf"))
        executed = [lead if s.step == "residual" else all_ for s, lead, all_ in zip(steps, leads, work)]
        readouts = [sum(executed[t:]) + tail for t, s in enumerate(steps) if s.step == "residual"]
        return Course(
            "whole",
            "whole",
            tuple(steps),
            (),
            tuple(self.outline.shapes(cuts[-1])),
            tail=tail,
            share=sum(work),
            cuts=tuple(cuts),
            shapes=tuple(tuple(self.outline.shapes(cut)) for cut in cuts),
            readouts=tuple(readouts),
        )

    def _share(self, steps: list[CourseStep]) -> float:
        """Share of a forward pass spent from the first state to the last."""
        return (
            self.outline.work_between(self.flow.birth(steps[0].before), self.flow.birth(steps[-1].end))
            if steps
            else 0.0
        )

    def _reason(self) -> str:
        if not self.outline.singles:
            return "there is no tensor that everything passes through, to cut the network at"
        return f"between its stem and its classifier everything is one module ({len(self.outline.singles)} cuts)"
