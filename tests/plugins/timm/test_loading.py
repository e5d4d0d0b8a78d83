"""Names, checkpoints and images that do not fit end in one clear line; what fits is loaded exactly."""

import os
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from stabilitykit_adapters.choosing import choose_run
from stabilitykit_adapters.modules import build_module, module_model
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_timm.models import network, timm_model
from stabilitykit_timm.names import input_shape_of, skeleton, split_spec
from stabilitykit_timm.preprocess import timm_preprocess
from stabilitykit_timm.weights import classes_in

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.training.checkpoints import load_into, read_checkpoint

SMALL = "resnet18"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("timm:resnet50", ("timm", "resnet50")),
        ("resnet50", ("timm", "resnet50")),
        ("hf-hub:timm/x", ("timm", "hf-hub:timm/x")),
        ("torchvision:vgg11", ("torchvision", "vgg11")),
    ],
)
def test_specs(spec, parts):
    assert split_spec(spec) == parts


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet5", "did you mean resnet50"),
        ("torchvision:resnet5O", "did you mean resnet50"),
        ("hf-hub:timm/resnet18.a1_in1k", "--download"),
        ("unknown:thing", "expected timm:NAME"),
    ],
)
def test_bad_names(spec, message):
    with pytest.raises(UsageProblem, match=message):
        skeleton(spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json", "BUILDER"),
        ("no_such_package_here:f", "cannot import"),
        ("json:nothing", "has no nothing"),
        ("json:dumps", "cannot be built"),
        ("os:sep", "is a str"),
    ],
)
def test_bad_builders(name, message):
    with pytest.raises(UsageProblem, match=message):
        build_module(name, {})


def test_missing_packages_are_named(monkeypatch):
    def broken(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'exotic'", name="exotic")

    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(UsageProblem, match="pip install exotic"):
        skeleton("timm:resnet18", device="cpu")


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(1)
    return timm.create_model(SMALL, num_classes=7).state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_loads_exactly(weights, prefix, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    state = {prefix + name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    assert classes_in(read_checkpoint(path), skeleton(f"timm:{SMALL}")) == 7
    module = timm.create_model(SMALL, num_classes=7)
    load_into(module, path, "timm:x")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


def test_several_sets_of_weights_are_not_guessed(weights, tmp_path):
    both = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in weights.items()}
    torch.save({"weights_of": both, "epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(UsageProblem, match=r"2 sets of weights that fit: weights_of.student, weights_of.teacher"):
        load_into(timm.create_model(SMALL, num_classes=7), tmp_path / "net.pth", "timm:x")


def test_the_model_takes_the_checkpoints_classes(weights, tmp_path):
    save_file(weights, tmp_path / "net.safetensors")
    model = timm_model(SMALL, checkpoint=str(tmp_path / "net.safetensors"))
    assert model.num_classes == 7 and model.describe()["weights"] == {"file": "net.safetensors"}
    torch.testing.assert_close(model.module.fc.weight, weights["fc.weight"], rtol=0, atol=0)


def test_names_what_does_not_fit(weights, tmp_path):
    state = {name: tensor for name, tensor in weights.items() if name != "layer2.0.conv1.weight"}
    state["extra.weight"] = torch.zeros(1)
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(UsageProblem, match=r"missing: layer2\.0\.conv1\.weight.*unused: extra\.weight"):
        timm_model(SMALL, checkpoint=str(tmp_path / "net.safetensors"))


class Payload:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_pickles_with_code_are_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"w": torch.zeros(1)}, "extra": Payload()}, tmp_path / "net.pth")
    with pytest.raises(UsageProblem, match="system"):
        timm_model(SMALL, checkpoint=str(tmp_path / "net.pth"))
    assert not (tmp_path / "pwned").exists()


def test_untrained_weights_follow_the_seed():
    one, two, other = (network(f"timm:{SMALL}", num_classes=3, seed=seed)[0].fc.weight for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_no_run_gives_every_reason():
    with pytest.raises(CellProblem, match=r"no closed run.*Candidates: .*channels appended"):
        timm_model("densenet121", mode="closed", num_classes=2)
    with pytest.raises(CellProblem, match="add --mode plain"):
        timm_model("vgg11", mode="closed", num_classes=2)


def test_choosing_a_run():
    from stabilitykit_adapters.discovery import discover

    found = discover(skeleton("timm:resnet50"), (3, 224, 224))
    assert choose_run(found, "longest", None, "x").name == "layer3"
    assert choose_run(found, "cheapest", None, "x").name == "layer4"
    assert choose_run(found, "layer2", "closed", "x").depth == 3
    with pytest.raises(UsageProblem, match=r"did you mean layer3"):
        choose_run(found, "layer33", None, "x")


def test_timm_preprocessing_is_timms():
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    module = skeleton("timm:resnet18")
    preprocess, described = timm_preprocess(module)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    ours = preprocess([pixels.transpose(2, 0, 1).astype(np.float32) / 255])
    config = resolve_model_data_config(module)
    theirs = create_transform(**config, is_training=False)(Image.fromarray(pixels))
    assert torch.equal(ours[0], theirs)
    assert described["mean"] == list(config["mean"]) and described["crop_pct"] == config["crop_pct"]
    grey = preprocess([np.zeros((1, 28, 28), np.float32)])
    assert grey.shape == (1, 3, 224, 224)


def test_plain_preprocessing():
    image = np.full((3, 4, 4), 0.5, np.float32)
    preprocess, described = plain_preprocess((3, 4, 4), Pixels("0.5 0.25 0/1 0.5 2"), False, "net")
    out = preprocess([image, image])
    assert out.shape == (2, 3, 4, 4) and out[0, :, 0, 0].tolist() == [0.0, 0.5, 0.25]
    assert described["std"] == [1.0, 0.5, 2.0]
    with pytest.raises(CellProblem, match=r"takes inputs of 3x4x4, got 3x5x5; set input=3x5x5"):
        preprocess([np.zeros((3, 5, 5), np.float32)])
    with pytest.raises(CellProblem, match="channels=keep"):
        plain_preprocess((4, 4), Pixels(), False, "net")[0]([image])
    for shape in ((16,), (4, 4)):
        flat = plain_preprocess(shape, Pixels(), False, "net")[0]([image[:1]])
        assert flat.shape == (1, *shape) and torch.equal(flat.flatten(), torch.full((16,), 0.5))
    resized, _ = plain_preprocess((3, 4, 4), Pixels(), True, "net")
    assert resized([np.zeros((3, 9, 7), np.float32)]).shape == (1, 3, 4, 4)
    for bad in ("imagnet", "0.5/0", "1 2/1", "/"):
        with pytest.raises(UsageProblem, match="normalise"):
            plain_preprocess((3, 4, 4), Pixels(bad), False, "net")


def test_modules_of_users(tmp_path, monkeypatch):
    (tmp_path / "their_net.py").write_text(
        "from torch import nn\n"
        "class Block(nn.Module):\n"
        "    def __init__(self):\n        super().__init__(); self.f = nn.Conv2d(4, 4, 3, padding=1)\n"
        "    def forward(self, x):\n        return x + self.f(x)\n"
        "def build(num_classes=10):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), Block(), Block(), nn.Flatten(), nn.Linear(400, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    model = module_model("their_net:build", input=(3, 12, 12), num_classes=6)
    assert model.num_blocks == 2 and model.num_classes == 6
    assert str(tmp_path) not in sys.path
    with pytest.raises(CellProblem, match="give its input size as input=CxHxW"):
        module_model("their_net:build")
    picked = module_model("their_net:build", input=(3, 12, 12), classes=(7, 2))
    assert picked.num_classes == 2
    with pytest.raises(UsageProblem, match=r"0\.\.9"):
        module_model("their_net:build", input=(3, 12, 12), classes=(7, 10))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('no weights')", "the builder raised RuntimeError: no weights"),
        ("raise SystemExit(3)", "the builder raised SystemExit: 3"),
        ("return None", "made a NoneType"),
    ],
)
def test_builders_of_users_that_fail(body, message, tmp_path, monkeypatch):
    name = f"failing_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def build():\n    {body}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageProblem, match=message):
        module_model(f"{name}:build")


def test_another_image_size():
    for name, blocks in (("vit_tiny_patch16_224", (5, 192)), ("resnet18", (64, 8, 8))):
        model = timm_model(name, num_classes=2, img_size=32, run="longest")
        assert model.preprocess([np.zeros((3, 50, 40), np.float32)]).shape == (1, 3, 32, 32)
        assert model.state_shape == blocks


def test_input_shapes():
    assert input_shape_of(skeleton("timm:efficientnet_b1")) == (3, 240, 240)
    assert input_shape_of(skeleton("torchvision:inception_v3")) == (3, 299, 299)
    net = torch.nn.Linear(2, 2)
    net.input_size = (1, 28, 28)
    assert input_shape_of(net) == (1, 28, 28)
