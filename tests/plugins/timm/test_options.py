"""timm's own options, hub folders, resampling, and preprocessing in place of the library's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_adapters.statistics import STATISTICS, numbers, statistics
from stabilitykit_timm.free_options import parsed
from stabilitykit_timm.models import timm_model, torchvision_model

from stabilitykit import UsageProblem
from stabilitykit.plugins.registry import Registry
from stabilitykit.reporting.html import short

VIT = "vit_tiny_patch16_224"
SMALL = {"depth": "2", "patch_size": "4"}


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    net = timm.create_model(VIT, img_size=32, patch_size=4, depth=2, num_classes=5)
    path = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file(net.state_dict(), path)
    return path


@pytest.mark.parametrize("text", [f"timm:{VIT}:depth=2,patch_size=4", f"timm:{VIT},depth=2,patch_size=4"])
def test_specs_take_timms_options(text: str) -> None:
    spec = Registry.load().resolve("model", text + ",img_size=32")
    assert spec.options["library_options"] == SMALL and spec.options["img_size"] == 32
    assert Registry.load().resolve("model", spec.label).options == spec.options


def test_weights_as_they_are_with_the_options_they_were_made_with(vit: Path) -> None:
    model = timm_model(VIT, checkpoint=str(vit), img_size=32, library_options=SMALL)
    assert model.num_blocks == 2 and model.num_classes == 5 and model.state_shape == (65, 192)
    assert model.describe()["library_options"] == {"depth": 2, "patch_size": 4}
    assert "resampled" not in model.describe()["weights"]


def test_resampling_is_refused_unless_asked_for(vit: Path) -> None:
    with pytest.raises(UsageProblem, match=r"2 to be resampled: .*4x4 -> 192x3x16x16.*pos_embed.*--resample"):
        timm_model(VIT, checkpoint=str(vit), img_size=32, library_options={"depth": "2"})
    model = timm_model(VIT, checkpoint=str(vit), img_size=32, resample=True, library_options={"depth": "2"})
    assert len(model.describe()["weights"]["resampled"]) == 2
    assert any("resampled" in text for text in model.describe()["warnings"])


def test_a_format_that_timm_only_renames(tmp_path: Path) -> None:
    """The names of ConvNeXt's authors, which timm converts."""
    torch.manual_seed(0)
    net = timm.create_model("convnext_atto", num_classes=3, depths=(1, 1, 2, 1), dims=(8, 16, 32, 64))
    renamed = {"head.norm.": "norm.", "head.fc.": "head.", "stem.": "downsample_layers.0.", "conv_dw": "dwconv"}
    renamed |= {"mlp.fc1": "pwconv1", "mlp.fc2": "pwconv2", ".blocks.": "."}
    renamed |= {f"stages.{i}.downsample.": f"downsample_layers.{i}." for i in range(4)}
    state = {}
    for name, tensor in net.state_dict().items():
        for ours, theirs in renamed.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    torch.save({"model": state}, tmp_path / "original.pth")
    options = {"depths": "1-1-2-1", "dims": "8-16-32-64"}
    model = timm_model(
        "convnext_atto", checkpoint=str(tmp_path / "original.pth"), num_classes=3, library_options=options
    )
    found = model.module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in net.state_dict().items())
    assert model.describe()["weights"]["converted"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pach_size": "4"}, r"no option 'pach_size' \(did you mean patch_size"),
        ({"zzz": "1"}, "no option 'zzz'; it takes img_size, patch_size"),
        ({"checkpoint_path": "x.pth"}, "checkpoint_path is no option of a network"),
        ({"features_only": "true"}, "features_only is no option of a network"),
        ({"pretrained": "true"}, "pretrained is no option of a network"),
        ({"depth": "many"}, "cannot be built with these options"),
    ],
)
def test_options_that_are_none(options: dict, message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        timm_model(VIT, num_classes=2, img_size=32, library_options=options)
    with pytest.raises(UsageProblem, match="no option 'zzz'"):
        torchvision_model("resnet18", num_classes=2, library_options={"zzz": "1"})


def test_texts_become_values() -> None:
    given = {"a": "4", "b": "0.1", "c": "true", "d": "none", "e": "2-2-6-2", "f": "(2, 2)", "g": "avg", "h": 3}
    found = {"a": 4, "b": 0.1, "c": True, "d": None, "e": (2, 2, 6, 2), "f": (2, 2), "g": "avg", "h": 3}
    assert parsed(given, "timm:x") == found


# Hub folders


def hub(folder: Path, **config) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model("resnet18", num_classes=6).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_hub_folder_says_how_its_network_is_used(tmp_path: Path) -> None:
    statistics = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}
    config = {**statistics, "input_size": [3, 64, 64], "crop_pct": 1.0, "interpolation": "bilinear"}
    folder = hub(tmp_path, architecture="resnet18", num_classes=6, pretrained_cfg=config)
    for path in (folder, folder / "model.safetensors"):
        model = timm_model("resnet18", checkpoint=str(path))
        described = model.preprocessing
        assert model.num_classes == 6 and described["input_size"] == [3, 64, 64] and described["crop_pct"] == 1.0
        assert described["mean"] == config["mean"] and described["std"] == config["std"]
    with pytest.raises(UsageProblem, match=r"of another architecture: use timm:resnet18"):
        timm_model("resnet34", checkpoint=str(folder))
    assert timm_model("resnet18", checkpoint=str(folder), mean="0.4").preprocessing["mean"] == [0.4] * 3


@pytest.mark.parametrize("config", ["[" * 100_000, "{", "3"])
def test_configs_that_are_none(tmp_path: Path, config: str) -> None:
    folder = hub(tmp_path)
    (folder / "config.json").write_text(config)
    if config == "3":
        assert timm_model("resnet18", checkpoint=str(folder)).num_classes == 6
    else:
        with pytest.raises(UsageProblem, match=r"config\.json cannot be read as JSON"):
            timm_model("resnet18", checkpoint=str(folder))


def test_a_config_loads_no_pickle(tmp_path: Path) -> None:
    folder = hub(tmp_path, architecture="resnet18", num_classes=6, model_args={"checkpoint_path": "evil.pth"})
    with pytest.raises(UsageProblem, match="checkpoint_path is no option"):
        timm_model("resnet18", checkpoint=str(folder))


# Preprocessing


@pytest.mark.parametrize("source", [timm_model, torchvision_model])
def test_preprocessing_in_place_of_the_librarys(source) -> None:
    options = {
        "num_classes": 2,
        "size": 64,
        "crop_pct": 0.5,
        "interpolation": "nearest",
        "mean": "0.1 0.2",
        "std": "0.5 1 2",
    }
    with pytest.raises(UsageProblem, match="as many means"):
        source("resnet18", **options)
    model = source("resnet18", **{**options, "mean": "(0.1, 0.2, 0.3)"})
    image = np.full((3, 70, 90), 0.6, np.float32)
    found = model.preprocess([image])
    assert found.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(found[0, :, 5, 5], (0.6 - np.array([0.1, 0.2, 0.3])) / [0.5, 1, 2], atol=1e-6)
    text = json.dumps(dict(model.preprocessing))
    for words in ("nearest", "[0.1, 0.2, 0.3]", "[0.5, 1.0, 2.0]", "64"):
        assert words in text


def test_a_module_may_crop() -> None:
    image = np.zeros((3, 16, 16), np.float32)
    image[:, 4:12, 4:12] = 1.0
    cut, described = plain_preprocess((3, 8, 8), Pixels(crop_pct=0.5, interpolation="nearest"), True, "net")
    assert torch.equal(cut([image]), torch.ones(1, 3, 8, 8)) and described["crop_pct"] == 0.5
    whole = plain_preprocess((3, 8, 8), Pixels(interpolation="nearest"), True, "net")[0]([image])
    assert 0 < float(whole.mean()) < 1
    with pytest.raises(UsageProblem, match="resize=true"):
        plain_preprocess((3, 8, 8), Pixels(crop_pct=0.5), False, "net")


@pytest.mark.parametrize(
    "text",
    [
        "(0.49, 0.48, 0.44)/(0.2,0.19,0.2)",
        "0.49,0.48,0.44/0.2,0.19,0.2",
        "0.49 0.48 0.44/0.2 0.19 0.2",
        "[0.49, 0.48, 0.44]/[0.2, 0.19, 0.2]",
    ],
)
def test_statistics_as_people_write_them(text: str) -> None:
    assert statistics(text, None, None, "net") == ((0.49, 0.48, 0.44), (0.2, 0.19, 0.2))
    spec = Registry.load().resolve("model", f"module:a:b,normalise={text}")
    assert spec.options["normalise"] == text
    assert short(spec.label).endswith(f"normalise={text}"), "headings show the whole of it"


@pytest.mark.parametrize("text", ["0.5", "0.5/0", "1 2/1", "/", "imagnet", "0.5/x", "(0.5/0.5", "1,,2/3,4"])
def test_statistics_that_are_none(text: str) -> None:
    if text != "(0.5/0.5":  # a missing bracket is no reason to refuse
        with pytest.raises(UsageProblem):
            statistics(text, None, None, "net")


@pytest.mark.parametrize("text", ["imagnet", "0.5", "0.5/x"])
def test_slips_are_found_before_anything_is_built(text: str) -> None:
    for model in ("module:no_such_package:build", "timm:no_such_net"):
        with pytest.raises(UsageProblem, match="normalise expects none, imagenet"):
            Registry.load().resolve("model", f"{model},normalise={text}")


def test_parts_of_statistics() -> None:
    usual = STATISTICS["imagenet"]
    assert statistics(None, "0.1 0.2 0.3", None, "net", usual) == ((0.1, 0.2, 0.3), usual[1])
    assert statistics(None, "0.1 0.2 0.3", None, "net") == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert statistics(None, None, None, "net", usual) == usual and statistics("none", None, None, "net", usual) is None
    assert numbers("(1e-3, .5, 2.)", "mean", "net") == (0.001, 0.5, 2.0)


def test_revised_resnets_normalise_too() -> None:
    registry = Registry.load()
    model = registry.create("model", "resnet18:width=4,mean=0.1,0.2,0.3,std=0.5")
    image = np.full((3, 32, 32), 0.6, np.float32)
    np.testing.assert_allclose(model.preprocess([image])[0, :, 0, 0], [1.0, 0.8, 0.6], atol=1e-6)
    assert model.preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert model.fingerprint() != registry.create("model", "resnet18:width=4").fingerprint()
    with pytest.raises(UsageProblem, match="mean and std"):
        registry.create("model", "resnet18:width=4,mean=0.1,0.2")
