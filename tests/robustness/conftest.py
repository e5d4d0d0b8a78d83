"""Installing the fixture distribution of broken plugins, and running the command line in this process."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from stabilitykit.cli import run

BROKEN = Path(__file__).resolve().parents[1] / "fixtures" / "broken-plugins"
OWNER = "stabilitykit-broken 6.6.6"


def install(site: Path, *entry_points: str) -> Path:
    """Put the distribution into the folder ``site`` as an installer does, with some of its entry points only."""
    project = tomllib.loads((BROKEN / "pyproject.toml").read_text())["project"]
    offered = project["entry-points"]["stabilitykit"]
    shutil.copytree(BROKEN / "src", site, dirs_exist_ok=True)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {offered[name]}" for name in entry_points]
    (info / "entry_points.txt").write_text("\n".join(["[stabilitykit]", *lines]) + "\n")
    return site


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """``broken("hostile", ...)`` makes entry points of the broken distribution installed for this test."""
    monkeypatch.setenv("STABILITYKIT_PLUGIN_TIMEOUT", "0.4")

    def make(*entry_points: str) -> Path:
        site = install(tmp_path / "site", *entry_points)
        monkeypatch.syspath_prepend(str(site))
        return site

    yield make
    import sys

    for name in [n for n, m in sys.modules.items() if str(tmp_path) in str(getattr(m, "__file__", ""))]:
        del sys.modules[name]


@pytest.fixture
def cli(capsys):
    """``cli(...)`` runs the command line in this process -> (exit code, stdout, stderr); no traceback is tolerated."""

    def call(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err and "internal error" not in err, err
        return code, out, err

    return call
