"""The documentation says what is: its links lead somewhere, its code runs, its command reference is current."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

import stabilitykit.base.results
from stabilitykit.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def navigation() -> list[str]:
    """Files named in mkdocs.yml."""
    found: list[str] = []

    def walk(item) -> None:
        if isinstance(item, str):
            found.append(item)
        for value in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
            walk(value)

    walk(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    return found


def code(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def test_every_page_is_in_the_navigation_and_the_other_way_round():
    assert sorted(navigation()) == sorted(str(p.relative_to(DOCS)) for p in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", prose):
        assert (page.parent / target).exists(), target


def test_command_reference_names_every_option():
    """When this fails: python docs/generate_cli.py"""
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    root = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in section, (name, parameter.opts[0])


def test_objects_of_the_python_reference_exist():
    names = re.findall(r"^::: (\S+)$", (DOCS / "reference" / "api.md").read_text(encoding="utf-8"), re.M)
    assert names
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def test_plugin_page_holds_a_plugin_that_keeps_the_contract(tmp_path, monkeypatch):
    """The page's blocks, put where it says, pass the contract checks, verify, and appear in a report."""
    from stabilitykit.base.results import PropertyResult
    from stabilitykit.plugins.loading import PluginHost, PluginRecord
    from stabilitykit.reporting import RunData
    from stabilitykit.reporting.page import render
    from stabilitykit.runs.folder import Cell
    from stabilitykit.testing import check_component, failures, tiny_context

    register, measure, section, offer = code("plugin.md", "python")[:4]  # what follows is included from files
    package = tmp_path / "stabilitykit_confidence"
    package.mkdir()
    (package / "__init__.py").write_text(register + offer)
    (package / "measure.py").write_text(measure)
    (package / "sections.py").write_text(section)
    monkeypatch.syspath_prepend(tmp_path)
    plugin = importlib.import_module("stabilitykit_confidence")
    (component,) = plugin.stabilitykit_properties()
    assert not failures(check_component(component))
    context = tiny_context()
    built = component.load()()
    result = built.evaluate(context)
    assert built.verify(context, result)["confidence.min"] == result["confidence.min"].value
    cell = Cell("tiny", "images", "confidence", result=PropertyResult.from_json(result.to_json()))
    host = PluginHost([PluginRecord("confidence", "", "d", "1")], sections=plugin.stabilitykit_report_sections())
    page = render(RunData(tmp_path, {"status": "complete"}, [cell]), host)
    assert "margin, probability" in page and "failed" not in page.partition('<section id="confidence">')[2][:4000]


def test_plugin_page_shows_what_new_writes_and_what_examples_hold():
    """The packages and examples have tests of their own. When this fails: python docs/generate_plugin.py"""
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate_plugin.py"), "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    text = (DOCS / "plugin.md").read_text(encoding="utf-8")
    included = re.findall(r"^<!-- (?:new|file) [^\n]* -->\n\n```python\n(.*?)^```", text, re.M | re.S)
    assert len(included) == len(code("plugin.md", "python")) - 4 and all(included)
    for kind in ("model", "dataset", "command", "section"):
        assert f"<!-- new {kind} " in text


def test_tutorial_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = code("tutorial.md", "python")
    names: dict = {}
    exec(compile(block, "tutorial.md", "exec"), names)
    assert names["smallest"].n == 100 and len(names["frame"]) >= 6


def test_tutorial_configuration_is_read(tmp_path):
    from stabilitykit.cli.config import read_config

    (block,) = code("tutorial.md", "yaml")
    path = tmp_path / "run.yaml"
    path.write_text(block)
    assert set(read_config(path)) == {"models", "datasets", "properties", "checkpoint", "limit"}


def test_files_page_names_every_key_that_is_written():
    text = (DOCS / "files.md").read_text(encoding="utf-8")
    for key in stabilitykit.base.results.Measurement.__dataclass_fields__:
        if key not in ("name",):
            assert f"`{key}`" in text, key


def test_tutorial_commands_parse():
    """Every `stabilitykit ...` line of the docs names a command and options that exist."""
    known, seen = click.Context(cli), set()
    for page in PAGES:
        if page.name == "cli.md":
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^stabilitykit (.+)$", text, re.M):
            words = line.split("#")[0].split()
            if words[0] not in COMMANDS:
                continue  # a plugin's command
            seen.add(words[0])
            command = cli.get_command(known, words[0])
            assert command is not None
            while isinstance(command, click.Group) and len(words) > 1:
                command, words = command.get_command(known, words[1]), words[1:]
                assert command is not None, line
            options = {o for p in command.params if isinstance(p, click.Option) for o in (*p.opts, *p.secondary_opts)}
            for word in words[1:]:
                if word.startswith("-"):
                    assert word in options, (line, word)
    assert {"evaluate", "train", "verify"} <= seen
