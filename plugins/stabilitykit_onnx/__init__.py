"""ONNX files: the network that ships, read with the package onnx and run as a torch graph, onnxruntime beside it."""

from __future__ import annotations

from stabilitykit_adapters import IMAGE_OPTIONS, PIXEL_OPTIONS, REFERENCE, VIEW_OPTIONS

from stabilitykit import Component, Option, hookimpl


@hookimpl
def stabilitykit_models() -> list[Component]:
    """onnx."""
    return [
        Component(
            "model",
            "onnx",
            "stabilitykit_onnx.source:onnx_model",
            "The network of an ONNX file, float or int8 (QDQ), compared with onnxruntime",
            (
                Option("path", "path", help="the .onnx file; weights beside it are read, too", required=True),
                *VIEW_OPTIONS,
                *PIXEL_OPTIONS,
                *IMAGE_OPTIONS,
                Option(
                    "compare",
                    choices=("all", "none"),
                    default="all",
                    help="run every evaluated image by onnxruntime, too; a difference beyond rounding is an error",
                ),
            ),
            primary="path",
            reference=REFERENCE,
        )
    ]
