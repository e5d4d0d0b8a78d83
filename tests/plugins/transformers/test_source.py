"""``transformers:FOLDER``: weights, image processor and class names of a folder that save_pretrained wrote."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from stabilitykit import UsageProblem

transformers = pytest.importorskip("transformers")
from stabilitykit_transformers.source import class_names, transformers_model  # noqa: E402

PICTURES = [np.random.default_rng(n).integers(0, 256, (3, 20, 24)).astype(np.float32) / 255 for n in range(2)]


@pytest.fixture(scope="module")
def network():
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8,
        num_labels=3, id2label={0: "cat", 1: "dog", 2: "owl"},
    )  # fmt: skip
    return transformers.ViTForImageClassification(config).eval()


@pytest.fixture
def folder(tmp_path, network):
    network.save_pretrained(tmp_path)
    size = {"height": 16, "width": 16}
    transformers.ViTImageProcessor(size=size, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(tmp_path)
    return tmp_path


def _reason(folder, **options):
    with pytest.raises(UsageProblem) as caught:
        transformers_model(str(folder), **options)
    return str(caught.value)


def test_weights_processor_and_names_are_the_folders(folder, network):
    model = transformers_model(str(folder))
    own = transformers.AutoImageProcessor.from_pretrained(folder)
    pictures = [np.rint(image * 255).astype(np.uint8) for image in PICTURES]
    inputs = own(pictures, input_data_format="channels_first", return_tensors="pt")["pixel_values"]
    assert torch.equal(model.preprocess(PICTURES), inputs) and inputs.shape == (2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.logits(inputs), network(inputs).logits)
    assert list(model.class_names) == ["cat", "dog", "owl"] and list(model.steps) == ["residual"] * 2
    assert model.preprocessing["image_mean"] == [0.4] * 3 and "ImageProcessor" in model.preprocessing["by"]
    assert transformers_model.outline(str(folder))[1] == (3, 16, 16)


def test_what_a_user_says_stands_in_for_the_processors_numbers(folder):
    plain = transformers_model(str(folder), normalise="none")
    scaled = transformers_model(str(folder), mean="0.5", std="0.5")
    torch.testing.assert_close(scaled.preprocess(PICTURES), (plain.preprocess(PICTURES) - 0.5) / 0.5)
    assert "crop_pct is not taken" in _reason(folder, crop_pct=0.9)


def test_a_folder_without_a_processor_says_so(folder):
    (folder / "preprocessor_config.json").unlink()
    assert any("no preprocessor_config.json" in text for text in transformers_model(str(folder)).record["warnings"])


def test_pickled_weights_are_not_read(folder, network):
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    assert "only pickled weights (pytorch_model.bin)" in _reason(folder)


def test_weights_that_do_not_fill_the_network_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "its weights lack" in _reason(folder)


def test_code_of_a_folder_is_never_run(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}})
    )
    (folder / "own.py").write_text("raise SystemExit('was run')")
    assert "cannot be loaded" in _reason(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "bert"}'])
def test_damaged_configurations(folder, text):
    (folder / "config.json").write_text(text)
    assert "cannot be loaded" in _reason(folder)


def test_places_that_are_no_folder(tmp_path):
    assert "fetched with --download only" in _reason("google/vit-base-patch16-224")
    assert "has no config.json" in _reason(tmp_path)


def test_names_that_only_count_are_none():
    config = transformers.ViTConfig(num_labels=4)
    assert class_names(config) is None


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'stabilitykit[transformers]'" in _reason(tmp_path)
