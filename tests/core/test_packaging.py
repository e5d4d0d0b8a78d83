"""What is shipped: the wheel holds all that runs need and no more; what is heavy is imported when it is used."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Needed for one property, one format or one export each.
LATE = {"cvxpy", "clarabel", "scs", "pandas", "pyarrow", "jsonschema"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    from hatchling.builders.wheel import WheelBuilder

    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return zipfile.ZipFile(path)


def shipped() -> set[str]:
    """Files below stabilitykit and plugins, as the wheel names them."""
    found = set()
    for top in (ROOT / "stabilitykit", ROOT / "plugins"):
        for path in top.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found.add(str(path.relative_to(ROOT if top.name == "stabilitykit" else top)))
    return found


def test_the_wheel_holds_all_that_runs_need_and_no_more(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == shipped()
    assert {"stabilitykit/py.typed", "stabilitykit/runs/schemas/cell.schema.json"} <= names
    assert any(name.endswith(".safetensors") for name in names) and any(name.endswith(".tmpl") for name in names)
    assert any(name.startswith("stabilitykit/reporting/templates/") for name in names)
    assert not any("test_" in name.rpartition("/")[2] for name in names if not name.endswith(".tmpl"))


def test_the_wheel_registers_every_plugin(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(name).decode()
    plugins = {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}
    assert set(PROJECT["project"]["entry-points"]["stabilitykit"].values()) == plugins
    for plugin in plugins:
        assert f"= {plugin}\n" in text + "\n" and f"{plugin}/__init__.py" in wheel.namelist()
    assert "stabilitykit = stabilitykit.__main__:main" in text


def test_the_wheel_says_what_it_needs(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    data = Parser().parsestr(wheel.read(name).decode())
    needed = {line for line in data.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert len(needed) == len(PROJECT["project"]["dependencies"])
    assert not any(line.startswith(("pytest", "jsonschema", "hypothesis")) for line in needed)
    assert data["Requires-Python"] == ">=3.11" and data["License-Expression"] == "MIT"


def test_the_sdist_builds_the_same_wheel(wheel, tmp_path):
    """What is in the sdist suffices: the wheel built from it holds the same bytes."""
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path / "dist"), versions=["standard"])
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "src", filter="data")
    (folder,) = (tmp_path / "src").iterdir()
    assert (folder / "tests" / "core" / "test_packaging.py").is_file() and (folder / "CHANGELOG.md").is_file()
    (again,) = WheelBuilder(str(folder)).build(directory=str(tmp_path / "again"), versions=["standard"])
    with zipfile.ZipFile(again) as other:
        assert {i.filename: i.CRC for i in other.infolist()} == {i.filename: i.CRC for i in wheel.infolist()}


def test_what_is_heavy_is_imported_when_it_is_used(tmp_path):
    """A whole evaluation of the default property, and the package itself."""
    code = (
        "import sys, stabilitykit\nfrom stabilitykit.cli import run\n"
        f"words = ['evaluate', '--quiet', '--no-cache', '--limit', '20', '--output', {str(tmp_path / 'run')!r}]\n"
        f"code = run(words)\nheavy = {LATE!r} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
