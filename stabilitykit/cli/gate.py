"""``stabilitykit gate RUN``: conditions under which a build fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stabilitykit.base.errors import UsageProblem

if TYPE_CHECKING:
    from stabilitykit.review.gate.verdicts import Judgement

SUMMARY = "GITHUB_STEP_SUMMARY"


@click.command("gate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-b", "--baseline", type=click.Path(path_type=Path), help="Run folder to compare with.")
@click.option(
    "-f",
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Fails the build where it holds, for every model and dataset; repeat for several.",
)
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    help="TOML or YAML file with fail-if, baseline, tolerance and accept; conditions are added to those typed, of the "
    "rest the command line wins.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    help="Without conditions: by which share of the baseline's value a constant may move. [default: 0.05]",
)
@click.option(
    "--accept",
    multiple=True,
    type=click.Choice(["kind", "n", "images", "settings"]),
    help="What may differ from the baseline: it is said, and closes the gate no more.",
)
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML: holds = failure, undecided = error.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write a summary for pull requests.")
@click.option("--step-summary", is_flag=True, help=f"Add the summary to the file that ${SUMMARY} names.")
@click.option("--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(
    run: Path,
    baseline: Path | None,
    conditions: tuple[str, ...],
    config: Path | None,
    tolerance: float | None,
    accept: tuple[str, ...],
    junit: Path | None,
    markdown: Path | None,
    step_summary: bool,
    output_format: str,
) -> int:
    """Fail a build (exit 4) when a finished RUN is not what it should be.

    A CONDITION compares constants, PROPERTY.NAME as in measurements.csv, with numbers or with `baseline`, the
    baseline's value of the constant in the same comparison; baseline(NAME) names another one. It may use + - * /,
    < <= > >= == !=, and, or, not, abs, min, max and parentheses; names with other characters stand in quotes.

    What cannot be decided closes the gate, too: a cell that failed or is missing, an undefined value, a division by
    zero, and a baseline of other kind, N, images or settings (--accept). Without conditions every constant of the
    baseline has to be there again and may move by 5 % (--tolerance), up or down.

    Exit status: 0 the gate is open, 4 it is closed, 2 a condition or a folder cannot be read.

    \b
    Examples:
      stabilitykit gate runs/new --baseline runs/main
      stabilitykit gate runs/new -b runs/main -f 'expansivity.expansive_constant.max < 0.9 * baseline'
      stabilitykit gate runs/new -f 'expansivity.accuracy < 0.95 or lipschitz.lipschitz > 50'
      stabilitykit gate runs/new -c gate.toml --junit gate.xml --markdown gate.md --step-summary
    """
    from stabilitykit.base.files import write_atomic
    from stabilitykit.base.results import to_plain
    from stabilitykit.cli.gate_terms import read_terms
    from stabilitykit.review.gate.judge import judge

    base, terms = read_terms(config, baseline, conditions, tolerance, accept)
    terms.check(base)
    summary = _summary_file(step_summary)
    _check_outputs(junit, markdown, summary)
    found = judge(run, base, terms)
    if junit is not None:
        from stabilitykit.reporting.gate import junit as to_junit

        write_atomic(junit, to_junit(found))
    if markdown is not None or summary is not None:
        from stabilitykit.reporting.gate import markdown as to_markdown

        text = to_markdown(found)
        if markdown is not None:
            write_atomic(markdown, text)
        if summary is not None:  # other steps' parts of it stay
            write_atomic(summary, (summary.read_bytes() if summary.exists() else b"") + text.encode())
    if output_format == "json":
        print(json.dumps(to_plain(found.to_json()), indent=1, ensure_ascii=False))
    else:
        _print(found)
    return found.exit_code


def _summary_file(wanted: bool) -> Path | None:
    if not wanted:
        return None
    given = os.environ.get(SUMMARY)
    if not given:
        raise UsageProblem(f"--step-summary: ${SUMMARY} is not set; that is a step of GitHub Actions, else --markdown")
    return Path(given)


def _check_outputs(*paths: Path | None) -> None:
    """UsageProblem, before anything is read, where a file to be written is a folder or stands twice."""
    given = [path for path in paths if path is not None]
    for path in given:
        if path.is_dir():
            raise UsageProblem(f"{path} is a folder; give the name of a file")
    places = [os.path.realpath(path) for path in given]
    if len(set(places)) < len(places):
        raise UsageProblem("JUnit XML and summaries go to different files")


def _print(found: Judgement) -> None:
    from stabilitykit.base.text import one_line
    from stabilitykit.reporting.gate import number_text

    for verdict in found.verdicts:
        print(f"{verdict.outcome.upper():9} {one_line(verdict.where)}: {one_line(verdict.rule)}")
        for line in (verdict.reason, *map(number_text, verdict.numbers), *verdict.notes):
            if line:
                print(f"          {one_line(line)}")
    for note in found.notes:
        print(f"note: {one_line(note)}")
    print(found.summary)
