"""Installed plugins that break: the rest stands, and the culprit is named in table, JSON and report."""

import json
import subprocess
import sys

import pytest

from stabilitykit.runs.folder import load_run
from tests import preloaded
from tests.robustness.conftest import OWNER

# One process runs the tests that share a long run.
pytestmark = pytest.mark.xdist_group("hostile")

# What ends or hangs the process when it is imported stands in test_misdeeds.py.
LOADING = {
    "broken-import": "a_module_that_is_not_there",
    "broken-exit": "SystemExit",
    "broken-base-exception": "not an Exception",
    "broken-signature": "surprise",
}
FAST = ("evaluate", "--limit", 60, "--no-cache", "-q")


@pytest.mark.parametrize("name", LOADING)
def test_a_plugin_that_does_not_load_is_named_and_the_rest_works(broken, cli, name):
    broken(name)
    code, out, err = cli("plugins", "list", "--format", "json")
    records = {r["name"]: r for r in json.loads(out)}
    assert code == 0 and records[name]["status"] == "failed" and LOADING[name] in records[name]["error"]
    assert (records[name]["distribution"], records[name]["version"]) == tuple(OWNER.split())
    assert records["expansivity"]["status"] == "loaded"
    code, out, err = cli("properties", "list")
    assert code == 0 and "expansivity" in out and OWNER in err and LOADING[name] in err
    code, out, err = cli("properties", "list", "--strict-plugins")
    assert code == 3 and OWNER in err and out == ""


def test_a_run_stands_beside_plugins_that_do_not_load(broken, cli, tmp_path):
    alone = cli(*FAST, "-o", tmp_path / "alone", "--format", "csv")
    broken(*LOADING)
    code, out, err = cli(*FAST, "-o", tmp_path / "run", "--format", "csv", "--report")
    assert code == 0 and out == alone[1]
    assert err.count(OWNER) >= len(LOADING)
    plugins = load_run(tmp_path / "run")[0]["provenance"]["plugins"]
    failed = {p["name"]: p for p in plugins if p["status"] == "failed" and p["distribution"] == "stabilitykit-broken"}
    assert set(failed) == set(LOADING) and all(p["version"] == "6.6.6" for p in failed.values())
    page = (tmp_path / "run" / "report.html").read_text()
    for name, text in LOADING.items():
        assert name in page and text in page and OWNER in page
    assert cli(*FAST, "-o", tmp_path / "strict", "--strict-plugins")[0] == 3
    assert not (tmp_path / "strict").exists()


def test_names_two_distributions_claim(broken, cli, tmp_path):
    broken("broken-clash")
    code, _out, err = cli(*FAST, "-o", tmp_path / "run")
    assert code == 3 and OWNER in err and "stabilitykit 0.1.0" in err and "stabilitykit:" in err
    chosen = ("-p", "stabilitykit:expansivity", "-d", "stabilitykit:digits")
    assert cli(*FAST, *chosen, "-o", tmp_path / "run")[0] == 0
    assert cli(*FAST, *chosen, "-o", tmp_path / "run", "--resume")[0] == 0
    code, _out, err = cli("verify", tmp_path / "run", "-q", "--format", "json")
    assert code == 0, err  # the run remembers whose expansivity it was
    code, _out, err = cli("properties", "list")
    assert code == 0 and "clash" in err and OWNER in err


# Property -> what its failure says; None: it is no failure, the run is shielded from it.
HOSTILE = {
    "raises": "RuntimeError: it raises",
    "multiline": "ValueError: first line",
    "silent": "ValueError",
    "badtext": "Mute",
    "unusual": "not an Exception",
    "exits": "goodbye",
    "returnsnone": "expected a PropertyResult",
    "returnsnan": "NaN",
    "returnstext": "ValueError",
    "oddfields": "name is text",
    "twicethesamename": "two measurements",
    "prints": None,
    "writestodescriptor": None,
    "modifiesmodel": "modified the model",
    "addshook": "modified the model",
    "modifiestrajectory": "read-only",
    "modifieslogits": "read-only",
    "modifieslabels": "modified the dataset",
    "modifiesresults": None,
    "replacestrajectory": "labels",
    "huge": "above the limit",
    "oddwitness": None,
    "unserialisable": "Recursion",
    "surrogates": None,
    "changesprocess": None,
    "needsarguments": "something",
    "notaproperty": "expected a stabilitykit.Property",
    "latermodel": "modified the model",
    "interrupts": "nobody pressed Ctrl-C",
    "exitshard": "os._exit(0)",
    "closesstreams": None,
    "replacesforward": "modified the model",
    "givesnothing": "without a measurement",
    "ignoressignals": None,
    "emptiesfolder": None,
}


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """One run with every hostile property between two honest ones, and the same honest ones alone."""
    from tests.robustness.conftest import install

    tmp = tmp_path_factory.mktemp("hostile")
    site = install(tmp / "site", "hostile")
    # The order matters: what they do to shared things would show in the second honest property.
    names = ["expansivity", *HOSTILE, "expansivity:pairs=predictions"]

    def evaluate(output, chosen, *more):
        arguments = [
            "evaluate",
            "--limit",
            "60",
            "-q",
            "--cache",
            str(tmp / f"cache-{output}"),
            "-o",
            str(tmp / output),
            *(word for name in chosen for word in ("-p", name)),
            *more,
        ]
        return preloaded.run(arguments, site=site, cwd=tmp)

    done = evaluate("run", names, "--format", "json", "--report")
    alone = evaluate("alone", [names[0], names[-1]])
    assert alone.returncode == 0, alone.stderr
    return tmp, done


def cells_of(folder):
    return {cell.property: cell for cell in load_run(folder)[1]}


def test_honest_properties_give_the_same_numbers(hostile_run):
    tmp, done = hostile_run
    assert done.returncode == 1 and "Traceback" not in done.stdout.split('"traceback"')[0]
    assert "internal error" not in done.stderr
    there, alone = cells_of(tmp / "run"), cells_of(tmp / "alone")
    for name, cell in alone.items():
        assert there[name].ok and there[name].result.to_json() == cell.result.to_json()


def test_stdout_is_json_and_nothing_else(hostile_run):
    _, done = hostile_run
    data = json.loads(done.stdout)
    assert len(data["cells"]) == len(HOSTILE) + 2 and "NOISE" not in done.stdout
    for noise in ("NOISE from print", "NOISE below Python", "NOISE from a child"):
        assert noise in done.stderr


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_property(hostile_run, name):
    tmp, done = hostile_run
    cell, page = cells_of(tmp / "run")[name], (tmp / "run" / "report.html").read_text()
    if HOSTILE[name] is None:
        assert cell.ok, cell.error
        return
    assert not cell.ok and HOSTILE[name] in cell.error["message"] and "\n" not in cell.error["message"]
    assert cell.error["culprit"] == f"property {name} of {OWNER}"
    assert f"failed: {name} on" in done.stderr and cell.error["culprit"] in page


def test_hostile_text_is_harmless_in_the_report(hostile_run):
    page = (hostile_run[0] / "run" / "report.html").read_text()
    for code in ("<script>alert", "<img src=x"):
        assert code not in page
    assert "&lt;img src=x onerror" in page


def test_failing_report_sections_are_named(hostile_run):
    tmp, done = hostile_run
    page = (tmp / "run" / "report.html").read_text()
    for name in ("failing", "unbalanced"):
        assert f"section {name} of {OWNER} failed" in page and f"section {name} of {OWNER} failed" in done.stderr
    assert "never closed" not in page


@pytest.mark.parametrize(
    "kind, name, message",
    [
        ("dataset", "failing-images", "the disk with the images is gone"),
        ("dataset", "nan-pixels", "NaN"),
        ("dataset", "failing-build", "no such thing"),
        ("dataset", "failing-labels", "labels"),
        ("dataset", "too-few-images", "images() gave"),
        ("dataset", "byte-images", "uint8"),
        ("model", "failing-forward", "shape mismatch"),
        ("model", "nan-readout", "NaN"),
        ("model", "unequal-blocks", "R^16 to R^32"),
        ("model", "keeps-state", "changed the model"),
    ],
)
def test_a_failing_dataset_or_model_is_the_culprit_not_the_property(broken, cli, tmp_path, kind, name, message):
    broken("hostile")
    # Beside a healthy pair: then the run goes on and says so cell by cell.
    parts = (
        ("-m", "small", "-m", name, "-d", "script-names")
        if kind == "model"
        else ("-m", "small", "-d", "script-names", "-d", name)
    )
    code, _out, err = cli(*FAST, *parts, "-o", tmp_path / "run")
    assert code == 1, err
    good, bad = load_run(tmp_path / "run")[1]
    assert good.ok and not bad.ok and message in bad.error["message"]
    assert bad.error["culprit"] == f"{kind} {name} of {OWNER}"


def test_commands_of_plugins_that_fail_are_named(broken, cli):
    broken("hostile")
    code, out, err = cli("explode")
    assert code == 1 and OWNER in err and "boom" in err
    code, out, err = cli("missing")
    assert code == 2 and "not_there" in err
    code, out, err = cli("evaluate", "--help")
    assert code == 0 and "Measure properties" in out


def test_class_names_are_text_everywhere(broken, cli, tmp_path):
    broken("hostile")
    for dataset in ("script-names", "huge-names"):
        run = tmp_path / dataset
        code, _out, err = cli("evaluate", "-m", "small", "-d", dataset, "--no-cache", "-q", "-o", run, "--report")
        assert code == 0, err
        page = (run / "report.html").read_text()
        assert "<script>alert" not in page and "<img src=x" not in page and "49" not in page.split("7 * 7")[0][-1:]
        for chart in (run / "figures").glob("*.svg"):
            text = chart.read_text()
            assert "<script>alert" not in text and "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in (tmp_path / "script-names" / "report.html").read_text()


@pytest.mark.slow
def test_the_distribution_installs_with_pip(tmp_path):
    from tests.robustness.conftest import BROKEN

    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "site"), str(BROKEN)],
        check=True,
        timeout=300,
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from stabilitykit.plugins.loading import find\n"
        "print([p.name for p in find() if p.dist.name == 'stabilitykit-broken'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")], capture_output=True, text=True, check=True
    )
    assert "hostile" in done.stdout and "broken-clash" in done.stdout
