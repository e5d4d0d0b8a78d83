"""The model components ``timm``, ``hf-hub`` and ``torchvision``: a network by name, one run of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.adapting import adapt, read_weights
from stabilitykit_adapters.pixels import Preprocess
from stabilitykit_adapters.source import NetworkSource
from torch import nn

from stabilitykit_timm.names import input_shape_of, skeleton
from stabilitykit_timm.preprocess import timm_preprocess, torchvision_preprocess
from stabilitykit_timm.weights import classes_in, converted


class NamedSource(NetworkSource):
    """``timm:NAME``, ``hf-hub:ORG/NAME`` or ``torchvision:NAME``."""

    def __init__(self, library: str) -> None:
        self.library = library

    def __call__(self, name: str, **options: Any) -> AdaptedModel:
        """Options as listed in the plugin's schema."""
        return build(f"{self.library}:{name}", **options)

    def outline(
        self,
        name: str,
        *,
        num_classes: int | None = None,
        img_size: int | None = None,
        download: bool = False,
        **options: Any,
    ) -> tuple[nn.Module, tuple[int, ...]]:
        fetch = (download or None) if self.library == "hf-hub" else None
        module = skeleton(f"{self.library}:{name}", num_classes=num_classes, img_size=img_size, download=fetch)
        return module, input_shape_of(module, img_size)


timm_model = NamedSource("timm")
hf_hub_model = NamedSource("hf-hub")
torchvision_model = NamedSource("torchvision")


def build(
    spec: str,
    *,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    run: str = "longest",
    mode: str | None = None,
    classes: Sequence[int] | None = None,
    img_size: int | None = None,
    download: bool = False,
    seed: int = 0,
) -> AdaptedModel:
    """Build a network and adapt one of its runs, with its library's own preprocessing.

    Raises:
        UsageProblem: unknown name or run, missing package, a checkpoint that does not fit.
        CellProblem: no run of that mode, with the reason for every candidate; a network that cannot be recorded.
    """
    if classes and num_classes == len(classes) and max(classes) >= num_classes:
        num_classes = None  # the number of the dataset's classes, which are some of the outputs
    module, record = network(
        spec, checkpoint=checkpoint, num_classes=num_classes, img_size=img_size, download=download, seed=seed
    )
    shape = input_shape_of(module, img_size)
    preprocess, preprocessing = preprocessing_of(spec, module, shape)
    return adapt(
        module,
        shape,
        name=spec,
        preprocess=preprocess,
        preprocessing=preprocessing,
        run=run,
        mode=mode,
        classes=classes,
        record=record,
    )


def network(
    spec: str,
    *,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    img_size: int | None = None,
    download: bool = False,
    seed: int = 0,
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with weights: from a local file, the hub (only with ``download``), or untrained from ``seed``.

    Returns: (network in eval mode, where it came from as plain data).
    """
    if checkpoint is not None and num_classes is None:
        num_classes = classes_in(checkpoint, spec)
    if download:
        num_classes = None  # published weights come with their classes; a new head would be untrained
    options = {"num_classes": num_classes, "img_size": img_size, "download": download or None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = skeleton(spec, device="cpu", **options)
    module, record = read_weights(module, checkpoint, spec, seed, converted)
    if download and checkpoint is None:
        record["weights"] = "downloaded"
    return module, record


def preprocessing_of(spec: str, module: nn.Module, shape: Sequence[int]) -> tuple[Preprocess, dict[str, Any]]:
    """(images -> network input, the same as plain data) for a network of that origin."""
    if spec.startswith("torchvision:"):
        return torchvision_preprocess(shape)
    return timm_preprocess(module, shape)
