"""``stabilitykit train`` from the outside: output, refusals, and kill -9 in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stabilitykit.cli import run
from stabilitykit.training.checkpoints import load_weights

SMALL = [
    "train",
    "resnet18:width=4,depths=1-1-1-1",
    "-d",
    "digits:train",
    "--validation",
    "digits:test",
    "--limit",
    "300",
    "--batch-size",
    "50",
    "--lr",
    "1e-2",
    "--device",
    "cpu",
]


def test_json_checkpoint_and_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "a.safetensors"
    assert run([*SMALL, "--epochs", "3", "-o", str(output), "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["metrics"]) == {"n", "precision", "recall", "f1", "accuracy", "loss"}
    assert result["metrics"]["n"] == 597 and result["metrics"]["accuracy"] > 0.15
    last = result["history"][-1]
    assert last["validation_accuracy"] == pytest.approx(result["metrics"]["accuracy"])
    _, metadata = load_weights(output)
    assert metadata["dataset"]["images"] == 300 and "torch" in metadata["versions"]
    again = f"resnet18:width=4,depths=1-1-1-1,checkpoint={output}"
    assert (
        run(
            [
                "evaluate",
                "-m",
                again,
                "-d",
                "digits",
                "--limit",
                "60",
                "-q",
                "-o",
                str(tmp_path / "run"),
                "--format",
                "json",
            ]
        )
        == 0
    )
    assert str(output) not in json.loads(capsys.readouterr().out)["cells"][0].get("error", "")


def test_table_names_what_it_is_measured_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = [a for a in SMALL if a not in ("--validation", "digits:test")]
    assert run([*arguments, "--epochs", "1", "-o", str(tmp_path / "a.safetensors")]) == 0
    shown = capsys.readouterr()
    assert "on the training images" in shown.out and "F1" in shown.out
    assert "epoch 1/1: loss" in shown.err


def test_number_of_classes_follows_the_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", X=rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), y=np.arange(40) % 4)
    output = tmp_path / "a.safetensors"
    assert (
        run(
            [
                "train",
                "resnet18:width=4,depths=1-1-1-1",
                "-d",
                f"npz:{tmp_path / 'a.npz'}",
                "--epochs",
                "1",
                "--device",
                "cpu",
                "-q",
                "-o",
                str(output),
            ]
        )
        == 0
    )
    state, metadata = load_weights(output)
    assert metadata["model"]["options"]["num_classes"] == 4 and state["head.1.weight"].shape[0] == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["-d", "digit:train"], "did you mean digits"),
        (["-o", "a.pth"], ".safetensors"),
        (["--device", "cuda:7"], "device"),
        (["--patience", "2"], "--hold-out or --validation"),
        (["-d", "npz:nowhere.npz"], "nowhere.npz"),
        (["-o", "{tmp}/file/a.safetensors"], "cannot"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, change: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    change = [part.format(tmp=tmp_path) for part in change]
    arguments = [
        "train",
        "resnet18:width=4,depths=1-1-1-1",
        "-d",
        "digits:train",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "-o",
        "a.safetensors",
    ]
    assert run([*arguments, *change]) in (1, 2)
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning:")]
    assert len(error) == 1 and words in error[0]
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.pt"))


def test_nothing_is_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "a.safetensors"
    output.write_bytes(b"precious")
    assert run([*SMALL, "-o", str(output)]) == 2
    assert run([*SMALL, "-o", str(output), "--resume"]) == 2
    assert "is missing" in capsys.readouterr().err and output.read_bytes() == b"precious"


def test_kept_epochs_stand_beside_the_output_and_are_not_overwritten(tmp_path: Path, capsys) -> None:
    output, command = tmp_path / "a.safetensors", [*SMALL, "--epochs", "2", "-q", "--keep-epochs", "1, 2"]
    assert run([*command, "-o", str(output)]) == 0
    assert load_weights(tmp_path / "a.epoch-1.safetensors")[1]["epoch"] == 1
    kept = (tmp_path / "a.epoch-2.safetensors").read_bytes()
    assert kept == output.read_bytes()
    (tmp_path / "a.state.pt").unlink()
    output.unlink()
    assert run([*command, "-o", str(output)]) == 2 and "a.epoch-1.safetensors exists" in capsys.readouterr().err
    assert run([*SMALL, "-o", str(output), "--keep-epochs", "0,x"]) == 2
    assert "--keep-epochs takes numbers from 1" in capsys.readouterr().err


def test_kill_9_and_resume_give_the_same_file(tmp_path: Path) -> None:
    def command(output: Path) -> list[str]:
        return [sys.executable, "-m", "stabilitykit", *SMALL, "--epochs", "8", "-q", "--resume", "-o", str(output)]

    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    straight, broken = tmp_path / "straight.safetensors", tmp_path / "broken.safetensors"
    assert run(command(straight)[3:]) == 0
    process = subprocess.Popen(command(broken), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not broken.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    _, metadata = load_weights(broken)  # whole, whatever the moment
    assert 1 <= metadata["epoch"] < 8
    assert run(command(broken)[3:]) == 0
    assert broken.read_bytes() == straight.read_bytes()


def test_a_recipe_is_recorded_and_held_out_images_choose_the_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "a.safetensors"
    arguments = [a for a in SMALL if a not in ("--validation", "digits:test", "--lr", "1e-2")]
    chosen = ["--recipe", "augmented", "--augment", "crop", "--average", "0.5", "--hold-out", "60", "--patience", "2"]
    line = [*arguments, *chosen, "--test", "digits:test", "--epochs", "2", "-o", str(output), "--format", "json"]
    assert run(line) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert "images/s" in shown.err and "left" in shown.err
    assert result["evaluated_on"] == "digits:test" and result["metrics"]["n"] == 597
    _, metadata = load_weights(output)
    recipe = metadata["recipe"]
    assert recipe["augment"] == ["crop"] and recipe["schedule"] == "onecycle" and recipe["amp"] == "bfloat16"
    assert recipe["lr"] == 1e-3 and recipe["limit"] == 300 and recipe["hold_out"] == 60
    assert metadata["dataset"]["images"] == 240
    losses = [epoch["validation_loss"] for epoch in result["history"]]
    assert result["kept_epoch"] == int(np.argmin(losses)) + 1
    assert run([*line, "--validation", "digits:test"]) == 2
    assert "--hold-out and --validation" in capsys.readouterr().err
