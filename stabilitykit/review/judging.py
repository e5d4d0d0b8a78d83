"""A run folder against what was measured again: a verdict on every measurement, and on every place that differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stabilitykit.base.results import Measurement
from stabilitykit.review.again import PairAgain, Remeasured
from stabilitykit.review.circumstances import Circumstances, close
from stabilitykit.review.consistency import disagreements, inconsistent
from stabilitykit.review.files import RunFiles, key_of
from stabilitykit.review.judging_decisions import judge_decisions
from stabilitykit.review.judging_run import MOVED, as_recorded, judge_run, was_moved
from stabilitykit.review.leaves import ABSENT, Difference, differences, named
from stabilitykit.review.plan import Plan
from stabilitykit.review.verdicts import Uncovered, Verdict, Verification
from stabilitykit.runs.folder import Cell

# Places of one cell that differ are named one by one up to here.
LISTED = 40


def judged(
    files: RunFiles,
    cells: Mapping[str, Cell],
    plan: Plan,
    pairs: Mapping[tuple[str, str], PairAgain | str],
    circumstances: Circumstances,
    today: Mapping[str, Any],
) -> Verification:
    """The verdicts on a run.

    Arguments:
        cells: of the run, by file name.
        pairs: each pair measured again, or why it could not be built.
        today: the provenance that a run of today would have.
    """
    found = Verification(circumstances)
    for name, cell in cells.items():
        pair = pairs.get((cell.model, cell.dataset), "it was not measured again")
        if not cell.ok:
            found.verdicts.append(Verdict(*key_of(cell), "", "failed cell", message=cell.error.get("message", "")))
            found.uncovered.append(Uncovered(f"cells/{name}", "", "a failed cell is not measured again"))
        elif isinstance(pair, str):
            found.verdicts.append(Verdict(*key_of(cell), "", "fails", message=pair))
        else:
            _Cell(found, files, name, cell, plan, pair).judge()
    found.verdicts += [
        Verdict(*key, place, "fails", message=message) for key, place, message in disagreements(files, cells, plan)
    ]
    judge_decisions(found, files, pairs)
    judge_run(found, files, plan, pairs, today)
    found.uncovered = list(dict.fromkeys(found.uncovered))
    return found


class _Cell:
    """One finished cell against the same cell measured again."""

    def __init__(
        self, found: Verification, files: RunFiles, name: str, cell: Cell, plan: Plan, pair: PairAgain
    ) -> None:
        self.found, self.files, self.file, self.cell, self.pair = found, files, f"cells/{name}", cell, pair
        self.circumstances, self.plan = found.circumstances, plan
        self.stored: Mapping[str, Any] = files.cells[name]
        self.again = pair.cells.get(cell.property, Remeasured())

    def judge(self) -> None:
        assert self.cell.result is not None
        trouble = self.pair.changed.get(self.cell.property, "") or self.again.trouble
        made = self.again.cell
        if trouble or made is None:
            left = trouble or "only witnesses were recomputed"
            self.found.uncovered.append(Uncovered(self.file, "", left))
        result = named(self.stored["result"])
        again = named(made.result.to_json()) if made is not None and made.result is not None and not trouble else None
        for m in self.cell.result.measurements:
            differing: list[Difference] = []
            now: Mapping[str, Any] | None = None
            if again is not None:
                now = again["measurements"].get(m.name)
                if now is not None:
                    differing = self._failing(f"result.measurements.{m.name}", result["measurements"][m.name], now)
            self.found.verdicts.append(self._measurement(m, trouble, now, again is not None, differing))
        self._others(result, again, trouble)

    def _others(self, result: dict[str, Any], again: dict[str, Any] | None, trouble: str) -> None:
        """What is no measurement of the run: tables, images, notes, the record; measurements that it lacks."""
        for place, value in self.again.witnesses.items():
            if isinstance(value, str) and all(place != m.name for m in self.cell.result.measurements):  # type: ignore[union-attr]
                self._fails(place, value)
        if again is None or trouble:
            return
        known = [m.name for m in self.cell.result.measurements]  # type: ignore[union-attr]
        for name in again["measurements"]:
            if name not in known and not self.circumstances.other_code:
                self._fails(name, "the run lacks this measurement")
        rest, now = (
            {key: value for key, value in tree.items() if key not in ("measurements", "order", "tables")}
            for tree in (result, again)
        )
        wrong = self._failing("result", rest, now)
        if known != list(again["measurements"]) and not self.circumstances.other_code:
            wrong.append(Difference("result.measurements", known, list(again["measurements"])))
        tables, fresh = result.get("tables") or {}, again["tables"]
        for name in [*tables, *(name for name in fresh if name not in tables)]:
            wrong += self._table(f"result.tables.{name}", tables.get(name, ABSENT), fresh.get(name, ABSENT))
        assert self.again.cell is not None
        outside = {key: value for key, value in self.stored.items() if key != "result"}
        wrong += self._failing("", outside, self._as_stored(self.again.cell))
        for difference in wrong[:LISTED]:
            numbers = difference.numbers or (None, None)
            path = difference.path.removeprefix("result.")
            self._fails(path, difference.text, *numbers)
        if len(wrong) > LISTED:
            self._fails("", f"{len(wrong) - LISTED} more places differ")

    def _table(self, path: str, stored: Any, now: Any) -> list[Difference]:
        """Differences of a table, row by row: a row may show another image on another machine."""
        rows = [table.get("rows") if isinstance(table, Mapping) else None for table in (stored, now)]
        if not all(isinstance(part, list) for part in rows):
            return self._failing(path, stored, now)
        frame = [{key: value for key, value in table.items() if key != "rows"} for table in (stored, now)]
        wrong = self._failing(path, *frame)
        for number in range(max(map(len, rows))):  # type: ignore[arg-type]
            row, fresh = (part[number] if number < len(part) else ABSENT for part in rows)  # type: ignore[index,arg-type]
            wrong += self._failing(f"{path}.rows[{number}]", row, fresh)
        return wrong

    def _as_stored(self, made: Cell) -> dict[str, Any]:
        """A cell measured today outside its result, with what a move of files or of code explains as in the run."""
        model, dataset, _ = key_of(self.cell)
        data = {**made.to_json(), "schema": self.files.schema, "model": model, "dataset": dataset}
        data["record"] = as_recorded(data["record"], self.cell.record, self.pair.former, model, dataset)
        return {key: value for key, value in data.items() if key not in ("result", "seconds")}

    def _failing(self, path: str, stored: Any, now: Any) -> list[Difference]:
        """The differences below ``path`` that count; the others are noted as uncovered where they have a reason."""
        differing = list(differences(stored, now, path))
        reasons = [self._reason(difference) for difference in differing]
        if self.circumstances.other_machine and any(
            reason is None and _discrete(difference) for difference, reason in zip(differing, reasons, strict=True)
        ):
            # Of two witnesses that are equal within the drift, another machine may find the other one.
            reasons = [
                reason
                if reason is not None
                or (difference.path.endswith((".value", "interval[0]", "interval[1]")) and "measurements" in path)
                else "another witness within the drift between machines"
                for difference, reason in zip(differing, reasons, strict=True)
            ]
        for difference, reason in zip(differing, reasons, strict=True):
            if reason:
                self.found.uncovered.append(Uncovered(self.file, difference.path, reason))
        return [difference for difference, reason in zip(differing, reasons, strict=True) if reason is None]

    def _reason(self, difference: Difference) -> str | None:
        if was_moved(self.plan, self.cell.model, self.cell.dataset, difference.path):
            return MOVED
        return self.circumstances.judge(difference)

    def _measurement(
        self, m: Measurement, trouble: str, now: Mapping[str, Any] | None, measured: bool, differing: list[Difference]
    ) -> Verdict:
        witness = self.again.witnesses.get(m.name)
        made = self.again.cell
        fresh = made.result[m.name].value if made is not None and made.result is not None and now is not None else None
        number = fresh if fresh is not None else None if isinstance(witness, str) else witness
        status, message = "stands", ""
        wrong = trouble or (witness if isinstance(witness, str) else "") or inconsistent(self.pair.dataset, m)
        tolerance = self.circumstances.witness_tolerance(self.again.rounded)
        if wrong:
            status, message = "fails", wrong
        elif m.value is None and number is not None:
            status, message = "fails", "reported as undefined"
        elif isinstance(witness, float) and m.value is not None and not close(witness, m.value, tolerance):
            status, message, number = "fails", "the recomputation gives another value", witness
        elif any(difference.path.endswith(f".{m.name}.value") for difference in differing):
            status, message = "fails", "the recomputation gives another value"
        elif differing:
            status, message = "fails", _several(differing, f"result.measurements.{m.name}.")
        elif m.value is None:
            status, message = "not recomputed", "undefined: " + m.note
        elif measured and now is None:
            status = "not recomputed" if self.circumstances.other_code else "fails"
            message = f"property {self.cell.property} gives no such measurement"
        elif number is None:
            status, message = "not recomputed", "rests on all images"
        return Verdict(*key_of(self.cell), m.name, status, m.value, number, message)

    def _fails(self, place: str, message: str, reported: float | None = None, recomputed: float | None = None) -> None:
        self.found.verdicts.append(Verdict(*key_of(self.cell), place, "fails", reported, recomputed, message))


def _several(differing: list[Difference], prefix: str) -> str:
    texts = [replace(d, path=d.path.removeprefix(prefix)).text for d in differing[:3]]
    return "; ".join(texts) + (f"; {len(differing) - 3} more" if len(differing) > 3 else "")


def _discrete(difference: Difference) -> bool:
    """Is it a name or a whole number, such as an image's index, that differs?"""
    return not (isinstance(difference.reported, float) and isinstance(difference.recomputed, float))
