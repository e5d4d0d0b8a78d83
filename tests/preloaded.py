"""The command line in a process of its own, forked from one that has already imported what every run imports.

Importing torch, numba and scipy costs more processor time than most runs of the tests, and a supervisor that loses
its worker would pay it again for each fresh one. What is forked here has run no command; supervisor and workers are
processes as a user's are, and plugins that misbehave are imported by them alone.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "torch",
        "numba.typed",
        "scipy.linalg",
        "filelock",
        "PIL.Image",
        "rich.console",
        "rich.table",
        "stabilitykit.cli.evaluate",
        "stabilitykit.cli.listing",
        "stabilitykit.cli.printing",
        "stabilitykit.evaluation.evaluate",
        "stabilitykit.plugins.loading",
        "stabilitykit.reporting.page",
        "stabilitykit.reporting.screen",
        "stabilitykit.reporting.terminal",
        "stabilitykit.runs.recorder",
        "stabilitykit.search.nearest.trajectories",
        "stabilitykit.search.pairs.search",
        "stabilitykit.supervision.supervisor",
        "stabilitykit.testing.fixtures",
        *(point.module for point in entry_points(group="stabilitykit") if point.dist.name == "stabilitykit"),
        "stabilitykit_expansivity.expansivity",
    ]
)


def run(
    arguments: Sequence[object],
    *,
    site: Path | None = None,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    before: str = "",
    timeout: float = 900,
) -> subprocess.CompletedProcess[str]:
    """``stabilitykit *arguments`` -> exit code (minus the number of a signal), stdout, stderr.

    Arguments:
        site: a folder of installed plugins, first on the path.
        cwd: its current folder.
        env: its environment; None: this process's.
        before: Python that it runs before the command.
        timeout: seconds; a command that takes longer is killed.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout``.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("out", "err")]
        given = (list(map(str, arguments)), str(site or ""), str(cwd), dict(env or os.environ), before, outputs)
        process = SERVER.Process(target=_enter, args=given)
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(given[0], timeout)
        out, err = (path.read_text() for path in outputs)
        assert process.exitcode is not None  # it has ended
        return subprocess.CompletedProcess(given[0], process.exitcode, out, err)


def _enter(arguments: list[str], site: str, cwd: str, env: dict[str, str], before: str, outputs: list[Path]) -> None:
    for descriptor, path in enumerate(outputs, 1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["stabilitykit", *arguments]
    if site:
        sys.path.insert(0, site)
    exec(before, {})
    from stabilitykit.__main__ import main

    main()
