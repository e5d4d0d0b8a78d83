"""The examples for build servers: their commands parse, their files keep the schemas, their hosts are public."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import yaml
from jsonschema import Draft202012Validator

from stabilitykit.cli import cli
from stabilitykit.cli.gate_terms import read_terms
from stabilitykit.runs.schema import schema

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "examples" / "ci"


def commands(text: str) -> list[list[str]]:
    return [
        shlex.split(line) for line in re.findall(r"\bstabilitykit ((?:evaluate|gate|report|audit) .+)$", text, re.M)
    ]


def parse_command(words: list[str]) -> None:
    root = click.Context(cli)
    command = cli.get_command(root, words[0])
    assert command is not None, words
    command.make_context(words[0], words[1:], parent=root)


def test_the_workflow_evaluates_gates_and_keeps_what_it_found():
    text = (CI / "stability.yml").read_text()
    steps = yaml.safe_load(text)["jobs"]["gate"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    order = [next(i for i, line in enumerate(runs) if word in line) for word in ("evaluate", " gate ", " report ")]
    assert order == sorted(order)
    found = commands(text)
    assert {words[0] for words in found} == {"evaluate", "gate", "report", "audit"}
    for words in found:
        parse_command(words)
    kept = next(step["with"]["path"].split() for step in steps if step.get("uses", "").startswith("actions/upload"))
    gate = next(words for words in found if words[0] == "gate")
    assert {gate[gate.index("--junit") + 1], gate[gate.index("--markdown") + 1]} <= set(kept)


def test_files_for_gates_are_read():
    page = (ROOT / "docs" / "gate.md").read_text()
    for text in ((CI / "gate.toml").read_text(), *re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)):
        assert [*Draft202012Validator(schema("gate")).iter_errors(tomllib.loads(text))] == []
    baseline, terms = read_terms(CI / "gate.toml", None, (), None, ())
    assert baseline == Path("stability/baseline") and len(terms.rules) == 3
    for words in commands(page):
        parse_command(words)


def test_the_image_copies_what_is_there_and_asks_public_hosts_only():
    """The image itself is built elsewhere; what can be read here is."""
    text = (ROOT / "Dockerfile").read_text()
    shown = {line.strip("!\n") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M) for word in line.split()[:-1]]
    assert copied and all((ROOT / name).exists() and name in shown for name in copied)
    assert set(re.findall(r"https?://([^/\s]+)", text)) == {"download.pytorch.org"}
    assert re.findall(r"^USER (\S+)$", text, re.M) == ["user"]
