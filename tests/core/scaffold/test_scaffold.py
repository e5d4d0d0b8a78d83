"""`stabilitykit new KIND`: whole packages that work at once, or one clear line and nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from stabilitykit import Command, Component, ReportSection
from stabilitykit.base.errors import UsageProblem
from stabilitykit.cli import scaffold
from stabilitykit.cli.new import OFFERED, command
from stabilitykit.plugins.loading import PluginHost, PluginRecord
from stabilitykit.plugins.registry import Registry

NOTHING = Registry(PluginHost())
REPOSITORY = Path(__file__).resolve().parents[3]


IMPLEMENTATIONS = {
    "property": ["measure.py"],
    "model": ["model.py", "network.py"],
    "dataset": ["dataset.py", "example.csv"],
    "command": ["command.py"],
    "section": ["section.py"],
}


def run(*arguments, cwd, path=()):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), str(REPOSITORY), str(REPOSITORY / "plugins")])
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """One package of each kind."""
    folder = tmp_path_factory.mktemp("packages")
    return {kind: scaffold.new_package(kind, f"own_{kind}", folder, NOTHING) for kind in scaffold.KINDS}


def test_there_is_a_command_for_each_kind():
    assert list(OFFERED) == list(scaffold.KINDS) == list(command.commands) == list(IMPLEMENTATIONS)


@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["curvature", "true", "a1_b2"])
def test_names_of_everything_follow_from_the_name(tmp_path, name, kind):
    target = scaffold.new_package(kind, name, tmp_path, NOTHING)
    assert target == tmp_path / f"stabilitykit-{name.replace('_', '-')}"
    written = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    package = f"stabilitykit_{name}"
    assert written == {
        "pyproject.toml",
        "README.md",
        f"src/{package}/__init__.py",
        *(f"src/{package}/{file}" for file in IMPLEMENTATIONS[kind]),
        f"tests/test_{name}.py",
    }
    project = tomllib.loads((target / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["stabilitykit"] == {name: package}
    assert not [path for path in target.rglob("*") if path.is_file() and "$" in path.read_text()]
    for path in target.rglob("*.py"):
        compile(path.read_text(), str(path), "exec")
    assert list(tmp_path.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o777 & ~scaffold._umask()


def test_the_new_packages_pass_their_own_tests(packages):
    """One process for all five; each with its own settings is in the slow test below."""
    folder = packages["model"].parent
    sources = [package / "src" for package in packages.values()]
    options = ["-v", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", "."]
    done = run("-m", "pytest", *options, *(f"{p.name}/tests" for p in packages.values()), cwd=folder, path=sources)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{package.name}/tests" in done.stdout for package in packages.values())
    assert "skipped" not in done.stdout and "warning" not in done.stdout, done.stdout


@pytest.mark.parametrize("name", ["x", "own", "a_name_that_is_rather_long"])
def test_the_new_packages_pass_ruff_whatever_their_name(tmp_path, name):
    for kind in scaffold.KINDS:
        (tmp_path / kind).mkdir()
        scaffold.new_package(kind, name, tmp_path / kind, NOTHING)
    for words in (["check"], ["format", "--check", "--diff"]):
        done = run("-m", "ruff", *words, ".", cwd=tmp_path)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMPLEMENTATIONS)
def test_each_new_package_passes_alone_and_with_mypy(packages, kind):
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=packages[kind])
    assert done.returncode == 0, done.stdout + done.stderr
    mypy = run("-m", "mypy", cwd=packages[kind])
    assert mypy.returncode == 0, mypy.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("class", "word of the Python language"),
        ("statistics", "module of Python's standard library"),
        ("My-Property", "e.g. my_property"),
        ("2fast", "starting with a letter"),
        ("", "no name for a property"),
        ("a__b", "e.g. a_b"),
        ("tail_", "e.g. tail"),
        ("größe", "no name for a property"),
        ("../escape", "e.g. escape"),
        ("taken", "already provided by some-dist 1.0"),
        ("loaded", "already provided by plugin loaded of other-dist 2"),
        ("expansivity", "can already be imported"),
    ],
)
def test_bad_names_write_nothing(tmp_path, name, message):
    taken = Component("property", "taken", "a:b", "x", distribution="some-dist", version="1.0")
    record = PluginRecord("loaded", "x", "other-dist", "2")
    with pytest.raises(UsageProblem, match=message) as raised:
        scaffold.new_package("property", name, tmp_path, Registry(PluginHost([record], [taken])))
    assert "\n" not in str(raised.value) and raised.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name", "owner"),
    [
        ("command", "evaluate", "stabilitykit"),
        ("command", "long_name", "c-dist"),
        ("section", "summary", "stabilitykit"),
        ("section", "margins", "s-dist"),
    ],
)
def test_names_of_commands_and_sections_are_taken_too(tmp_path, kind, name, owner):
    commands = [Command("long-name", "a:b", "x", "c-dist")]
    sections = [ReportSection("margins", "Margins", "a:b", distribution="s-dist")]
    with pytest.raises(UsageProblem, match=f"already provided by {owner};"):
        scaffold.new_package(kind, name, tmp_path, Registry(PluginHost(commands=commands, sections=sections)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_an_existing_target_is_left_alone(tmp_path, kind):
    target = tmp_path / "stabilitykit-curvature"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageProblem, match="exists already"):
        scaffold.new_package("property", "curvature", tmp_path, NOTHING)
    assert list(tmp_path.iterdir()) == [target]
    assert kind != "file" or target.read_text() == "mine"
    assert kind != "folder" or not list(target.iterdir())


def test_a_missing_parent_is_not_made(tmp_path):
    with pytest.raises(UsageProblem, match="is no folder"):
        scaffold.new_package("property", "curvature", tmp_path / "deep", NOTHING)
    assert not (tmp_path / "deep").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    written = []

    def write_text(self, text, **options):
        if written:
            raise OSError(28, "No space left on device")
        written.append(self)
        return len(text)

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(UsageProblem, match="No space left on device"):
        scaffold.new_package("property", "curvature", tmp_path, NOTHING)
    assert written and list(tmp_path.iterdir()) == []


def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def rename(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(scaffold, "os", SimpleNamespace(rename=rename, umask=os.umask))
    with pytest.raises(KeyboardInterrupt):
        scaffold.new_package("property", "curvature", tmp_path, NOTHING)
    assert list(tmp_path.iterdir()) == []


def test_command_says_where_and_what_next(tmp_path):
    done = CliRunner().invoke(command, ["property", "curvature", "--directory", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "stabilitykit-curvature") in done.output and "pip install -e ." in done.output
    again = CliRunner().invoke(command, ["property", "curvature", "--directory", str(tmp_path)])
    assert isinstance(again.exception, UsageProblem)
