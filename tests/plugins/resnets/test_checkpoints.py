"""Weights into revised ResNets, and the embedded pretrained one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stabilitykit_resnets.model import DIGITS_WEIGHTS, build

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.plugins.registry import Registry
from stabilitykit.training.checkpoints import load_weights, save_weights
from stabilitykit.training.metrics import classification_metrics, predict

SMALL = {"width": 8, "depths": (1, 1, 1, 1)}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, object]:
    model = build("resnet18", **SMALL, seed=7)
    path = tmp_path / "small.safetensors"
    save_weights(path, model.module.state_dict(), {"model": dict(model.describe())})
    return path, model


def test_round_trip(saved) -> None:
    path, model = saved
    again = build("resnet18", **SMALL, checkpoint=str(path))
    assert again.fingerprint() == model.fingerprint()
    assert again.describe()["checkpoint"]["file"] == "small.safetensors"


def test_plain_state_dict_with_prefix(saved, tmp_path: Path) -> None:
    _, model = saved
    state = {f"module.{name}": tensor for name, tensor in model.module.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    assert build("resnet18", **SMALL, checkpoint=str(tmp_path / "a.pth")).fingerprint() == model.fingerprint()


def test_options_of_the_checkpoint_are_named(saved) -> None:
    path, _ = saved
    with pytest.raises(UsageProblem, match="use resnet18:width=8,depths=1-1-1-1,checkpoint="):
        build("resnet18", depths=(2, 2, 2, 2), checkpoint=str(path))
    with pytest.raises(UsageProblem, match="not trained as resnet18 with final_relu=false"):
        build("resnet18", **SMALL, final_relu=False, checkpoint=str(path))  # no tensor's shape would tell


def test_shapes_that_do_not_fit_are_listed(saved, tmp_path: Path) -> None:
    _, model = saved
    save_weights(tmp_path / "bare.safetensors", model.module.state_dict(), {})
    with pytest.raises(UsageProblem, match=r"mis-shaped: stem.conv.weight \(checkpoint 8x3x7x7, model 12x3x7x7\)"):
        build("resnet18", width=12, depths=(1, 1, 1, 1), checkpoint=str(tmp_path / "bare.safetensors"))
    with pytest.raises(UsageProblem, match="missing: blocks"):
        build("resnet18", width=8, depths=(2, 1, 1, 1), checkpoint=str(tmp_path / "bare.safetensors"))


def test_nan_weights(saved, tmp_path: Path) -> None:
    _, model = saved
    state = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    state["head.1.weight"][0, 0] = float("nan")
    save_weights(tmp_path / "nan.safetensors", state, {})
    with pytest.raises(DataProblem, match=r"head\.1\.weight"):
        build("resnet18", **SMALL, checkpoint=str(tmp_path / "nan.safetensors"))


def test_embedded_model_keeps_its_stated_accuracy() -> None:
    registry = Registry.load()
    model, data = registry.create("model", "resnet18-digits"), registry.create("dataset", "digits")
    metrics = classification_metrics(*predict(model, data, np.arange(len(data))))
    _, metadata = load_weights(DIGITS_WEIGHTS)
    assert metrics["accuracy"] == pytest.approx(metadata["history"][-1]["validation_accuracy"], abs=0.004)
    assert metrics["accuracy"] > 0.95
    assert DIGITS_WEIGHTS.stat().st_size < 1_000_000
    train = registry.create("dataset", "digits:train")
    assert metadata["dataset"]["fingerprint"] == train.fingerprint()
