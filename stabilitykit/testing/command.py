"""Contract checks of a command: run as the command line runs it, each time in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import click

from stabilitykit.base.names import imported
from stabilitykit.plugins.component import Command
from stabilitykit.testing.checks import Check, Checklist, require

TIMEOUT = 60
# Puts the command among the core's own, installed or not, and says at the end what was imported.
PROBE = """
import json, sys
from stabilitykit import cli
name, target, arguments = json.loads(sys.argv[1])
taken = name in cli.COMMANDS
cli.COMMANDS[name] = (target, "")
code = cli.run([name, *arguments])
print("\\n" + json.dumps({"code": code, "taken": taken, "torch": "torch" in sys.modules}))
"""


def check_command(command: Command) -> list[Check]:
    """Contract checks of ``command``: its help, and how it refuses what it does not know."""
    found = Checklist()
    with found.check("says what it is"):
        require(bool(command.summary), "no summary; one line for `stabilitykit --help`")
    built: list[click.Command] = []
    with found.check("its target is a click command"):
        thing = imported(command.target)
        require(isinstance(thing, click.Command), f"{command.target} is {type(thing).__name__}; use @click.command()")
        built.append(thing)
    if found.failed:
        return found.checks
    with found.check("--help says what it does and imports no torch"):
        said, _, out = _run(command, ["--help"])
        require(not said["taken"], f"stabilitykit has a command {command.name!r} of its own; choose another name")
        require(said["code"] == 0, f"exit {said['code']}")
        require("Usage:" in out, "it prints no usage")
        require(bool(built[0].help), "the function has no docstring; it is the help")
        require(not said["torch"], "--help imports torch, which takes seconds; import it inside the function")
    with found.check("an unknown option ends with exit 2"):
        _refused(command, ["--no-such-option-as-this"])
    files = _files(built[0])
    if files:
        with found.check("a file that is not there ends with exit 2 and one clear line"):
            message = _refused(command, files)
            require(files[0] in message, f"the message does not name {files[0]}: {message!r}")
    return found.checks


def _files(command: click.Command) -> list[str]:
    """Arguments that name files that are not there, for a command that needs nothing but files; else none."""
    needed = [p for p in command.params if p.required]
    if not needed or not all(isinstance(p.type, (click.Path, click.File)) for p in needed):
        return []
    return [
        word
        for number, p in enumerate(needed)
        for word in (*([p.opts[0]] if isinstance(p, click.Option) else []), f"not-there-{number}")
    ]


def _refused(command: Command, arguments: Sequence[str]) -> str:
    """The message of a command that refuses ``arguments`` as it should."""
    said, err, out = _run(command, arguments)
    require("Traceback" not in err, "a traceback; raise stabilitykit.UsageProblem with one line")
    require(
        said["code"] == 2,
        f"exit {said['code']}: {err.strip()[-200:]!r}; raise stabilitykit.UsageProblem or a click error",
    )
    require(bool(err.strip()), "nothing on stderr says why")
    require(not out.strip(), f"stdout, which is for results, has {out.strip()[:80]!r}")
    return err


def _run(command: Command, arguments: Sequence[str]) -> tuple[dict[str, Any], str, str]:
    """({code, taken, torch}, stderr, stdout) of the command in a process and an empty folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, json.dumps([command.name, command.target, list(arguments)])],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in map(os.path.abspath, sys.path) if p)},
        )
    lines = done.stdout.rstrip().splitlines()
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):  # it ended the process by itself
        said = {"code": done.returncode, "taken": False, "torch": False}
        return said, done.stderr, done.stdout
    return said, done.stderr, "\n".join(lines[:-1])
