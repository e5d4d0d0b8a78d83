"""Which run of a network, and which of its outputs: chosen by name, refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit_adapters.runs import Discovery, Run


def choose_run(found: Discovery, which: str, mode: str | None, owner: str) -> Run:
    """``longest``, ``cheapest`` or the run of that name, among runs of ``mode``.

    Without a mode: closed ones, else open ones, else plain ones.

    Raises:
        CellProblem: there is none of that mode; the message gives every candidate's reason.
        UsageProblem: no run of that name.
    """
    runs = [run for run in found.runs if mode is None or run.mode == mode]
    if not runs:
        others = sorted({run.mode for run in found.runs})
        hint = f" It has {' and '.join(others)} runs: add --mode {others[0]} (or mode={others[0]})." if others else ""
        reasons = "; ".join(map(str, found.reasons)) or "no candidate"
        raise CellProblem(
            f"model {owner} has no {mode or 'closed, open or plain'} run of at least two equal-dimension "
            f"blocks.{hint} Candidates: {reasons}"
        )
    if mode is None and which in ("longest", "cheapest"):
        runs = [run for run in runs if run.mode == runs[0].mode]
    if which == "longest":
        return max(runs, key=lambda run: (run.depth, run.share))
    if which == "cheapest":
        return min(runs, key=lambda run: (run.cost, -run.depth))
    for run in runs:
        if run.name == which:
            return run
    names = [run.name for run in runs]
    raise UsageProblem(
        f"model {owner} has no run {which!r}{did_you_mean(which, names)}; runs: longest, cheapest, {', '.join(names)}"
    )


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
