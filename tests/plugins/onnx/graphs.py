"""ONNX files for tests: made node by node, and exported from small networks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def node(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Any:
    return onnx.helper.make_node(op, inputs, outputs, **attributes)


def saved(
    path: Path, nodes: list[Any], constants: dict[str, np.ndarray], shape: list[Any], opset: int = 21, **more: Any
) -> Path:
    """A file whose graph takes ``x`` and gives ``y``, axes of unknown length where not told."""
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("x", kind, shape)],
        [onnx.helper.make_tensor_value_info("y", more.get("kind", kind), None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)
    for key, value in more.get("metadata", {}).items():
        model.metadata_props.add(key=key, value=value)
    model = onnx.shape_inference.infer_shapes(model)
    given = model.graph.output[0].type.tensor_type
    if not given.HasField("shape"):
        for axis in range(len(shape)):
            given.shape.dim.add(dim_param=f"axis{axis}")
    onnx.save(model, path)
    return path


class Block(nn.Module):
    """x + f(x), activated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class Small(nn.Module):
    """A stem, three blocks, one of them behind a stride, pooling and a classifier of 5 classes; images 3x8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        self.blocks = nn.Sequential(Block(4), Block(4), Block(4))
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Tokens(nn.Module):
    """A vision transformer of two blocks on 3x8x8 images, attention written out."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.blocks = nn.ModuleList(Attending() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, count, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1) @ v).transpose(1, 2).reshape(batch, count, width)
        x = x + self.proj(mixed)
        return x + self.mlp(self.norm2(x))


def exported(network: nn.Module, path: Path, *, batch: int | None = None, opset: int = 17) -> Path:
    """``network`` written by the TorchScript exporter; ``batch``: a fixed number of images, None: left open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(batch or 2, 3, 8, 8),),
            path,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            opset_version=opset,
            dynamic_axes=None if batch else {"x": {0: "batch"}},
        )
    return path


def quantised(source: Path, path: Path) -> Path:
    """The same in int8, QDQ, per channel, calibrated on noise."""
    from onnxruntime import quantization

    class Noise(quantization.CalibrationDataReader):
        left = iter(torch.rand(16, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).numpy())

        def get_next(self) -> Any:
            image = next(self.left, None)
            return None if image is None else {"x": image}

    quantization.quantize_static(
        source, path, Noise(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    return path
