"""Build networks by name: timm, torchvision, or a user's own builder; nothing downloaded unasked."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabilitykit import StabilityKitError, UsageProblem

LIBRARIES = ("timm", "torchvision", "module")
DEFAULT_INPUT = (3, 224, 224)


def split_spec(spec: str) -> tuple[str, str]:
    """``"timm:resnet50"`` -> ``("timm", "resnet50")``; a bare name is timm's, ``hf-hub:...`` is timm's too."""
    head, _, rest = spec.partition(":")
    if head in LIBRARIES and rest:
        return head, rest
    if head in ("hf-hub", "hf_hub"):
        return "timm", f"hf-hub:{rest}"
    if not rest:
        return "timm", spec
    raise UsageProblem(
        f"unknown model {spec!r}; expected timm:NAME, torchvision:NAME, hf-hub:ORG/NAME or "
        "module:PACKAGE.MODULE:BUILDER"
    )


def skeleton(spec: str, *, device: str = "meta", **options: Any) -> nn.Module:
    """The network with weights on the meta device (no memory), or freshly initialised on ``device``.

    Args:
        spec: ``timm:NAME``, ``torchvision:NAME``, ``hf-hub:ORG/NAME`` or ``module:PACKAGE.MODULE:BUILDER``.
        options: passed to the builder (``num_classes``, ``img_size``...); None values are left out.

    Raises:
        UsageProblem: no such name (with near ones), an optional package that is missing, refused options.
    """
    library, name = split_spec(spec)
    options = {key: value for key, value in options.items() if value is not None}
    build = {"timm": _timm, "torchvision": _torchvision, "module": _module}[library]
    with _quietly():
        if device == "meta" and library != "module":
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

            with _quietly():
                return tuple(resolve_model_data_config(module)["input_size"])
    given = getattr(module, "input_size", None) or getattr(module, "input_shape", None)
    if isinstance(given, (tuple, list)) and len(given) >= 1 and all(isinstance(size, int) for size in given):
        return tuple(given) if len(given) != 2 else (3, *given)
    side = getattr(module, "image_size", None)
    if isinstance(side, int):
        return (3, side, side)
    if type(module).__name__ == "Inception3":
        return (3, 299, 299)
    return DEFAULT_INPUT


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    pretrained = bool(options.pop("download", False))
    if not name.startswith(("hf-hub:", "hf_hub:")):
        if not timm.is_model(name.split(".")[0]):
            close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.6)
            raise UsageProblem(
                f"timm has no model {name!r}; "
                + (f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()")
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
                raise
        # Networks of convolutions take any size without being built for it.
        return timm.create_model(name, pretrained=pretrained, **{k: v for k, v in options.items() if k != "img_size"})

    return _built(f"timm:{name}", build)


def _torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        raise UsageProblem(
            f"torchvision has no classification model {name!r}; "
            + (f"did you mean {' or '.join(close)}?" if close else "see torchvision.models.list_models()")
        )
    weights = "DEFAULT" if options.pop("download", False) else None
    builder = torchvision.models.get_model_builder(name)
    if "init_weights" in inspect.signature(builder).parameters or name in ("googlenet", "inception_v3"):
        options.setdefault("init_weights", False)  # their initialisation takes a minute of scipy
    return _built(f"torchvision:{name}", lambda: builder(weights=weights, **options))


def _module(name: str, options: dict[str, Any]) -> nn.Module:
    path, _, attribute = name.partition(":")
    if not path or not attribute:
        raise UsageProblem(
            f"module:{name}: expected module:PACKAGE.MODULE:BUILDER, a function or class that makes "
            "the network (this imports and runs that code)"
        )
    options.pop("download", None)
    with _importable_from_here():
        try:
            thing: Any = importlib.import_module(path)
        except ImportError as error:
            raise UsageProblem(f"module:{name}: cannot import {path}: {error}") from None
        except (Exception, SystemExit) as error:
            raise UsageProblem(f"module:{name}: importing {path} raised {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(thing, part):
            close = difflib.get_close_matches(part, dir(thing), n=1)
            raise UsageProblem(
                f"module:{name}: {path} has no {part}" + (f" (did you mean {close[0]}?)" if close else "")
            )
        thing = getattr(thing, part)
    if isinstance(thing, nn.Module):
        return unwrapped(thing)
    if not callable(thing):
        raise UsageProblem(
            f"module:{name} is a {type(thing).__name__}, expected a function or class that makes an nn.Module"
        )
    accepted = _accepted(thing, options)
    try:
        built = _built(f"module:{name}", lambda: thing(**accepted))
    except StabilityKitError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may fail in any way, and it is no plugin
        raise UsageProblem(f"module:{name}: the builder raised {type(error).__name__}: {error}") from error
    if not isinstance(built, nn.Module):
        raise UsageProblem(f"module:{name} made a {type(built).__name__}, expected an nn.Module")
    return unwrapped(built)


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile, which compute what it computes."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _accepted(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options a builder has parameters for."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return {}
    return {key: value for key, value in options.items() if key in parameters}


def _built(owner: str, build: Any) -> Any:
    try:
        return build()
    except ModuleNotFoundError as error:
        raise UsageProblem(
            f"{owner} needs the package {error.name}, which is not installed: pip install {error.name}"
        ) from None
    except ImportError as error:
        raise UsageProblem(f"{owner} needs an optional package: {error}") from None
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageProblem(f"{owner} cannot be built with these options: {error}") from None


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _importable_from_here() -> Iterator[None]:
    """The current folder in front of the import path, as ``python -m`` has it."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
