"""Every check of report sections and commands fails for the mistake it is there for, and for nothing else."""

from __future__ import annotations

import sys

import pytest
from markupsafe import Markup

from stabilitykit import Command, ReportSection, UsageProblem
from stabilitykit.base.results import PropertyResult
from stabilitykit.reporting import RunData, note, table, tag
from stabilitykit.runs.folder import load_run
from stabilitykit.testing import check_command, check_section, events_of, failures, tiny_result, tiny_run
from tests.core.testing.test_checks import failed

EMPTY = "a run without cells gives nothing or sound HTML"
FAILED = "a run of failed cells gives nothing or sound HTML"
DONE = "a finished run gives nothing or sound HTML"
HOSTILE = "names are text, whatever they contain"
SAME = "the same run gives the same HTML and stays as it is"
NUMBER = iter(range(10_000))


def good(run):
    rows = [[cell.model, cell.property, cell.error.get("message", "")] for cell in run.cells]
    return note("All cells.") + table(["model", "property", "error"], rows) if rows else None


def needs_cells(run):
    return tag("p", run.cells[0].model)


def needs_results(run):
    return tag("p", next(cell.result.measurements for cell in run.cells)[0].value) if run.cells else None


def leaves_open(run):
    return "<p><b>open</p>" if any(cell.ok for cell in run.cells) else None


def unescaped(run):
    return "".join(f"<p>{cell.dataset}</p>" for cell in run.cells)


def unescaped_errors(run):
    return Markup("").join(Markup(f"<p>{cell.error['message']}</p>") for cell in run.cells if not cell.ok)


def in_an_attribute(run):
    return "".join(f'<p title="{cell.model}">x</p>' for cell in run.cells)


def script(run):
    return "<script>1</script>" if run.cells else None


def loads(run):
    return tag("img", src="https://example.org/logo.png") if run.cells else None


def styles(run):
    return tag("p", "x", style="background: url(//example.org/x)") if run.cells else None


def clicks(run):
    return tag("p", "x", onclick="alert(1)") if run.cells else None


def counts(run):
    return tag("p", next(NUMBER)) if run.cells else None


def sorts(run):
    for cell in run.cells:
        if cell.result is not None:
            cell.result.measurements.reverse()
    return tag("p", "sorted")


def gives_bytes(run):
    return b"<p>x</p>" if run.cells else None


SECTIONS = {
    good: [],
    needs_cells: [EMPTY],
    needs_results: [FAILED],
    leaves_open: [DONE, HOSTILE, SAME],
    unescaped: [HOSTILE],
    unescaped_errors: [HOSTILE],
    in_an_attribute: [HOSTILE],
    script: [FAILED, DONE, HOSTILE, SAME],
    loads: [FAILED, DONE, HOSTILE, SAME],
    styles: [FAILED, DONE, HOSTILE, SAME],
    clicks: [FAILED, DONE, HOSTILE, SAME],
    counts: [SAME],
    sorts: [SAME],
    gives_bytes: [FAILED, DONE, HOSTILE, SAME],
}


def section(function, title="Mine"):
    return ReportSection("mine", title, f"{__name__}:{function.__name__}")


@pytest.mark.parametrize("function", SECTIONS, ids=lambda function: function.__name__)
def test_section(function):
    assert failed(check_section(section(function))) == SECTIONS[function]


def test_what_is_no_section():
    assert failed(check_section(section(good, " "))) == ["says what it is"]
    assert failed(check_section(ReportSection("mine", "Mine", f"{__name__}:SECTIONS"))) == ["its target is a function"]
    assert failed(check_section(ReportSection("mine", "Mine", f"{__name__}:nothing"))) == ["its target is a function"]


def of_margins(run):
    found = [tag("p", result["margin"].value) for _, result in run.results("margins")]
    return Markup("").join(found) or None


def test_a_section_is_shown_the_results_of_its_plugin_and_the_authors_run(tmp_path):
    own = tiny_run(tmp_path / "own")
    assert failed(check_section(section(of_margins), own)) == [f"renders {own}"]
    assert not failures(check_section(section(good), own))
    other = {"margins": PropertyResult(tiny_result().measurements)}
    assert failed(check_section(section(of_margins), results=other)) == [DONE, HOSTILE, SAME]  # no such measurement


def test_a_tiny_run_is_a_run(tmp_path):
    folder = tiny_run(tmp_path / "run")
    info, cells = load_run(folder)
    assert info["status"] == "complete" and [cell.ok for cell in cells] == [True, False]
    run = RunData.read(folder)
    assert run.pairs[0].decisions is not None and run.words(cells[0]).taken(0) and (folder / "images.csv").exists()
    cell, failed_cell, whole = events_of(folder)
    assert cell.arguments["cell"] == cells[0].to_json() and failed_cell.arguments["cell"]["status"] == "failed"
    assert whole.arguments["run"]["folder"] == str(folder) and len(whole.arguments["cells"]) == 2
    with pytest.raises(UsageProblem):
        tiny_run(folder)


# Commands, each run three times in a process of its own: their module is a light one.

SOURCE = """
import click

@click.command()
@click.argument("run", type=click.Path())
def fine(run):
    'Show a run.'
    from stabilitykit.runs.folder import load_run
    load_run(run)

@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("run", type=click.Path())
@click.argument("rest", nargs=-1)
def careless(run, rest):
    'Show a run.'
    print("reading")
    open(run).close()

@click.command()
def undocumented():
    import torch

@click.command()
def verify():
    'Help.'

nothing = 3
"""

COMMANDS = {
    "fine": {},
    "careless": {
        "an unknown option ends with exit 2": "exit 1",
        "a file that is not there ends with exit 2 and one clear line": "exit 1",
    },
    "undocumented": {"--help says what it does and imports no torch": "docstring"},
    "verify": {"--help says what it does and imports no torch": "a command 'verify' of its own"},
}


@pytest.fixture
def light(tmp_path, monkeypatch):
    (tmp_path / "light_commands.py").write_text(SOURCE)
    (tmp_path / "heavy_commands.py").write_text(f"import torch\n{SOURCE}")
    (tmp_path / "own" / "torch").mkdir(parents=True)  # empty: the real one takes seconds
    (tmp_path / "own" / "torch" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_command(name, light):
    checks = check_command(Command(name, f"light_commands:{name}", "x"))
    wrong = {check.name: check.message for check in checks if not check.ok}
    assert wrong.keys() == COMMANDS[name].keys(), wrong
    assert all(COMMANDS[name][check] in message for check, message in wrong.items()), wrong
    assert len(checks) == (5 if name in ("fine", "careless") else 4)


def test_a_heavy_command(light, tmp_path, monkeypatch):
    command = Command("fine", "heavy_commands:fine", "x")
    monkeypatch.setattr("sys.path", [str(tmp_path / "own"), *sys.path])
    (check,) = (check for check in check_command(command) if not check.ok)
    assert "imports torch" in check.message


def test_what_is_no_command(light):
    for target in ("light_commands:nothing", "light_commands:nowhere", "nowhere:fine"):
        assert failed(check_command(Command("mine", target, ""))) == [
            "says what it is",
            "its target is a click command",
        ]
