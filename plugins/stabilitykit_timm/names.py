"""Build networks by name, timm's and torchvision's; nothing downloaded unasked."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from stabilitykit_adapters.modules import declared_shape
from stabilitykit_adapters.source import built, quietly
from torch import nn

from stabilitykit import UsageProblem
from stabilitykit.base.names import did_you_mean
from stabilitykit_timm.free_options import unknown

LIBRARIES = ("timm", "torchvision")


def split_spec(spec: str) -> tuple[str, str]:
    """``"timm:resnet50"`` -> ``("timm", "resnet50")``; a bare name is timm's, ``hf-hub:...`` is timm's too."""
    head, _, rest = spec.partition(":")
    if head in LIBRARIES and rest:
        return head, rest
    if head in ("hf-hub", "hf_hub"):
        return "timm", f"hf-hub:{rest}"
    if not rest:
        return "timm", spec
    raise UsageProblem(f"unknown model {spec!r}; expected timm:NAME, torchvision:NAME or hf-hub:ORG/NAME")


def skeleton(spec: str, *, device: str = "meta", **options: Any) -> nn.Module:
    """The network with weights on the meta device (no memory), or freshly initialised on ``device``.

    Arguments:
        spec: ``timm:NAME``, ``torchvision:NAME`` or ``hf-hub:ORG/NAME``.
        options: passed to the builder (``num_classes``, ``img_size``...); None values are left out.

    Raises:
        UsageProblem: no such name (with near ones), an optional package that is missing, refused options.
    """
    library, name = split_spec(spec)
    options = {key: value for key, value in options.items() if value is not None}
    build = {"timm": _timm, "torchvision": _torchvision}[library]
    with quietly():
        if device == "meta":
            try:
                with torch.device("meta"):
                    return build(name, options)
            except (NotImplementedError, RuntimeError):
                pass  # the builder computes with real values; built for real below, its weights stay unread
        return build(name, options)


def input_shape_of(module: nn.Module, side: int | None = None) -> tuple[int, ...]:
    """(C, H, W) a network was made for, as far as it says so; with ``side`` in place of both H and W."""
    shape = _declared_shape(module)
    return shape if side is None else (shape[0], side, side)


def _declared_shape(module: nn.Module) -> tuple[int, ...]:
    for attribute in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, attribute, None)
        if isinstance(config, Mapping) and config.get("input_size"):
            from timm.data import resolve_model_data_config

            with quietly():
                return tuple(resolve_model_data_config(module)["input_size"])
    if type(module).__name__ == "Inception3":
        return (3, 299, 299)
    return declared_shape(module)


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    pretrained = bool(options.pop("download", False))
    if not name.startswith(("hf-hub:", "hf_hub:")):
        if not timm.is_model(name.split(".")[0]):
            raise UsageProblem(
                f"timm has no model {name!r}{did_you_mean(name, timm.list_models(), 'see timm.list_models()')}"
            )
    elif not pretrained:
        raise UsageProblem(
            f"{name} is fetched from the Hugging Face hub: add --download (or download=true), or give "
            "timm:NAME with a local --checkpoint"
        )

    def build() -> nn.Module:
        try:
            return timm.create_model(name, pretrained=pretrained, **options)
        except TypeError as error:
            if "img_size" not in options or "img_size" not in str(error):
                raise _said(error, f"timm:{name}", lambda: timm.create_model(name)) from None
        # Networks of convolutions take any size without being built for it.
        rest = {k: v for k, v in options.items() if k != "img_size"}
        try:
            return timm.create_model(name, pretrained=pretrained, **rest)
        except TypeError as error:
            raise _said(error, f"timm:{name}", lambda: timm.create_model(name)) from None

    return built(f"timm:{name}", build)


def _said(error: TypeError, owner: str, plain: Callable[[], nn.Module]) -> Exception:
    """``error``, or what to say of it when it is about an option that the network made by ``plain`` does not have."""
    if "unexpected keyword argument" not in str(error):
        return error
    with torch.device("meta"), contextlib.suppress(Exception):
        return unknown(error, plain(), owner) or error
    return unknown(error, None, owner) or error


def _torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        hint = did_you_mean(name, known, "see torchvision.models.list_models()")
        raise UsageProblem(f"torchvision has no classification model {name!r}{hint}")
    weights = "DEFAULT" if options.pop("download", False) else None
    builder = torchvision.models.get_model_builder(name)
    if "init_weights" in inspect.signature(builder).parameters or name in ("googlenet", "inception_v3"):
        options.setdefault("init_weights", False)  # their initialisation takes a minute of scipy

    def build() -> nn.Module:
        try:
            return builder(weights=weights, **options)
        except TypeError as error:
            raise _said(error, f"torchvision:{name}", lambda: builder(weights=None)) from None

    return built(f"torchvision:{name}", build)
