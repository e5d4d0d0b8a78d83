"""Read an ONNX file: the graph it holds, as plain data and tensors. Nothing in it is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stabilitykit import DataProblem, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.names import did_you_mean
from stabilitykit_onnx.attributes import Attributes, Batch, Unsupported
from stabilitykit_onnx.operators import NOT_HERE, OPERATORS
from stabilitykit_onnx.scopes import Scope, scope_of

if TYPE_CHECKING:
    import onnx

LARGEST = 2**31
"""Bytes of one protobuf message at most; larger networks keep their weights in files beside it."""
STANDARD = ("", "ai.onnx")
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
"""Operators that onnxruntime writes under its own domain, too, for the same computation."""
FLOATS = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        scope: names of the modules it stood in when the network was exported, from the outermost down.
        classes: what those modules were; empty where the file does not say.
        inputs: names of values; empty for optional ones left out. outputs: likewise.
    """

    attributes: Attributes
    scope: Scope
    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """What a file holds.

    Attributes:
        nodes: in an order in which they can run.
        constants: name -> tensor of the weights; half precision as float32, which holds it exactly.
        input: name of the input; shape: its sizes, None where they are left open.
        outputs: names.
        dtype: of the input as stored.
        batch: what all nodes know of the number of images.
        metadata: what the file says of itself.
        record: opset, producer and the like, as plain data.
    """

    path: Path
    nodes: list[Node]
    constants: dict[str, torch.Tensor]
    input: str
    shape: tuple[int | None, ...]
    outputs: tuple[str, ...]
    dtype: torch.dtype
    batch: Batch
    metadata: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quantised(self) -> bool:
        return any(node.attributes.op == "QuantizeLinear" for node in self.nodes)


def onnx_package() -> Any:
    """The package onnx; UsageProblem that says how to get it where it is missing."""
    try:
        import onnx
    except ImportError as error:
        raise UsageProblem(
            f"onnx: models need the packages onnx and onnxruntime ({error}): pip install 'stabilitykit[onnx]'"
        ) from None
    return onnx


def read(path: str | Path) -> Graph:
    """The graph of an ONNX file.

    Raises:
        DataProblem: no such file, truncated, corrupt, too large, or weights that lie outside its folder.
        Unsupported: operators without a counterpart, all of them named.
    """
    onnx = onnx_package()
    path = Path(path)
    proto = _parsed(path, onnx)
    if proto.functions:
        from onnx import inliner

        proto = inliner.inline_local_functions(proto)
    opset = next((o.version for o in proto.opset_import if o.domain in STANDARD), 1)
    _refuse_unknown(proto, path)
    batch = Batch()
    nodes = [_node(node, n, opset, batch, onnx) for n, node in enumerate(proto.graph.node)]
    constants, stored = _constants(proto, path, onnx)
    name, kind, shape = _input(proto, constants, path)
    batch.fixed = shape[0] if shape else None
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    record = {
        "opset": opset,
        "ir_version": proto.ir_version,
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "nodes": len(nodes),
        "operators": sorted({node.attributes.op for node in nodes}),
        "input": {"name": name, "shape": list(shape)},
        "stored_as": sorted(stored),
    }
    outputs = tuple(value.name for value in proto.graph.output)
    return Graph(path, nodes, constants, name, shape, outputs, FLOATS[kind], batch, metadata, record)


def class_names(metadata: Mapping[str, str]) -> list[str] | None:
    """Names of the classes where the file's metadata has them, as a JSON list or mapping number -> name."""
    for key in ("class_names", "id2label", "labels", "names"):
        try:
            found = json.loads(metadata.get(key, ""))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and all(str(n) in found for n in range(len(found))):
            found = [found[str(n)] for n in range(len(found))]
        if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
            return found
    return None


def _parsed(path: Path, onnx: Any) -> onnx.ModelProto:
    if not path.is_file():
        what = "is no regular file" if path.exists() else "does not exist"
        raise DataProblem(f"onnx: {path} {what}; give a file that an exporter wrote, e.g. torch.onnx.export")
    size = path.stat().st_size
    if size == 0:
        raise DataProblem(f"onnx: {path} is empty")
    if size >= LARGEST:
        raise DataProblem(
            f"onnx: {path} holds {size:,} bytes, and an ONNX file ends at 2 GiB; export with the weights in a file "
            "beside it (external_data=True)"
        )
    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except Exception as error:  # a parser fed damaged bytes raises kinds of its own
        raise DataProblem(f"onnx: {path} is truncated, corrupt or no ONNX file: {describe(error, 200)}") from None
    if not proto.graph.node:
        raise DataProblem(f"onnx: {path} is corrupt or no ONNX file: it holds no graph")
    _load_external(proto, path, onnx)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        raise DataProblem(f"onnx: {path} is no valid ONNX model: {describe(error, 300)}") from None
    return proto


def _load_external(proto: onnx.ModelProto, path: Path, onnx: Any) -> None:
    """Read the weights that lie in files beside the model; only from its own folder, and no links out of it."""
    helper = onnx.external_data_helper
    folder = path.parent.resolve()
    for tensor in helper._get_all_tensors(proto):
        if not helper.uses_external_data(tensor):
            continue
        location = helper.ExternalDataInfo(tensor).location
        file = folder / location
        if Path(location).is_absolute() or not file.resolve().is_relative_to(folder):
            raise DataProblem(f"onnx: {path} keeps weights in {location!r}, outside its own folder; that is not read")
        if not file.is_file():
            raise DataProblem(f"onnx: {path} keeps weights in {location!r}, which is not in {folder}; put it there")
        try:
            helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            raise DataProblem(f"onnx: weights {tensor.name} of {file} cannot be read: {describe(error, 200)}") from None
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _refuse_unknown(proto: onnx.ModelProto, path: Path) -> None:
    unknown: dict[str, str] = {}
    for node in proto.graph.node:
        standard = node.domain in STANDARD or node.op_type in QUANTISERS
        if standard and (node.op_type in OPERATORS or node.op_type == "Constant"):
            continue
        name = node.op_type if standard else f"{node.domain}.{node.op_type}"
        reason = NOT_HERE.get(node.op_type, "") if standard else "is no standard operator; export without optimising"
        unknown.setdefault(name, f" ({reason})" if reason else did_you_mean(node.op_type, OPERATORS))
    if unknown:
        listed = ", ".join(f"{name}{why}" for name, why in sorted(unknown.items()))
        raise Unsupported(f"onnx: {path} uses operators that are not supported: {listed}")


def _node(node: onnx.NodeProto, number: int, opset: int, batch: Batch, onnx: Any) -> Node:
    values = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, onnx.TensorProto):
            value = _tensor(value, onnx)
        elif not isinstance(value, (int, float, str)):
            value = list(value)
        values[attribute.name] = value
    while_named = node.name or f"{node.op_type}_{number}"
    used = sum(1 for name in node.output if name)
    scope, classes = scope_of(node.name, {entry.key: entry.value for entry in node.metadata_props})
    attributes = Attributes(node.op_type, while_named, opset, values, used, batch)
    return Node(attributes, scope, classes, tuple(node.input), tuple(node.output))


def _constants(proto: onnx.ModelProto, path: Path, onnx: Any) -> tuple[dict[str, torch.Tensor], set[str]]:
    """(name -> weights, element types they are stored as)."""
    if proto.graph.sparse_initializer:
        raise Unsupported(f"onnx: {path} holds sparse weights, which are not supported")
    found, stored = {}, set()
    for tensor in proto.graph.initializer:
        stored.add(onnx.TensorProto.DataType.Name(tensor.data_type).lower())
        found[tensor.name] = _tensor(tensor, onnx)
    return found, stored


def _tensor(tensor: onnx.TensorProto, onnx: Any) -> torch.Tensor:
    """Weights of any shape; float16 and bfloat16 as float32."""
    try:
        array = np.array(onnx.numpy_helper.to_array(tensor))
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            array = array.astype(np.float32)
        return torch.from_numpy(array)
    except Exception as error:
        raise DataProblem(f"onnx: the weights {tensor.name!r} cannot be read: {describe(error, 200)}") from None


def _input(
    proto: onnx.ModelProto, constants: Mapping[str, torch.Tensor], path: Path
) -> tuple[str, int, tuple[int | None, ...]]:
    """(name, element type, sizes) of the one input that images are given to."""
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UsageProblem(f"onnx: {path} takes {len(inputs)} inputs ({names}); expected one, a batch of images")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in FLOATS:
        raise Unsupported(
            f"onnx: {path} takes images as element type {kind.elem_type}; export it for floats (quantise inside)"
        )
    if not kind.HasField("shape") or not kind.shape.dim:
        raise Unsupported(f"onnx: {path} does not say how many axes its input has")
    sizes = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
    return inputs[0].name, kind.elem_type, sizes
