"""What plugin code may do to its process costs its own cell, or itself; the other cells have their usual numbers."""

import json

import pytest

from stabilitykit.runs.folder import load_run
from tests import preloaded
from tests.robustness.conftest import OWNER, install

# One process runs the tests that share a long run.
pytestmark = pytest.mark.xdist_group("deadly")

TIMEOUT = 8.0

# Property -> what the message of its failed cell says; None: the cell stands.
CELLS = {
    "exits_zero": "os._exit(0)",
    "exits_three": "os._exit(3)",
    "aborts": "SIGABRT",
    "segfaults": "SIGSEGV",
    "kills_itself": "SIGKILL",
    "terminates_itself": "SIGTERM",
    "kills_its_group": "SIGKILL",
    "becomes_another_program": "exec",
    "closes_all_descriptors": "",
    "exits_in_a_thread": "os._exit(5)",
    "exits_later": None,
    "forks_and_both_return": None,
    "loops": "took longer than",
    "loops_in_c": "took longer than",
    "ignores_everything": "took longer than",
    "floods": None,
    "leaves_a_thread": None,
    "leaves_a_thread_that_patches_later": None,
    "leaves_a_child": None,
    "replaces_softmax": "replaced torch.",
    "swaps_functions": "replaced torch.nn.functional.relu",
    "replaces_a_method": "replaced torch.nn",
    "hides_an_operator": "replaced torch._tensor.Tensor.__add__",
    "replaces_norm": "replaced numpy.linalg",
    "replaces_a_builtin": "replaced builtins.sorted",
    "replaces_the_core": "replaced stabilitykit.base.results.to_plain",
    "deletes_a_function": "replaced torch.relu",
    "changes_modes": None,
    "flushes_denormals": None,
    "changes_places": None,
    "takes_the_streams": None,
    "asks_for_all_memory": "Memory",
    "recurses": "RecursionError",
    "raises_generator_exit": "GeneratorExit",
}

# Entry point -> what the record of the plugin says; None: it loads.
IMPORTS = {
    "broken-hard-exit": "os._exit(0)",
    "broken-segfault": "SIGSEGV",
    "broken-abort": "SIGABRT",
    "broken-killed": "SIGKILL",
    "broken-exec": "exec",
    "broken-hang": "still loading after 1 s",
    "broken-stubborn": "still loading after 1 s",
    "broken-c-loop": "still loading after 1 s",
    "broken-patch-torch": "torch.softmax",
    "broken-patch-core": "to_plain",
    "broken-patch-builtin": "builtins.sorted",
    "broken-chdir": "current folder",
    "broken-thread": "thread",
    "broken-dtype": "default dtype",
    "broken-interrupt": "nobody pressed Ctrl-C",
    "broken-flood": None,
}


def run(site, *arguments, cwd):
    return preloaded.run(arguments, site=site, cwd=cwd)


@pytest.fixture(scope="module")
def deadly_run(tmp_path_factory):
    """One run with every misdeed between two honest properties, and the honest ones alone."""
    tmp = tmp_path_factory.mktemp("deadly")
    site = install(tmp / "site", "deadly")
    honest = ["expansivity", "expansivity:pairs=predictions"]

    def evaluate(output, chosen, *more):
        names = [word for name in chosen for word in ("-p", name)]
        return run(site, "evaluate", "-m", "calm", "-d", "quiet", *names, "-q", "-o", output, *more, cwd=tmp)

    alone = evaluate("alone", honest, "--format", "csv")
    assert alone.returncode == 0, alone.stderr
    done = evaluate(
        "run", [honest[0], *CELLS, honest[1]], "--cell-timeout", TIMEOUT, "--format", "json", "--cache", tmp / "cache"
    )
    return tmp, done


def test_there_are_at_least_forty():
    assert len(CELLS) + len(IMPORTS) >= 40


def test_the_other_cells_have_their_usual_numbers(deadly_run):
    tmp, done = deadly_run
    assert done.returncode == 1 and "Traceback" not in done.stderr and "internal error" not in done.stderr
    there, alone = ({c.property: c for c in load_run(tmp / name)[1]} for name in ("run", "alone"))
    for name, cell in alone.items():
        assert there[name].ok, there[name].error
        assert there[name].result.to_json() == cell.result.to_json()


def test_stdout_is_the_run_and_nothing_else(deadly_run):
    tmp, done = deadly_run
    shown = json.loads(done.stdout)
    assert [cell["property"] for cell in shown["cells"]] == ["expansivity", *CELLS, "expansivity:pairs=predictions"]
    assert json.loads((tmp / "run" / "run.json").read_text())["status"] == "complete"
    assert done.stderr.count("NOISE of a flood") >= 20_000


@pytest.mark.parametrize("name", CELLS)
def test_each_misdeed_costs_its_own_cell_at_most(deadly_run, name):
    cell = {c.property: c for c in load_run(deadly_run[0] / "run")[1]}[name]
    if CELLS[name] is None:
        assert cell.ok, cell.error
        return
    assert not cell.ok and CELLS[name] in cell.error["message"]
    assert cell.error["culprit"] == f"property {name} of {OWNER}"


HANGING = {name for name, text in IMPORTS.items() if text is not None and "still loading" in text}


@pytest.mark.parametrize("names", [sorted(HANGING), sorted(IMPORTS.keys() - HANGING)], ids=["hanging", "others"])
def test_each_plugin_that_misbehaves_when_imported_costs_itself(tmp_path, names, monkeypatch):
    # Those that hang are waited for; the others import torch, which takes its time on a busy machine.
    monkeypatch.setenv("STABILITYKIT_PLUGIN_TIMEOUT", "1" if names[0] in HANGING else "60")
    site = install(tmp_path / "site", *names)
    done = run(site, "plugins", "list", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    records = {r["name"]: r for r in json.loads(done.stdout)}
    for name in names:
        text = IMPORTS[name]
        if text is None:
            assert records[name]["status"] == "loaded", records[name]
        else:
            assert records[name]["status"] == "failed" and text in records[name]["error"], records[name]
    assert records["expansivity"]["status"] == "loaded"
    strict = run(site, "properties", "list", "--strict-plugins", cwd=tmp_path)
    assert strict.returncode == 3 and strict.stdout == ""


@pytest.mark.parametrize(
    ("parts", "culprit", "ended"),
    [
        (("-m", "calm", "-d", "dies-reading"), "dataset dies-reading", "os._exit(0)"),
        (("-m", "calm", "-d", "dies-building"), "dataset dies-building", "SIGABRT"),
        (("-m", "dies-running", "-d", "quiet"), "model dies-running", "os._exit(4)"),
        (("-m", "patches", "-d", "quiet"), "model patches", "replaced torch.softmax"),
    ],
)
def test_a_dataset_or_model_that_ends_the_process_is_the_culprit(tmp_path, parts, culprit, ended):
    site = install(tmp_path / "site", "deadly")
    done = run(site, "evaluate", *parts, "-q", "--no-cache", "-o", "run", cwd=tmp_path)
    assert done.returncode in (1, 3), done.stderr
    assert f"{culprit}" in done.stderr and ended in done.stderr and "Traceback" not in done.stderr


def test_a_death_while_pictures_are_drawn_costs_the_pictures(tmp_path):
    site = install(tmp_path / "site", "deadly")
    done = run(site, "evaluate", "-m", "calm", "-d", "dies-drawing", "-q", "--no-cache", "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dataset dies-drawing" in done.stderr and load_run(tmp_path / "run")[1][0].ok


@pytest.mark.parametrize("name", ["loops_in_c", "ignores_everything"])
def test_the_time_limit_is_kept_within_two_seconds(tmp_path, name):
    """Between the first word of the cell and its failure; starting Python and torch is not the limit's doing."""
    from stabilitykit.supervision import supervisor

    site = install(tmp_path / "site", "deadly")
    log = tmp_path / "log"
    code = (
        f"LOG = {str(log)!r}\n"
        "import time\n"
        "from stabilitykit.supervision import supervisor as s\n"
        "begin, lost = s.Listening.begin, s.Supervisor._lost\n"
        "def note(text): open(LOG, 'a').write(f'{text} {time.monotonic()}\\n')\n"
        "s.Listening.begin = lambda self, m: (m['kind'] == 'cell' and note('begin'), begin(self, m))[1]\n"
        "s.Supervisor._lost = lambda self, *a: (note('lost'), lost(self, *a))[1]\n"
    )
    assert supervisor.GRACE <= 2
    arguments = ["evaluate", "-m", "calm", "-d", "quiet", "-q", "--no-cache", "-p", name, "--cell-timeout", "2"]
    done = preloaded.run([*arguments, "-o", "run"], site=site, cwd=tmp_path, before=code)
    assert done.returncode == 1 and "took longer than 2 s (--cell-timeout)" in done.stderr
    times = dict(line.split() for line in log.read_text().splitlines())
    assert 2 <= float(times["lost"]) - float(times["begin"]) < 4
