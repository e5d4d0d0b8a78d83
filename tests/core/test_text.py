"""What is printed holds no control character, and no cell of a CSV file is a formula, whatever names hold."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.base.results import Kind, Measurement, PropertyResult
from stabilitykit.base.text import (
    PrintableStream,
    csv_text,
    one_line,
    place_text,
    printable,
    printable_streams,
    safe_cell,
)
from stabilitykit.cli import run
from stabilitykit.review.consistency import changed_rows
from stabilitykit.runs.folder import Cell, RunFolder, load_run, to_csv
from tests.core.report_runs import CLASSES, make_run

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
EVIL = "\x1b]0;PWN\x07\x1b[2J\x9b31m\u202e\u2066\x7f\r\t\u2028evil\nsecond"
FORMULA = "=cmd|' /C calc'!A0"


@given(st.text())
def test_printable_text_has_no_control_characters_and_says_what_was_there(text):
    shown = printable(text)
    assert not CONTROL.search(shown) and shown.count("\n") == text.count("\n")
    assert printable(shown) == shown and (shown == text or CONTROL.search(text) or re.search("[\ud800-\udfff]", text))
    assert "\n" not in one_line(text)


@given(st.text())
def test_json_stays_json_and_keeps_its_meaning(text):
    assert json.loads(printable(json.dumps({"a": text}, ensure_ascii=False, indent=1))) == {"a": text}


@given(st.text(), st.sampled_from(["", "=", "+", "-", "@", "\t", "\r"]))
def test_no_cell_is_a_formula(text, start):
    cell = safe_cell(start + text)
    assert cell[:1] not in tuple("=@\t\r") and safe_cell(cell) == cell
    if cell[:1] in ("+", "-"):
        float(cell)


@pytest.mark.parametrize("number", ["-1.5", "+inf", "-inf", "1e-9", "-1e+300", "+3", "-.5"])
def test_numbers_stay_numbers(number):
    assert safe_cell(number) == number


@pytest.mark.parametrize("text", ["-1+1", "+1|x", "-", "=1", "@SUM(A1)", "-1e5()", "+inf+1"])
def test_what_only_begins_like_a_number_is_quoted(text):
    assert safe_cell(text) == "'" + text


@given(st.floats(allow_nan=True))
def test_floats_read_back_to_the_last_digit(value):
    [row] = csv.DictReader(io.StringIO(csv_text(("x",), [{"x": value}])))
    assert float(row["x"]) == value or value != value


def test_a_run_of_formulas_reads_back_as_what_it_was(tmp_path):
    """measurements.csv of today, and one written before cells were made safe, agree with the cells."""
    result = PropertyResult([Measurement("+m", -1.5, Kind.EXACT, 3, note="-x", reference="@r")])
    cells = [Cell(FORMULA, "-d", "=p", result=result), Cell("m", EVIL, "p", result=result)]
    folder = RunFolder(tmp_path)
    folder.write_csv(cells)
    for row in csv.DictReader(io.StringIO((tmp_path / "measurements.csv").read_text())):
        assert row["value"] == "-1.5"
        assert all(v[:1] not in tuple("=+-@\t\r") or k == "value" for k, v in row.items())
    assert not list(changed_rows((tmp_path / "measurements.csv").read_bytes().decode(), cells))
    former = io.StringIO()
    writer = csv.DictWriter(former, next(csv.reader(io.StringIO(to_csv(cells)))), lineterminator="\n")
    writer.writeheader()
    from stabilitykit.runs.folder import measurement_rows

    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in measurement_rows(cells))
    (tmp_path / "measurements.csv").write_text(former.getvalue(), newline="")
    assert not list(changed_rows((tmp_path / "measurements.csv").read_bytes().decode(), cells))
    (tmp_path / "measurements.csv").write_text(former.getvalue().replace("-1.5", "-1.6"), newline="")
    assert len(list(changed_rows((tmp_path / "measurements.csv").read_bytes().decode(), cells))) == 2


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    names = tuple(f"{c}{EVIL}" for c in CLASSES)
    return make_run(
        tmp_path_factory.mktemp("evil") / f"run{EVIL}", models=(EVIL, f"b{EVIL}"), dataset=EVIL, classes=names
    )


@pytest.mark.parametrize(
    "command",
    [
        ("compare",),
        ("compare", "--format", "csv"),
        ("compare", "--format", "json"),
        ("export",),
        ("export", "--format", "latex"),
        ("export", "--format", "json"),
        ("export", "--format", "figures"),
        ("report",),
        ("verify", "--witnesses-only", "-q"),
        ("verify", "--witnesses-only", "-q", "--format", "json"),
    ],
    ids=" ".join,
)
def test_no_command_prints_a_control_character(evil_run, capsys, command):
    run([command[0], str(evil_run), *command[1:]])
    out, err = capsys.readouterr()
    assert not CONTROL.search(out + err), CONTROL.search(out + err)
    assert "evil" in out + err and "\nsecond" not in out + err
    if command[-1] == "json" and out:  # verify refuses a run whose model it does not know
        json.loads(out)


def test_tables_of_a_run(evil_run, capsys):
    from stabilitykit.reporting.terminal import print_cells

    with printable_streams():
        print_cells(load_run(evil_run)[1])
    out = capsys.readouterr().out
    assert not CONTROL.search(out) and "second" in out and "\nsecond" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "-m", EVIL],
        ["evaluate", "-p", EVIL],
        ["evaluate", "--device", EVIL],
        ["evaluate", "--space", EVIL],
        ["evaluate", "-c", EVIL + ".yaml"],
        ["evaluate", "--trajectories", EVIL],
        ["evaluate", "--checkpoint", EVIL],
        ["report", EVIL],
        ["verify", EVIL],
        ["compare", EVIL, EVIL],
        ["export", EVIL],
        ["models", "show", EVIL],
        ["plugins", "check", EVIL],
        ["new", EVIL],
        [EVIL],
        ["--" + EVIL],
    ],
    ids=lambda arguments: arguments[0] if len(arguments) > 1 else "",
)
def test_errors_stay_on_their_line(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) != 0
    out, err = capsys.readouterr()
    assert not CONTROL.search(out + err) and "\nsecond" not in out + err


def test_prints_warnings_and_libraries_pass_the_same_way(capsys):
    with printable_streams():
        print(f"warning: plugin {EVIL} failed", file=sys.stderr)
        sys.stdout.writelines([EVIL])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(EVIL, stacklevel=1)
    out, err = capsys.readouterr()
    assert not CONTROL.search(out + err) and "warning: plugin \\u001b" in err and "\nsecond failed" not in err
    assert not isinstance(sys.stdout, PrintableStream)


def test_styles_of_rich_reach_a_terminal_and_those_of_names_do_not():
    """On a pseudo-terminal: colours of a table, none of a name; a warning during a bar is clean, too."""
    import pty

    code = (
        "from stabilitykit.base.text import printable_streams\n"
        "from stabilitykit.cli.progress import make_progress\n"
        "from stabilitykit.reporting.console import Console\n"
        "import sys\n"
        "with printable_streams():\n"
        "    Console().print(__import__('rich.text').text.Text('\\x1b[4;95mW'))\n"
        "    Console().print('[red]styled[/red]', 'name\\x1b[4;95mX\\x9b')\n"
        "    for _ in make_progress()(range(2), 'bar\\x1b[4;95mY'):\n"
        "        print('warning: \\x1b[4;95mZ', file=sys.stderr)\n"
    )
    ours, theirs = pty.openpty()
    environment = {"TERM": "xterm-256color", "PATH": "/usr/bin:/bin", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == 0
    text = shown.decode()
    assert "\x1b[31m" in text and "styled" in text
    assert "\x1b[4;95m" not in text and "\x9b" not in text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert all(f"\\u001b[4;95m{name}" in plain for name in "WXYZ")


def test_class_names_of_a_file_reach_no_terminal(tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = tmp_path / "evil.npz"
    names = np.array([EVIL, FORMULA, "c"])
    np.savez(path, X=rng.random((9, 1, 8, 8)).astype("float32"), y=np.arange(9) % 3, class_names=names)
    given = ["evaluate", "-m", "resnet18-digits", "-d", f"npz:{path},size=32", "--any-classes", "-q", "--no-cache"]
    assert run([*given, "-o", str(tmp_path / "run")]) in (0, 2)
    out, err = capsys.readouterr()
    assert not CONTROL.search(out + err)


def test_places_are_numbers_with_names_that_say_more():
    assert place_text(7, "layer3.2") == "7 (layer3.2)"
    assert place_text(7, "block 6") == place_text(7, "") == place_text(7, None) == "7"
