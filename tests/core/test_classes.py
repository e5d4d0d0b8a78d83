"""The classes of weights and data are compared by name, else by number; nothing goes on by position alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stabilitykit.cli import run
from stabilitykit.training.checkpoints import load_weights

SMALL = "resnet18:width=4,depths=1-1-1-1"


def photos(root: Path, names: list[str]) -> str:
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return f"imagefolder:{root}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("classes")
    made = {
        "train": photos(root / "train", ["ant", "bee", "cat"]),
        "other": photos(root / "other", ["bee", "cat", "dog"]),
        "fewer": photos(root / "fewer", ["ant", "bee"]),
        "ten": photos(root / "ten", list("abcdefghij")),
        "weights": str(root / "w.safetensors"),
    }
    arguments = ["train", SMALL, "-d", made["train"], "--epochs", "1", "--batch-size", "9", "-q", "--device", "cpu"]
    assert run([*arguments, "--validation", made["train"], "-o", made["weights"]]) == 0
    return made


def evaluate(folder: Path, *arguments: str) -> int:
    return run(["evaluate", *arguments, "-q", "-p", "expansivity", "-o", str(folder / "run"), "--no-cache"])


def test_names_are_kept_with_the_weights(data: dict[str, str]) -> None:
    assert load_weights(data["weights"])[1]["class_names"] == ["ant", "bee", "cat"]


@pytest.mark.parametrize("validation", ["other", "fewer"])
def test_validation_of_other_classes(data, tmp_path: Path, capsys: pytest.CaptureFixture, validation: str) -> None:
    arguments = ["train", SMALL, "-d", data["train"], "--epochs", "1", "--batch-size", "9", "-q", "--device", "cpu"]
    arguments += ["--validation", data[validation], "-o", str(tmp_path / "w.safetensors")]
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert "ant, bee" in said and "--any-classes" in said and not (tmp_path / "w.safetensors").exists()
    assert run([*arguments, "--any-classes"]) == (0 if validation == "other" else 2)
    if validation == "other":
        assert load_weights(tmp_path / "w.safetensors")[1]["any_classes"] is True


def test_evaluation_on_other_classes(data, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = ["-m", f"{SMALL},num_classes=3", "--checkpoint", data["weights"]]
    assert evaluate(tmp_path, *model, "-d", data["other"]) == 2
    assert "class 0 is 'ant' there, 'bee' here" in capsys.readouterr().err
    assert evaluate(tmp_path, *model, "-d", data["other"], "--any-classes") == 0
    assert "--any-classes was given" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["request"]["any_classes"] is True


def test_evaluation_on_the_same_classes_says_nothing(data, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = ["-m", f"{SMALL},num_classes=3", "--checkpoint", data["weights"]]
    assert evaluate(tmp_path, *model, "-d", data["train"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_embedded_net_measures_no_photos(data, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert evaluate(tmp_path, "-d", data["ten"]) == 2
    assert "the model was trained on 0, 1, 2" in capsys.readouterr().err


def test_probes_are_trained_on_the_same_classes(data, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    probe = ["-m", f"{SMALL},num_classes=3", "-d", data["train"], "--readout", "probe", "--probe-epochs", "1"]
    assert evaluate(tmp_path, *probe, "--probe-dataset", data["other"]) == 2
    assert "probe dataset" in capsys.readouterr().err
    assert evaluate(tmp_path, *probe, "--probe-dataset", data["other"], "--any-classes") == 0


def test_numbers_of_labels_are_matched_with_outputs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Labels 1..10 or 2, 5, 7 on a network whose outputs have numbers, not names."""
    from stabilitykit_vision.npz import npz

    from stabilitykit.dynamics.classes import class_problem

    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "one.npz", X=pixels, y=np.arange(30) % 10 + 1)
    np.savez(tmp_path / "few.npz", X=pixels, y=np.array([7, 2, 5])[np.arange(30) % 3])
    one, few = npz(str(tmp_path / "one.npz")), npz(str(tmp_path / "few.npz"))

    def said(data, outputs: int, ids: list[int] | None = None, untrained: bool = False) -> str:
        return class_problem(_Outputs(outputs, ids), data, untrained=untrained)  # type: ignore[arg-type]

    assert "labels_from=1" in said(one, 10) and not said(one, 10, untrained=True)
    assert not said(npz(str(tmp_path / "one.npz"), labels_from=1), 10)
    assert "--classes 2-5-7" in said(few, 10) and "num_classes=10" in said(few, 10)
    assert not said(few, 3, [2, 5, 7]) and "in this order, as --classes 2-5-7" in said(few, 3, [5, 7, 2])
    assert not said(npz(str(tmp_path / "few.npz"), num_classes=10), 10)


class _Outputs:
    class_names = None

    def __init__(self, num_classes: int, class_ids: list[int] | None) -> None:
        self.num_classes, self.class_ids = num_classes, class_ids
