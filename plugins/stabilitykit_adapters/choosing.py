"""The course of a network or which of its runs, and which of its outputs: chosen by name, refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit_adapters.runs import Course, Discovery, Run


def choose_run(found: Discovery, which: str, mode: str | None, owner: str) -> Run:
    """The course of the network, or one of its runs of equal dimension.

    Arguments:
        which: ``auto``: the longest closed run where it is the network, else the course (where there is none, or with
            ``mode``: the longest run); ``whole``: the course; ``longest``, ``cheapest`` or the name of a run.
        mode: of the run; None: closed ones, else open ones, else plain ones.

    Raises:
        CellProblem: there is none of that mode, or no course; the message gives the reasons.
        UsageProblem: no run of that name.
    """
    if which == "whole" and mode is not None:
        raise UsageProblem(f"model {owner}: mode={mode} says which runs of equal dimension, run=whole is none of them")
    if which == "whole" or (which == "auto" and mode is None):
        course = found.course
        if isinstance(course, Course):
            return _the_network(found, course) if which == "auto" else course
        if which == "whole" or not found.runs:
            raise CellProblem(f"model {owner} has no course through the whole network: {course}.{_runs(found)}")
    return _run(found, "longest" if which == "auto" else which, mode, owner)


def _the_network(found: Discovery, course: Course) -> Run:
    """The longest closed run, if it is the network; else the course."""
    closed = found.of_mode("closed")
    longest = _longest(closed) if closed else None
    return longest if longest is not None and course.is_all_of(longest, found.program.births) else course


def _longest(runs: Sequence[Run]) -> Run:
    return max(runs, key=lambda run: (run.depth, run.share))


def _run(found: Discovery, which: str, mode: str | None, owner: str) -> Run:
    runs = [run for run in found.runs if mode is None or run.mode == mode]
    if not runs:
        others = sorted({run.mode for run in found.runs})
        hint = f" It has {' and '.join(others)} runs: add --mode {others[0]} (or mode={others[0]})." if others else ""
        whole = (
            " Its course through all blocks: --run whole." if isinstance(found.course, Course) and not others else ""
        )
        raise CellProblem(
            f"model {owner} has no {mode or 'closed, open or plain'} run of at least two equal-dimension "
            f"blocks.{hint}{whole} Candidates: {_reasons(found)}"
        )
    if mode is None and which in ("longest", "cheapest"):
        runs = [run for run in runs if run.mode == runs[0].mode]
    if which == "longest":
        return _longest(runs)
    if which == "cheapest":
        return min(runs, key=lambda run: (run.cost, -run.depth))
    for run in runs:
        if run.name == which:
            return run
    names = ["auto", "whole", "longest", "cheapest", *(run.name for run in runs)]
    raise UsageProblem(f"model {owner} has no run {which!r}{did_you_mean(which, names)}; runs: {', '.join(names)}")


def _reasons(found: Discovery) -> str:
    return "; ".join(map(str, found.reasons)) or "no candidate"


def _runs(found: Discovery) -> str:
    if not found.runs:
        return f" Nor has it a run of at least two equal-dimension blocks: {_reasons(found)}"
    return f" It has runs of equal dimension: --run {', '.join(run.name for run in found.runs[:5])} (or --run longest)."


def output_columns(classes: Sequence[int] | None, found: Discovery, owner: str) -> tuple[int, ...] | None:
    """The network's outputs that stand for the dataset's classes, checked; None: all of them."""
    if classes is None:
        return None
    count = found.program.num_outputs
    bad = [c for c in classes if not 0 <= c < count]
    if bad or len(set(classes)) < len(classes) or len(classes) < 2:
        raise UsageProblem(
            f"{owner}: classes lists at least two different outputs of 0..{count - 1}, one per class of "
            f"the dataset in its order; got {list(classes)}"
        )
    return tuple(classes)
