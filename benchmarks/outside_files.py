"""One network as a torch module, as a transformers folder and as ONNX files: do they give the same numbers?

    python benchmarks/outside_files.py [FOLDER]

Needs the packages onnx, onnxscript, onnxruntime, transformers and datasets. A small vision transformer and a small
residual network are trained for some seconds on the embedded digits, saved with save_pretrained, exported by both of
PyTorch's exporters and quantised to int8 (QDQ) by onnxruntime; every one is evaluated on all 597 test images, read from
a Hugging Face data set on disk.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from onnxruntime import quantization
from PIL import Image
from stabilitykit_adapters.adapting import adapt
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_vision.digits import digits
from torch import nn

import stabilitykit

SHAPE = (3, 32, 32)
EPOCHS = 12
SHOWN = (
    ("expansivity", "expansive_constant.max"),
    ("expansivity", "expansive_constant.min"),
    ("expansivity", "expansive_constant.mean"),
    ("shadowing", "Sh_exact"),
    ("lipschitz", "lipschitz"),
)


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=6, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8,
        num_labels=10, id2label={n: str(n) for n in range(10)},
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64], depths=[2, 2, 2], layer_type="basic", num_labels=10,
        id2label={n: str(n) for n in range(10)},
    )  # fmt: skip
    config.image_size = 32
    return transformers.ResNetForImageClassification(config)


class Logits(nn.Module):
    """The classifier without its wrapping of outputs, which exporters do not take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).logits


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """(8-bit images (N, 3, 32, 32), labels) of a split."""
    data = digits(split)
    return np.rint(np.stack(data.images(range(len(data)))) * 255).astype(np.uint8), data.labels


def saved_pictures(folder: Path) -> str:
    """The test images as a Hugging Face data set on disk -> its spec."""
    images, labels = pictures("test")
    rows = {"image": [Image.fromarray(image.transpose(1, 2, 0)) for image in images], "label": labels.tolist()}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(n) for n in range(10)])}
    )
    with quiet():
        datasets.DatasetDict({"test": datasets.Dataset.from_dict(rows, features)}).save_to_disk(folder)
    return f"hf:{folder}"


def images(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(normalised inputs (N, 3, 32, 32), labels) of a split."""
    found, labels = pictures(split)
    return (torch.from_numpy(found).float() / 255 - 0.5) / 0.5, torch.from_numpy(labels)


def trained(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = build().train()
    inputs, labels = images("train")
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(60):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]).logits, labels[batch]).backward()
            optimiser.step()
    return network.eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


class Calibration(quantization.CalibrationDataReader):
    """The first 200 training images, one at a time."""

    def __init__(self) -> None:
        self.left = iter(images("train")[0][:200].numpy())

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.left, None)
        return None if image is None else {"x": image[None]}


def written(network: nn.Module, folder: Path) -> dict[str, Any]:
    """Source -> model spec or model; the files are written into ``folder``."""
    example, logits = torch.zeros(2, *SHAPE), Logits(network).eval()
    folder.mkdir(parents=True)
    with quiet():
        network.save_pretrained(folder / "saved")
        processor = transformers.ViTImageProcessor(
            size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
        processor.save_pretrained(folder / "saved")
        batch = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            logits, (example,), folder / "new.onnx", input_names=["x"], dynamic_shapes=batch, external_data=False
        )
        torch.onnx.export(
            logits, (example,), folder / "old.onnx", dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}}
        )
        torch.onnx.export(logits, (example[:1],), folder / "one.onnx", dynamo=False, input_names=["x"])
        quantization.quantize_static(
            folder / "old.onnx", folder / "int8.onnx", Calibration(), quant_format=quantization.QuantFormat.QDQ,
            per_channel=True, activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    preprocess, preprocessing = plain_preprocess(SHAPE, Pixels(normalise="inception"), False, "torch")
    options = "normalise=inception"
    return {
        "torch module": adapt(network, SHAPE, name="torch", preprocess=preprocess, preprocessing=preprocessing),
        "transformers folder": f"transformers:{folder / 'saved'}",
        "ONNX, torch.export": f"onnx:{folder / 'new.onnx'},{options}",
        "ONNX, TorchScript": f"onnx:{folder / 'old.onnx'},{options}",
        "ONNX, TorchScript, batch 1": f"onnx:{folder / 'one.onnx'},{options}",
        "ONNX, int8 QDQ": f"onnx:{folder / 'int8.onnx'},{options}",
    }


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    data, names = saved_pictures(folder / "digits"), [name for _, name in SHOWN]
    for title, build in (("ViT, 6 blocks", vit), ("ResNet, 6 blocks in 3 stages", resnet)):
        print(f"\n## {title}\n\n| source | steps | accuracy | {' | '.join(names)} | decisions unlike torch's |")
        print(f"|{'---|' * (len(names) + 4)}")
        sources = written(trained(build), folder / build.__name__)
        first, said = None, []
        for source, model in sources.items():
            run = stabilitykit.evaluate(model, data, [name for name, _ in dict(SHOWN).items()], cache=False)
            rows = run.images()
            decided = rows["prediction"].to_numpy()
            first = decided if first is None else first
            found = [run[prop][name].value for prop, name in SHOWN]
            values = ["none" if value is None else f"{value:.7g}" for value in found]
            pair = run.info["pairs"][0]
            steps = pair["record"]["model"]["num_blocks"]
            right = (decided == rows["label"].to_numpy()).mean()
            print(
                f"| {source} | {steps} | {right:.4f} | {' | '.join(values)} | {(decided != first).sum()} |", flush=True
            )
            beside = pair["certificate"].get("onnxruntime")
            if beside:
                said.append(f"- {source}: {beside['says']} Allowed: {beside['allowed']:.2g}.")
        print("\nBeside onnxruntime:\n\n" + "\n".join(said))


if __name__ == "__main__":
    main()
