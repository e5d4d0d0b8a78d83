"""The model components ``timm``, ``hf-hub`` and ``torchvision``: a network by name, one run of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.adapting import View, adapt, read_weights
from stabilitykit_adapters.pixels import Pixels, Preprocess
from stabilitykit_adapters.source import NetworkSource
from torch import nn

from stabilitykit.base.results import to_plain
from stabilitykit.training.checkpoints import Loading, read_checkpoint
from stabilitykit_timm.free_options import parsed
from stabilitykit_timm.hub_folder import HubConfig, hub_config
from stabilitykit_timm.names import input_shape_of, skeleton, split_spec
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
        library_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> tuple[nn.Module, tuple[int, ...]]:
        fetch = (download or None) if self.library == "hf-hub" else None
        own = parsed(library_options or {}, f"{self.library}:{name}")
        module = skeleton(f"{self.library}:{name}", num_classes=num_classes, img_size=img_size, download=fetch, **own)
        return module, _shape(module, options.get("size") or img_size, own)


timm_model = NamedSource("timm")
hf_hub_model = NamedSource("hf-hub")
torchvision_model = NamedSource("torchvision")


def build(
    spec: str,
    *,
    checkpoint: str | None = None,
    allow_unused: str | None = None,
    resample: bool = False,
    weights: str | None = None,
    num_classes: int | None = None,
    img_size: int | None = None,
    download: bool = False,
    seed: int = 0,
    library_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> AdaptedModel:
    """Build a network and adapt one of its runs, with its library's own preprocessing where nothing else is said.

    Arguments:
        library_options: keywords of the library's builder, as text.
        options: of :class:`View` and :class:`Pixels`.

    Raises:
        UsageProblem: unknown name, option or run, missing package, a checkpoint that does not fit.
        CellProblem: no run of that mode, with the reason for every candidate; a network that cannot be recorded.
    """
    pixels, view = Pixels.taken(options), View.taken(options)
    pixels.statistics(spec, None)  # a slip is found before the network is built
    if view.classes and num_classes == len(view.classes) and max(view.classes) >= num_classes:
        num_classes = None  # the number of the dataset's classes, which are some of the outputs
    own = parsed(library_options or {}, spec)
    hub = hub_config(checkpoint, split_spec(spec)[1]) if split_spec(spec)[0] == "timm" else HubConfig()
    module, record = network(
        spec,
        checkpoint=checkpoint,
        num_classes=num_classes,
        img_size=img_size,
        download=download,
        seed=seed,
        how=Loading.of(allow_unused, resample, weights),
        hub=hub,
        **own,
    )
    shape = _shape(module, pixels.size or img_size, own)
    preprocess, preprocessing = preprocessing_of(spec, module, shape, pixels)
    return adapt(
        module,
        shape,
        name=spec,
        preprocess=preprocess,
        preprocessing=preprocessing,
        view=view,
        num_classes=num_classes,
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
    how: Loading | None = None,
    hub: HubConfig | None = None,
    **own: Any,
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with weights: from a local file, the hub (only with ``download``), or untrained from ``seed``.

    Arguments:
        hub: what config.json beside the weights says; ``own`` and the other options come first.
        own: keywords of the library's builder.

    Returns:
        (network in eval mode, where it came from as plain data).
    """
    hub = hub or HubConfig()
    found = None if checkpoint is None else read_checkpoint(checkpoint)
    own = {**parsed(hub.arguments, spec), **own}
    if found is not None and num_classes is None:
        num_classes = hub.num_classes or classes_in(found, skeleton(spec, img_size=img_size, **own))
    if download:
        num_classes = None  # published weights come with their classes; a new head would be untrained
    options = {"num_classes": num_classes, "img_size": img_size, "download": download or None, **own}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = skeleton(spec, device="cpu", **options)
    if hub.preprocessing:
        config: Any = {**dict(getattr(module, "pretrained_cfg", None) or {}), **hub.preprocessing}
        module.pretrained_cfg = config
    module, record = read_weights(module, found, spec, f"untrained (seed {seed})", how, converted)
    if own:
        record["library_options"] = to_plain({k: list(v) if isinstance(v, tuple) else v for k, v in own.items()})
    if hub.architecture:
        record["hub_config"] = {"architecture": hub.architecture, **hub.preprocessing}
    if download and checkpoint is None:
        record["weights"] = "downloaded"
    return module, record


def preprocessing_of(
    spec: str, module: nn.Module, shape: Sequence[int], pixels: Pixels | None = None
) -> tuple[Preprocess, dict[str, Any]]:
    """(images -> network input, the same as plain data) for a network of that origin."""
    pixels = pixels or Pixels()
    if spec.startswith("torchvision:"):
        return torchvision_preprocess(shape, pixels)
    return timm_preprocess(module, shape, pixels)


def _shape(module: nn.Module, side: int | None, own: Mapping[str, Any]) -> tuple[int, ...]:
    shape = input_shape_of(module, side)
    channels = own.get("in_chans", own.get("in_channels"))
    return (channels, *shape[1:]) if isinstance(channels, int) else shape
