"""A gate's verdicts for others: JUnit XML for build servers, Markdown for pull requests."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from stabilitykit.base.text import one_line
from stabilitykit.reporting.terminal import format_value, witness_text
from stabilitykit.review.gate.verdicts import Judgement, Number, Outcome, Verdict

# What XML 1.0 cannot hold, even as a reference.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKS = {Outcome.PASSED: "pass", Outcome.FAILED: "**FAIL**", Outcome.UNDECIDED: "**undecided**"}
# A table of more rows is no summary; those that passed are counted then.
MOST_ROWS = 60


def number_text(number: Number) -> str:
    """``NAME 0.0123 (exact on the sample, N 500; images 3 ~ 8, at block 4)``."""
    m = number.measurement
    witness = witness_text(m.witness)
    unit = f" {m.unit}" if m.unit else ""
    whose = "baseline " if number.of == "baseline" else ""
    return f"{whose}{number.name} {format_value(m.value)}{unit} ({m.kind}, N {m.n}{f'; {witness}' if witness else ''})"


def junit(judgement: Judgement) -> bytes:
    """JUnit XML: one suite per (model, dataset), one case per condition.

    A condition that holds is a ``failure``; one that cannot be decided is an ``error``. Values, kinds, N and witnesses
    stand in ``system-out``.
    """
    suites = ET.Element("testsuites", {"name": "stabilitykit gate", **_counts(judgement.verdicts)})
    groups: dict[str, list[Verdict]] = {}
    for verdict in judgement.verdicts:
        groups.setdefault(_xml(verdict.where), []).append(verdict)
    for where, verdicts in groups.items():
        suite = ET.SubElement(suites, "testsuite", {"name": where, **_counts(verdicts)})
        for verdict in verdicts:
            case = ET.SubElement(suite, "testcase", classname=where, name=_xml(verdict.rule), time="0")
            tag = {Outcome.FAILED: "failure", Outcome.UNDECIDED: "error"}.get(verdict.outcome)
            if tag:
                # What the attribute says stands in the text, too: some servers show only one of them.
                problem = ET.SubElement(case, tag, message=_xml(verdict.reason), type=str(verdict.outcome))
                problem.text = _xml(verdict.reason)
            lines = [*map(number_text, verdict.numbers), *verdict.notes]
            if lines:
                ET.SubElement(case, "system-out").text = "\n".join(map(_xml, lines))
    if judgement.notes:
        # The schema in use lets notes stand in a suite only.
        suite = ET.SubElement(suites, "testsuite", {"name": "notes", **_counts(())})
        ET.SubElement(suite, "system-out").text = "\n".join(map(_xml, judgement.notes))
    ET.indent(suites, " ")
    body: bytes = ET.tostring(suites, encoding="utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + body + b"\n"


def _counts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    outcomes = [verdict.outcome for verdict in verdicts]
    return {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count(Outcome.FAILED)),
        "errors": str(outcomes.count(Outcome.UNDECIDED)),
        "skipped": "0",
        "time": "0",
    }


def _xml(text: str) -> str:
    return _NO_XML.sub("?", one_line(text))


def markdown(judgement: Judgement) -> str:
    """A summary for a pull request: the outcome, a table of conditions, and what has to be said of the comparison."""
    against = f" against `{_code(judgement.baseline.name)}`" if judgement.baseline else ""
    lines = [f"### stabilitykit {judgement.summary}", "", f"`{_code(judgement.run.name)}`{against}", ""]
    order = {Outcome.FAILED: 0, Outcome.UNDECIDED: 1, Outcome.PASSED: 2}
    verdicts = sorted(judgement.verdicts, key=lambda verdict: order[verdict.outcome])
    lines += ["| | condition (fails where it holds) | on | numbers | why |", "|---|---|---|---|---|"]
    for verdict in verdicts[:MOST_ROWS]:
        numbers = "<br>".join(_cell(number_text(number)) for number in verdict.numbers)
        why = "<br>".join(map(_cell, filter(None, [verdict.reason, *verdict.notes])))
        lines.append(
            f"| {_MARKS[verdict.outcome]} | {_cell(verdict.rule)} | {_cell(verdict.where)} | {numbers} | {why} |"
        )
    left = verdicts[MOST_ROWS:]
    if left:
        counts = ", ".join(f"{sum(v.outcome is o for v in left)} {o}" for o in Outcome)
        lines += ["", f"{len(left)} more: {counts}."]
    if judgement.notes:
        lines += ["", *(f"- {_cell(note)}" for note in judgement.notes)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text that stays text in a cell of a table: no markup, no link, no mention, no end of the cell."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!@])", lambda found: f"&#{ord(found[0])};", plain)


def _code(text: str) -> str:
    return one_line(text).replace("`", "'")
