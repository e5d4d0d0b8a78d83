"""The gate: conditions against the cells of a run and of its baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit.review.gate.change import TOLERANCE, changed
from stabilitykit.review.gate.condition import Condition, Numbers, Undecidable
from stabilitykit.review.gate.likeness import What, said, unlike
from stabilitykit.review.gate.pairing import Found, Pair, cell_of, constants, pairs
from stabilitykit.review.gate.verdicts import Judgement, Number, Outcome, Verdict
from stabilitykit.runs.folder import Cell, load_run, warnings_by_pair


@dataclass(frozen=True)
class Rule:
    """A condition that fails a build where it holds, and for which models and datasets (patterns as of a shell)."""

    condition: Condition
    model: str = "*"
    dataset: str = "*"

    def concerns(self, pair: Pair) -> bool:
        return fnmatchcase(pair.model, self.model) and fnmatchcase(pair.dataset, self.dataset)


@dataclass(frozen=True)
class Terms:
    """What a gate asks.

    Attributes:
        rules: conditions; none: every constant of the baseline has to be there again, within ``tolerance``.
        tolerance: a share of the baseline's value, for the rule without conditions.
        accepted: what may differ from the baseline: it is said, and no reason to close the gate.
    """

    rules: Sequence[Rule] = ()
    tolerance: float = TOLERANCE
    accepted: frozenset[What] = field(default_factory=frozenset)

    def check(self, baseline: Path | None) -> None:
        """UsageProblem where there is nothing to check, or a condition reads a baseline that is not given."""
        if baseline is None and not self.rules:
            raise UsageProblem("nothing to check: give conditions (--fail-if), a baseline (--baseline RUN), or both")
        for rule in self.rules:
            if rule.condition.baseline and baseline is None:
                raise UsageProblem(f"condition {rule.condition.text!r} reads the baseline: give --baseline RUN")


def judge(run: Path, baseline: Path | None, terms: Terms) -> Judgement:
    """Judge a run folder.

    Raises:
        UsageProblem: nothing to check, a folder that is no run or is damaged, or a constant that no cell could have.
    """
    terms.check(baseline)
    info, cells = load_run(run)
    known, base = load_run(baseline) if baseline is not None else ({}, [])
    for path, members in ((run, cells), *([(baseline, base)] if baseline is not None else [])):
        if not members:
            raise UsageProblem(f"{path} holds no finished cell; finish it with --resume")
    for rule in terms.rules:
        _refuse_unknown(rule.condition, cells, base)
    found = Judgement(run, baseline)
    found.notes += [f"{' on '.join(key)}: {text}" for key, texts in warnings_by_pair(info).items() for text in texts]
    found.notes += [
        f"{c.model} on {c.dataset}: {c.property} failed: {c.error.get('message', 'no reason recorded')}"
        for c in cells
        if not c.ok
    ]
    if known.get("status", "complete") != "complete":
        found.notes.append(f"the baseline is not complete ({known.get('status')})")
    if info.get("status") != "complete":
        reason = f"the run is not complete ({info.get('status')}): finish it with --resume"
        found.verdicts.append(Verdict("the run is complete", "", "", Outcome.UNDECIDED, reason))
    everything = pairs(cells, base)
    for rule in terms.rules:
        concerned = [pair for pair in everything if rule.concerns(pair)]
        if not concerned:
            reason = f"no model and dataset of the run is like {rule.model} on {rule.dataset}"
            found.verdicts.append(Verdict(rule.condition.text, rule.model, rule.dataset, Outcome.UNDECIDED, reason))
        found.verdicts += [_judge(rule.condition, pair, terms) for pair in concerned]
    if not terms.rules:
        found.verdicts += [verdict for pair in everything for verdict in _unchanged(pair, terms)]
    return found


def _refuse_unknown(condition: Condition, cells: Sequence[Cell], base: Sequence[Cell]) -> None:
    """UsageProblem for a name that no cell has, unless the cell that would have it failed."""
    known = constants_of(cells) | constants_of(base)
    for name in (*condition.run, *condition.baseline):
        owner = cell_of(name, cells) or cell_of(name, base)
        failed = owner is not None and any(not c.ok for c in (*cells, *base) if c.property == owner.property)
        if name not in known and not failed:
            where = "see measurements.csv of the run"
            raise UsageProblem(
                f"condition {condition.text!r}: no constant {name!r} in the run{did_you_mean(name, known, where)}"
            )


def constants_of(cells: Sequence[Cell]) -> set[str]:
    """Names of the constants of any (model, dataset)."""
    return {name for pair in pairs(cells, ()) for name in constants(pair.cells)}


def _judge(condition: Condition, pair: Pair, terms: Terms) -> Verdict:
    mine, other = constants(pair.cells), constants(pair.baseline)
    notes = [pair.note] if pair.note else []
    numbers = [
        *(Number(name, "run", mine[name][1]) for name in condition.run if name in mine),
        *(Number(name, "baseline", other[name][1]) for name in condition.baseline if name in other),
    ]
    obstacles = [
        *_missing(condition.run, mine, pair.cells, "the run"),
        *_missing(condition.baseline, other, pair.baseline, "the baseline"),
    ]
    for name in condition.baseline:
        if name in mine and name in other:
            obstacles += _incomparable(name, mine, other, terms, notes)

    def verdict(outcome: Outcome, reason: str = "") -> Verdict:
        return Verdict(condition.text, pair.model, pair.dataset, outcome, reason, numbers, list(dict.fromkeys(notes)))

    if obstacles:
        return verdict(Outcome.UNDECIDED, "; ".join(dict.fromkeys(obstacles)))
    read = [{n.name: float(n.measurement.value or 0.0) for n in numbers if n.of == of} for of in ("run", "baseline")]
    try:
        holds = condition.holds(Numbers(*read))
    except Undecidable as error:
        return verdict(Outcome.UNDECIDED, str(error))
    return verdict(Outcome.FAILED, "the condition holds") if holds else verdict(Outcome.PASSED)


def _missing(names: Sequence[str], found: Found, cells: Sequence[Cell], where: str) -> Iterator[str]:
    """Why constants cannot be read, one sentence each; nothing where all are there."""
    if names and not cells:
        yield f"{where} has no such model and dataset"
        return
    for name in names:
        if name in found:
            value = found[name][1].value
            if value is None:
                why = found[name][1].note
                yield f"{name} is undefined in {where}{f': {why}' if why else ''}"
            continue
        cell = cell_of(name, cells)
        if cell is None:
            yield f"{where} has not measured {name}"
        elif not cell.ok:
            yield f"the cell {cell.property} of {where} failed: {cell.error.get('message', 'no reason recorded')}"
        else:
            yield f"{where} has no {name}{did_you_mean(name, found)}"


def _incomparable(name: str, mine: Found, other: Found, terms: Terms, notes: list[str]) -> list[str]:
    """What forbids the comparison of ``name`` with its baseline; what is accepted or small goes to ``notes``."""
    notes += said(mine[name][0], other[name][0])
    obstacles = []
    for one in unlike(mine[name], other[name]):
        if one.what in terms.accepted:
            notes.append(f"{name}: {one.text} (accepted)")
        else:
            obstacles.append(f"{name} cannot be compared: {one.text} (--accept {one.what} lets it pass)")
    return obstacles


def _unchanged(pair: Pair, terms: Terms) -> Iterator[Verdict]:
    """The rule without conditions: every constant of the baseline, once more."""
    mine, other = constants(pair.cells), constants(pair.baseline)

    def verdict(
        rule: str, outcome: Outcome, reason: str, numbers: Sequence[Number] = (), notes: Sequence[str] = ()
    ) -> Verdict:
        return Verdict(rule, pair.model, pair.dataset, outcome, reason, numbers, list(dict.fromkeys(notes)))

    if not pair.cells or not pair.baseline:
        where = "baseline" if pair.cells else "run"
        yield verdict("has a counterpart", Outcome.UNDECIDED, f"the {where} has no such model and dataset")
        return
    for cell in pair.baseline:
        if not cell.ok:
            reason = f"the cell failed in the baseline: {cell.error.get('message', 'no reason recorded')}"
            yield verdict(f"{cell.property} is measured", Outcome.UNDECIDED, f"{reason}; make a baseline anew")
            continue
        for m in cell.result.measurements if cell.result else ():
            name = f"{cell.property}.{m.name}"
            rule, notes = f"{name} is the baseline's", [pair.note] if pair.note else []
            numbers = [Number(name, "baseline", m)]
            if name not in mine:
                yield verdict(
                    rule, Outcome.UNDECIDED, "; ".join(_missing([name], mine, pair.cells, "the run")), numbers
                )
                continue
            numbers.insert(0, Number(name, "run", mine[name][1]))
            obstacles = _incomparable(name, mine, other, terms, notes)
            if obstacles:
                yield verdict(rule, Outcome.UNDECIDED, "; ".join(dict.fromkeys(obstacles)), numbers, notes)
                continue
            moved, words = changed(mine[name][1], m, terms.tolerance)
            outcome = Outcome.UNDECIDED if moved is None else Outcome.FAILED if moved else Outcome.PASSED
            yield verdict(rule, outcome, words, numbers, notes)
    before = {cell.property for cell in pair.baseline}
    for cell in pair.cells:
        if cell.property not in before and not cell.ok:
            reason = f"the cell failed: {cell.error.get('message', 'no reason recorded')}"
            yield verdict(f"{cell.property} is measured", Outcome.UNDECIDED, reason)
