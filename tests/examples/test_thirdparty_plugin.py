"""A stranger's package, installed into a fresh environment, is found by the loader that finds our own plugins."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "thirdparty-plugin"


class Environment:
    """A fresh virtual environment that also sees the packages of the one running the tests (torch is large)."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        purelib = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
        # addsitedir, not a plain path: the .pth files in there (editable installs) count too.
        lines = [f"import site; site.addsitedir({path!r})" for path in sorted(seen) if Path(path).is_dir()]
        (Path(purelib) / "parent.pth").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return subprocess.run(
            [str(self.bin / "python"), *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            check=False,
            env=environment,
        )

    def install(self, project: Path) -> None:
        done = self.run("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", str(project))
        assert done.returncode == 0, done.stderr

    def listed(self, what: str) -> list[dict]:
        done = self.run("-m", "stabilitykit", what, "list", "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    """The fresh environment with the example installed."""
    pytest.importorskip("hatchling", reason="building the example needs hatchling (pip install stabilitykit[test])")
    pytest.importorskip("pip", reason="installing the example needs pip")
    probe = subprocess.run(
        [sys.executable, "-c", "import stabilitykit"],
        cwd="/",
        capture_output=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    if probe.returncode:
        pytest.skip("stabilitykit itself is not installed here: pip install -e .")
    made = Environment(tmp_path_factory.mktemp("fresh") / "venv")
    before = made.listed("properties")
    assert "lyapunov" not in [p["name"] for p in before]
    # A copy: building leaves traces in the source folder.
    source = tmp_path_factory.mktemp("source") / "thirdparty-plugin"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    made.install(source)
    return made


def test_the_same_loader_finds_it_beside_our_own(environment):
    found = {p["name"]: p for p in environment.listed("properties")}
    assert found["lyapunov"]["distribution"] == "stabilitykit-lyapunov"
    assert found["lyapunov"]["version"] == "0.1.0"
    assert found["expansivity"]["distribution"] == "stabilitykit"
    plugins = {p["name"]: p for p in environment.listed("plugins")}
    assert plugins["lyapunov"]["status"] == "loaded"
    assert plugins["lyapunov"]["provides"] == ["property lyapunov"]


def test_the_installed_files_are_used_and_listing_them_imports_no_torch(environment, tmp_path):
    code = "import stabilitykit_lyapunov as p, sys; print(p.__file__); print('torch' in sys.modules)"
    done = environment.run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file, heavy = done.stdout.splitlines()
    assert Path(file).is_relative_to(environment.bin.parent)
    assert heavy == "False"


@pytest.mark.slow
def test_the_installed_plugin_keeps_the_contract(environment, tmp_path):
    done = environment.run("-m", "stabilitykit", "plugins", "check", "lyapunov", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_it_measures_the_embedded_model(environment, tmp_path):
    done = environment.run(
        "-m",
        "stabilitykit",
        "evaluate",
        "--property",
        "lyapunov:images=2,iterations=5",
        "--limit",
        "20",
        "--output",
        str(tmp_path / "run"),
        "--format",
        "json",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "exponent.max" in done.stdout


@pytest.mark.slow
def test_its_own_tests_pass_against_the_installed_package(environment, tmp_path):
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["property", "model", "dataset", "command", "section"])
def test_a_new_package_installs_is_found_and_keeps_the_contract(environment, tmp_path, kind):
    done = environment.run("-m", "stabilitykit", "new", kind, f"new_{kind}", "--directory", str(tmp_path))
    assert done.returncode == 0, done.stderr
    environment.install(tmp_path / f"stabilitykit-new-{kind}")
    plugins = {p["name"]: p for p in environment.listed("plugins")}
    assert plugins[f"new_{kind}"]["status"] == "loaded" and len(plugins[f"new_{kind}"]["provides"]) == 1
    checked = environment.run("-m", "stabilitykit", "plugins", "check", f"new_{kind}", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_exporters_hear_of_a_run_after_pip_install_alone(environment, tmp_path, monkeypatch):
    names = ["jsonlines"]
    if importlib.util.find_spec("mlflow") is not None:
        names.append("mlflow")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in names:
        source = tmp_path / name
        shutil.copytree(REPOSITORY / "examples" / f"{name}-exporter", source)
        environment.install(source)
    monkeypatch.setenv("STABILITYKIT_JSONLINES", str(tmp_path / "all.jsonl"))
    words = ["evaluate", "--limit", "20", "-q", "--report", "--output", "run", "--format", "json"]
    done = environment.run("-m", "stabilitykit", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["cells"][0]["result"]["measurements"]
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [(row["name"], row["value"]) for row in rows] == [(m["name"], m["value"]) for m in measured]
    if "mlflow" in names:
        assert "warning: plugin mlflow" not in done.stderr, done.stderr
        assert list((tmp_path / "mlruns").rglob("report.html")), done.stderr
