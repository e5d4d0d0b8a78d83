"""The command line as a newcomer meets it: two words give a number, mistakes give one line and an exit code."""

import json
import os
import subprocess
import sys
import time

import pytest

from stabilitykit.cli import COMMANDS, run
from tests import preloaded


def shell(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "stabilitykit", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["models", "list"],
        ["plugins", "list", "--format", "json"],
        ["properties", "list", "--format", "json"],
        ["datasets", "list"],
    ],
)
def test_help_and_lists_import_no_torch(arguments):
    code = (
        "import sys\nfrom stabilitykit.cli import run\n"
        f"code = run({arguments!r})\n"
        "heavy = {'torch', 'torchvision', 'timm', 'cvxpy', 'numba', 'scipy', 'sklearn', 'pandas'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_has_help(name, capsys):
    assert run([name, "--help"]) == 0
    assert len(capsys.readouterr().out) > 100


def test_lists_are_machine_readable(capsys):
    assert run(["properties", "list", "--format", "json"]) == 0
    names = {p["name"] for p in json.loads(capsys.readouterr().out)}
    assert {"expansivity", "shadowing", "lipschitz", "topological", "perturbation", "table2"} <= names
    assert run(["models", "show", "resnet18"]) == 0
    assert "grouping" in capsys.readouterr().out


def test_main_job(tmp_path):
    start = time.monotonic()
    done = shell("evaluate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "expansive_constant.min" in done.stdout and "exact on the sample" in done.stdout
    assert time.monotonic() - start < 120  # the promise is a minute; this machine may be busy
    [folder] = (tmp_path / "runs").iterdir()
    verdict = preloaded.run(["verify", folder], cwd=tmp_path)
    assert verdict.returncode == 0 and "stands" in verdict.stdout, verdict.stdout + verdict.stderr


def test_formats_and_config(tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("dataset: digits\nmodel: resnet18-digits\nproperties: [expansivity]\nlimit: 40\nspace: logits\n")
    common = ["evaluate", "-c", str(config), "-q", "--no-cache"]
    assert run([*common, "-o", str(tmp_path / "a"), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["request"]["space"] == "logits" and data["request"]["limit"] == 40
    assert run([*common, "-o", str(tmp_path / "b"), "--format", "csv", "--limit", "30"]) == 0
    assert ",30," in capsys.readouterr().out


BAD = [
    (["evaluate", "-p", "expansivty"], "did you mean expansivity"),
    (["evaluate", "-m", "resnet81"], "did you mean"),
    (["evaluate", "-d", "digitz"], "did you mean digits"),
    (["evaluate", "--device", "cuda:7"], "CUDA"),
    (["evaluate", "--limit", "1"], "limit"),
    (["evaluate", "--space", "pixels"], "space"),
    (["evaluate", "-c", "absent.yaml"], "absent.yaml"),
    (["evaluate", "--resume"], "--output"),
    (["evaluate", "-m", "resnet18", "--checkpoint", "absent.safetensors"], "absent.safetensors"),
    (["evaluate", "-d", "npz:absent.npz"], "absent.npz"),
    (["evaluate", "-d", "imagefolder:absent"], "absent"),
    (["evaluate", "-d", "mnist:root=absent"], "absent"),
    (["evalute"], "did you mean evaluate"),
    (["verify", "absent"], "absent"),
    (["models", "show", "zzz"], "unknown model"),
]


@pytest.mark.parametrize("arguments, message", BAD, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_mistakes_give_one_line_and_exit_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"]


def test_config_with_an_unknown_key(tmp_path, capsys):
    (tmp_path / "c.toml").write_text('modle = "resnet18"\n')
    assert run(["evaluate", "-c", str(tmp_path / "c.toml")]) == 2
    assert "unknown key" in capsys.readouterr().err


def test_interrupt_is_130(tmp_path):
    import signal

    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "stabilitykit",
            "evaluate",
            "-p",
            "shadowing",
            "-p",
            "perturbation",
            "-o",
            str(tmp_path / "run"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode in (130, 0), stderr
    assert "Traceback" not in stderr
