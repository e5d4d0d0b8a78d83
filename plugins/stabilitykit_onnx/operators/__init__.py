"""The operators of an ONNX graph as torch operations, one dictionary per kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stabilitykit_onnx.operators.elementwise import ELEMENTWISE
from stabilitykit_onnx.operators.quantisation import QUANTISATION
from stabilitykit_onnx.operators.reductions import REDUCTIONS
from stabilitykit_onnx.operators.shapes import SHAPES
from stabilitykit_onnx.operators.spatial import SPATIAL

OPERATORS: Mapping[str, Callable[..., Any]] = ELEMENTWISE | QUANTISATION | REDUCTIONS | SHAPES | SPATIAL
"""Operator -> function (attributes, *inputs) -> output or outputs."""

NOT_HERE: Mapping[str, str] = {
    "DynamicQuantizeLinear": "takes its range from the images of the batch, so that an image's output depends on its "
    "company; quantise statically (QDQ)",
    "QLinearConv": "is of the operator-oriented form; quantise with QuantFormat.QDQ",
    "QLinearMatMul": "is of the operator-oriented form; quantise with QuantFormat.QDQ",
    "ConvInteger": "belongs to dynamic quantisation; quantise statically (QDQ)",
    "MatMulInteger": "belongs to dynamic quantisation; quantise statically (QDQ)",
    "If": "lets the graph decide; export it with the branch it takes",
    "Loop": "repeats a part of the graph; export it unrolled",
    "Scan": "repeats a part of the graph; export it unrolled",
}
"""What to say of operators that people meet and that have no counterpart."""
