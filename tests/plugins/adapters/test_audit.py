"""`audit`, `convert` and the property `blocks`, as a user runs them."""

import json

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit.cli import run

NET = """
from torch import nn
from torch.nn import functional

class Block(nn.Module):
    def __init__(self, idle=False):
        super().__init__()
        self.f = nn.Conv2d(6, 6, 3, padding=1)
        if idle:
            nn.init.zeros_(self.f.weight)
            nn.init.zeros_(self.f.bias)
    def forward(self, x):
        return x + functional.relu(self.f(x))

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.blocks = nn.Sequential(Block(), Block(idle=True), Block())
        self.head = nn.Linear(6 * 64, num_classes)
    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).flatten(1))

class Hidden(Net):
    def forward(self, x):
        x = self.stem(x)
        return self.head((self.blocks(x) + x.detach().mean()).flatten(1))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "their_nets.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list_runs(capsys):
    assert run(["audit", "timm:resnet50", "--list-runs", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    course, first = listed["runs"][:2]
    assert (course["name"], course["T"], course["mode"]) == ("whole", 16, "whole") and course["cost_forwards"] <= 4
    assert course["blocks"][3:5] == ["layer2.0", "layer2.1"] and course["steps"][3:5] == ["transition", "residual"]
    assert course["certifiable_depths"] == [14, 15, 16]
    assert (first["name"], first["T"], first["mode"]) == ("layer3", 5, "closed")
    assert first["shape"] == [[1024, 14, 14]] and first["cost_forwards"] <= 2.5
    assert run(["audit", "timm:vit_tiny_patch16_224", "--list-runs", "--mode", "closed"]) == 0
    out = capsys.readouterr().out
    assert "blocks" in out and "197x192" in out and "12 identity" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["timm:densenet121", "--list-runs", "--mode", "open"], 1, "channels appended"),
        (["timm:vgg11", "--list-runs", "--mode", "closed"], 1, "no closed run"),
        (["timm:resnet5", "--list-runs"], 2, "did you mean"),
        (["resnet50", "--list-runs"], 2, "did you mean timm:resnet50"),
        (["timm:resnet18"], 2, "--dataset"),
        (["timm:resnet18", "--normalise", "0.5/0", "-d", "digits"], 2, "above 0"),
        (["timm:resnet18", "--normalise", "imagnet", "-d", "digits"], 2, "expects none, imagenet"),
        (["timm:resnet18,pach_size=4", "-d", "digits"], 2, "no option 'pach_size'"),
        (["timm:resnet18,checkpoint_path=x.pth", "-d", "digits"], 2, "checkpoint_path is no option of a network"),
        (["timm:resnet18", "-d", "digits", "--run", "layer9"], 2, "has no run 'layer9'"),
        (["hf-hub:timm/resnet18.a1_in1k", "-d", "digits"], 2, "--download"),
    ],
)
def test_mistakes_end_in_one_line(arguments, code, message, capsys):
    assert run(["audit", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_audit_of_a_users_module(folder, capsys):
    properties = ["-p", "expansivity", "-p", "blocks:sample=40", "-p", "lipschitz"]
    assert (
        run(
            [
                "audit",
                "module:their_nets:Net",
                "--input",
                "3x32x32",
                "-d",
                "digits",
                "--limit",
                "60",
                "--no-cache",
                *properties,
                "-q",
                "-o",
                "out",
                "--format",
                "json",
            ]
        )
        == 0
    )
    done = json.loads(capsys.readouterr().out)
    certificate = done["pairs"][0]["certificate"]
    assert certificate["bit_exact"] and certificate["vacuous"] == ["1 of 3 blocks return their input unchanged"]
    assert certificate["randomised"]["bit_exact"]
    assert any("1 of 3 blocks return their input unchanged: so it is" in w for w in done["pairs"][0]["warnings"])
    table = next(c for c in done["cells"] if c["property"].startswith("blocks"))["result"]["tables"]["blocks"]
    rows = [dict(zip(table["columns"], row)) for row in table["rows"]]
    assert [row["name"] for row in rows[1:]] == ["blocks.0", "blocks.1", "blocks.2"]
    assert rows[2]["step"] == 0.0 and rows[2]["left_out_changes"] == 0.0 and rows[2]["relative_change"] == 0.0
    assert rows[-1]["agrees_with_final"] == rows[-1]["decided"] == 1.0


def test_a_net_that_is_not_its_blocks_fails(folder, capsys):
    assert (
        run(
            [
                "audit",
                "module:their_nets:Hidden",
                "--input",
                "3x32x32",
                "-d",
                "digits",
                "--limit",
                "20",
                "--no-cache",
                "-p",
                "blocks",
                "-q",
                "-o",
                "out",
            ]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert "the chained blocks are not the model" in error
    assert "their_nets:Hidden" in error and ": certificate: the chained blocks are not the model" in error


def test_the_blocks_table_agrees_with_the_trajectory(folder):
    model = {"name": "module", "options": {"builder": "their_nets:Net", "input": "3x32x32"}}
    done = stabilitykit.evaluate(model, "digits", ["blocks", "expansivity"], limit=80, cache=False)
    table = done["blocks"].tables["blocks"]
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    depth = done["expansivity"].tables["depth"]
    closest = [dict(zip(depth.columns, row))["closest"] for row in depth.rows]
    assert [row["closest"] for row in rows] == closest
    decided = [row[2] for row in done["blocks"].tables["prediction_depth"].rows]
    assert rows[1]["decided"] == np.mean(np.array(decided) <= 1)
    assert done["blocks"]["prediction_depth.median"].value == np.median(decided)


def test_convert_command(tmp_path, capsys):
    output = tmp_path / "c.safetensors"
    assert (
        run(["convert", "timm:resnet18", "--width", "8", "--num-classes", "3", "-o", str(output), "--format", "json"])
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert facts["blocks"] == 8 and facts["dimension"] == 512 and output.exists()
    assert facts["next"].startswith("stabilitykit train converted:resnet18,width=8")
    assert run(["convert", "timm:seresnet50"]) == 2
    assert "SEModule" in capsys.readouterr().err
    assert run(["convert", "timm:resnet18", "--input", "32"]) == 2


def test_train_a_converted_network(tmp_path, capsys):
    output = tmp_path / "trained.safetensors"
    assert (
        run(
            [
                "train",
                "converted:resnet18,width=8",
                "-d",
                "digits:train",
                "--limit",
                "60",
                "--epochs",
                "1",
                "--batch-size",
                "30",
                "-q",
                "-o",
                str(output),
                "--format",
                "json",
            ]
        )
        == 0
    )
    capsys.readouterr()
    done = stabilitykit.evaluate(
        "converted:resnet18,width=8", "digits", ["expansivity"], checkpoint=str(output), limit=30, cache=False
    )
    assert done.ok and done.info["pairs"][0]["certificate"]["bit_exact"]


def test_resnet20_of_others(shared_data, tmp_path, monkeypatch):
    """The public CIFAR-10 ResNet-20 by the example's own definition: the head of the test set, and exact blocks."""
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))
    from stabilitykit_adapters.modules import module_model

    model = module_model(
        "outside_checkpoint:build",
        input=(3, 32, 32),
        normalise="imagenet",
        run="layer3",
        checkpoint=str(shared_data / "checkpoints" / "cifar10_resnet20.th"),
    )
    with np.load(shared_data / "cifar10" / "test.npz") as data:
        pixels, labels = data["X"][:500], data["y"][:500]
    inputs = model.preprocess(list(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255))
    certificate = model.certify(inputs)
    assert certificate["bit_exact"] and certificate["vacuous"] == []
    with torch.inference_mode():
        state = model.initial_state(inputs)
        for t in range(model.num_blocks):
            state = model.block(t, state)
        chosen = model.readout(state).argmax(1).numpy()
        torch.testing.assert_close(model.head(state), model.readout(state))
    assert (chosen == labels).mean() > 0.9


@pytest.mark.slow
def test_resnet20_has_its_published_accuracy(shared_data):
    import subprocess
    import sys
    from pathlib import Path

    example = Path(__file__).parents[3] / "examples" / "outside_checkpoint.py"
    done = subprocess.run(
        [
            sys.executable,
            str(example),
            str(shared_data / "checkpoints" / "cifar10_resnet20.th"),
            str(shared_data / "cifar10" / "test.npz"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    accuracy = next(line for line in done.stdout.splitlines() if line.split()[1] == "accuracy")
    assert float(accuracy.split()[2]) == 0.9173
