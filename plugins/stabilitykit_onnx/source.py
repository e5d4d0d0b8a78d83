"""The model component ``onnx``: the network of a file, one run of it, and onnxruntime beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.adapting import View, adapt
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_adapters.source import NetworkSource
from torch import nn

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.base.errors import StabilityKitError, describe
from stabilitykit_onnx.building import build
from stabilitykit_onnx.reading import Graph, class_names, read
from stabilitykit_onnx.runtime import OnnxRuntime, require_runtime

USUAL = (3, 224, 224)
"""What an image is taken to look like where the file leaves it open."""


class OnnxSource(NetworkSource):
    """``onnx:FILE``."""

    def __call__(
        self,
        path: str,
        *,
        input: Sequence[int] | None = None,
        resize: bool = False,
        compare: str = "all",
        **options: Any,
    ) -> AdaptedModel:
        """The network of an ONNX file. Options as listed in the plugin's schema.

        Raises:
            DataProblem: a file that cannot be read.
            UsageProblem: operators or sizes without a counterpart, a package that is missing.
            CellProblem: a network that cannot be recorded.
        """
        name = f"onnx:{path}"
        pixels, view = Pixels.taken(options), View.taken(options)
        pixels.statistics(name, None)  # a slip is found before the file is read
        if compare != "none":
            require_runtime()
        graph = read(path)
        shape = _image_shape(graph, input, pixels.size)
        preprocess, preprocessing = plain_preprocess(shape, pixels, resize, name)
        module = build(graph)
        _run_once(module, shape, name)
        record: dict[str, Any] = {"architecture": name, "weights": "those of the file", "onnx": dict(graph.record)}
        names = class_names(graph.metadata)
        if names is not None:
            record["class_names"] = names
        if graph.batch.fixed:
            record["batch"] = "written for one image at a time; sizes that hold the batch are taken as left open"
        model = adapt(
            module, shape, name=name, preprocess=preprocess, preprocessing=preprocessing, view=view, record=record
        )
        if compare != "none":
            model.elsewhere = OnnxRuntime(graph)
        return model

    def outline(
        self, path: str, *, input: Sequence[int] | None = None, size: int | None = None, **options: Any
    ) -> tuple[nn.Module, tuple[int, ...]]:
        graph = read(path)
        return build(graph), _image_shape(graph, input, size)


onnx_model = OnnxSource()


def _image_shape(graph: Graph, given: Sequence[int] | None, side: int | None) -> tuple[int, ...]:
    """What one image looks like: as the file says, else as a user says, else 3 x 224 x 224."""
    if graph.batch.fixed not in (None, 1):
        raise UsageProblem(
            f"onnx: {graph.path} is written for batches of {graph.batch.fixed} images; export it with the batch left "
            "open (dynamic_axes or dynamic_shapes) or for one image"
        )
    stored = graph.shape[1:]
    if given is None and side is not None and len(stored) == 3:
        given = (stored[0] or USUAL[0], side, side)
    if given is None and None in stored:
        given = tuple(known or usual for known, usual in zip(stored, USUAL)) if len(stored) == 3 else None
        if given is None:
            raise UsageProblem(f"onnx: {graph.path} leaves its input's size open ({graph.shape}); say input=CxHxW")
    shape = tuple(given) if given is not None else tuple(n for n in stored if n is not None)
    if len(shape) != len(stored) or any(b is not None and a != b for a, b in zip(shape, stored)):
        fixed = "x".join("?" if n is None else str(n) for n in stored)
        raise UsageProblem(f"onnx: {graph.path} takes images of {fixed}, not {'x'.join(map(str, shape))}")
    return shape


def _run_once(module: nn.Module, shape: Sequence[int], name: str) -> None:
    """One pass of zeros: what cannot run is said at once, and by the node it fails at."""
    try:
        with torch.inference_mode():
            module(torch.zeros(2, *shape))
    except StabilityKitError as error:
        raise type(error)(f"model {name}: {error}") from None
    except Exception as error:
        raise CellProblem(
            f"model {name} does not run on inputs of {'x'.join(map(str, shape))}, two at a time: {describe(error, 300)}"
        ) from None
