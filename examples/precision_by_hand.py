"""Cast a whole network by hand, and find the very decisions that `stabilitykit audit -p precision` lists.

Run: python examples/precision_by_hand.py CHECKPOINT TEST.npz [IMAGES]

CHECKPOINT holds weights of timm's resnet18 with 10 classes, trained on 32 x 32 pixels with ImageNet's mean and standard
deviation; TEST.npz holds the CIFAR-10 test images as X (uint8) and y. The network is cast with plain torch alone:
``module.to(dtype)`` for bf16 and fp16, the observers of torch.ao.quantization and its fake quantisation for int8. Then
the audit runs on the same IMAGES (default 500), and both lists of changed decisions are compared. Exit 1 where they
differ.
"""

import copy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

import stabilitykit

BATCH = 100  # the audit's default: another batch size moves logits in their last bits
FORMATS = ("bf16", "fp16", "int8-weights", "int8")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
Classes = list[int]


def build() -> nn.Module:
    """What ``module:precision_by_hand:build`` names; timm's own entry would resize the images to 224 x 224."""
    return timm.create_model("resnet18", num_classes=10)


def decided(network: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> Classes:
    """The classes of inputs (N, 3, 32, 32), float32, batch by batch."""
    with torch.inference_mode():
        return [int(c) for batch in inputs.split(BATCH) for c in network(batch).float().argmax(dim=1)]


def converted(net: nn.Module, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    twin = copy.deepcopy(net).to(dtype)
    return lambda x: twin(x.to(dtype))


def layers(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def void(_: object) -> None:
    """What a hook returns that changes nothing."""


def int8_weights(net: nn.Module) -> nn.Module:
    """Every weight on the levels of torch's observer, one scale per output channel."""
    twin = copy.deepcopy(net)
    for layer in layers(twin):
        seen = PerChannelMinMaxObserver(ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
        seen(layer.weight.detach())
        scale, zero = seen.calculate_qparams()
        with torch.no_grad():
            layer.weight.copy_(torch.fake_quantize_per_channel_affine(layer.weight, scale, zero.int(), 0, -128, 127))
    return twin


def int8(net: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """Its layers' inputs rounded, too: ranges are those that the float network has on all ``inputs``."""
    observers, hooks = [], []
    for layer in layers(net):
        seen = MinMaxObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
        observers.append(seen)
        hooks.append(layer.register_forward_pre_hook(lambda _, given, seen=seen: void(seen(given[0]))))
    decided(net, inputs)
    for hook in hooks:
        hook.remove()
    twin = int8_weights(net)
    for layer, seen in zip(layers(twin), observers):
        scale, zero = (float(seen.calculate_qparams()[0]), int(seen.calculate_qparams()[1]))
        layer.register_forward_pre_hook(
            lambda _, given, s=scale, z=zero: (torch.fake_quantize_per_tensor_affine(given[0], s, z, 0, 255),)
        )
    return twin


def by_hand(net: nn.Module, inputs: torch.Tensor) -> dict[str, list[tuple[int, int, int]]]:
    """Per format every image whose class changes: (image, class before, class after)."""
    networks = {
        "bf16": converted(net, torch.bfloat16),
        "fp16": converted(net, torch.float16),
        "int8-weights": int8_weights(net),
        "int8": int8(net, inputs),
    }
    before = decided(net, inputs)
    return {
        name: [(n, a, b) for n, (a, b) in enumerate(zip(before, decided(network, inputs))) if a != b]
        for name, network in networks.items()
    }


def audited(checkpoint: str, folder: Path) -> dict[str, list[tuple[int, int, int]]]:
    """The same lists, read from the table that the audit writes."""
    options = f"precision:calibration=1000000,formats={'+'.join(FORMATS)}"  # ranges from all images, as above
    command = ["audit", "module:precision_by_hand:build", "--checkpoint", checkpoint, "--input", "3x32x32"]
    command += ["--normalise", "imagenet", "-d", f"npz:{folder.resolve() / 'images.npz'}", "-p", options]
    command += ["-o", str(folder.resolve() / "run"), "--device", "cpu"]
    here = Path(__file__).resolve().parent
    subprocess.run([sys.executable, "-m", "stabilitykit", *command], check=True, stdout=subprocess.DEVNULL, cwd=here)
    found: dict[str, list[tuple[int, int, int]]] = {name: [] for name in FORMATS}
    run = stabilitykit.Run.read(folder / "run")
    names = run.cells[0].record["dataset"]["class_names"]
    table = run["precision"].tables["flips"]
    for row in (dict(zip(table.columns, values)) for values in table.rows):
        found[row["format"]].append((row["index"], names.index(row["was"]), names.index(row["became"])))
    return found


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    checkpoint, images, count = str(Path(sys.argv[1]).resolve()), sys.argv[2], int((*sys.argv[3:], 500)[0])
    data = np.load(images)
    pixels = torch.from_numpy(data["X"][:count]).permute(0, 3, 1, 2).float() / 255
    inputs = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    net = build()
    net.load_state_dict(torch.load(checkpoint, weights_only=True))
    net.eval().requires_grad_(False)
    accuracy = float(np.mean(np.array(decided(net, inputs)) == data["y"][:count].reshape(-1)))
    ours = by_hand(net, inputs)
    with tempfile.TemporaryDirectory() as place:
        np.savez(Path(place) / "images.npz", X=data["X"][:count], y=data["y"][:count])
        theirs = audited(checkpoint, Path(place))
    print(f"resnet18, {count} images, accuracy {accuracy:.3f}")
    for name in FORMATS:
        same = "the same" if ours[name] == theirs[name] else f"by the audit {theirs[name]}"
        print(f"{name:13} {len(ours[name]):3} decisions change: {ours[name]}; {same}")
    sys.exit(ours != theirs)


if __name__ == "__main__":
    main()
