"""Build networks by name: timm, torchvision, or a user's own builder; local weights, nothing downloaded unasked."""

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

from stabilitykit import UsageProblem
from stabilitykit.checkpoints import fit_weights, load_weights

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
    raise UsageProblem(f"unknown model {spec!r}; expected timm:NAME, torchvision:NAME, hf-hub:ORG/NAME or "
                       "module:PACKAGE.MODULE:BUILDER")


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


def input_shape_of(module: nn.Module) -> tuple[int, ...]:
    """(C, H, W) a network was made for, as far as it says so."""
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


def load(module: nn.Module, checkpoint: str | Path, owner: str) -> Mapping[str, Any]:
    """Read weights from a local file into ``module``; returns the file's metadata.

    safetensors, or pickles under ``weights_only`` only; prefixes of DataParallel and torch.compile are removed;
    where keys do not fit, timm's own converter for that family is tried.

    Raises:
        DataProblem: unreadable file, refused pickle (naming what it asked for), NaN weights.
        UsageProblem: it does not fit: missing, unexpected and mis-shaped names are listed.
    """
    state, metadata = load_weights(checkpoint)
    for prefix in ("_orig_mod.", "module."):
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    wanted = module.state_dict()
    if state.keys() != wanted.keys() or any(state[k].shape != wanted[k].shape for k in wanted):
        state = _converted(module, state)
    fit_weights(module, state, f"{owner} ({checkpoint})")
    return metadata


def classes_in(checkpoint: str | Path, spec: str) -> int | None:
    """Number of classes a checkpoint was trained for, by the size of the classifier; None when it cannot be told."""
    library, _ = split_spec(spec)
    if library == "module":
        return None
    module = skeleton(spec)
    heads = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    config = getattr(module, "pretrained_cfg", None) or {}
    named = config.get("classifier") if isinstance(config, Mapping) else None
    names = [named] if isinstance(named, str) else list(named or ()) or heads[-1:]
    state, _ = load_weights(checkpoint)
    for name in names:
        for prefix in ("", "_orig_mod.", "module."):
            weight = state.get(f"{prefix}{name}.weight")
            if weight is not None:
                return int(weight.shape[0])
    return None


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    pretrained = bool(options.pop("download", False))
    if not name.startswith(("hf-hub:", "hf_hub:")):
        if not timm.is_model(name.split(".")[0]):
            close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.6)
            raise UsageProblem(f"timm has no model {name!r}; " + (
                f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"))
    elif not pretrained:
        raise UsageProblem(f"{name} is fetched from the Hugging Face hub: add --download (or download=true), or give "
                           "timm:NAME with a local --checkpoint")
    return _built(f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained, **options))


def _torchvision(name: str, options: dict[str, Any]) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        raise UsageProblem(f"torchvision has no classification model {name!r}; " + (
            f"did you mean {' or '.join(close)}?" if close else "see torchvision.models.list_models()"))
    weights = "DEFAULT" if options.pop("download", False) else None
    builder = torchvision.models.get_model_builder(name)
    if "init_weights" in inspect.signature(builder).parameters or name in ("googlenet", "inception_v3"):
        options.setdefault("init_weights", False)  # their initialisation takes a minute of scipy
    return _built(f"torchvision:{name}", lambda: builder(weights=weights, **options))


def _module(name: str, options: dict[str, Any]) -> nn.Module:
    path, _, attribute = name.partition(":")
    if not path or not attribute:
        raise UsageProblem(f"module:{name}: expected module:PACKAGE.MODULE:BUILDER, a function or class that makes "
                           "the network (this imports and runs that code)")
    options.pop("download", None)
    with _importable_from_here():
        try:
            thing: Any = importlib.import_module(path)
        except ImportError as error:
            raise UsageProblem(f"module:{name}: cannot import {path}: {error}") from None
    for part in attribute.split("."):
        if not hasattr(thing, part):
            close = difflib.get_close_matches(part, dir(thing), n=1)
            raise UsageProblem(f"module:{name}: {path} has no {part}" + (
                f" (did you mean {close[0]}?)" if close else ""))
        thing = getattr(thing, part)
    if isinstance(thing, nn.Module):
        return thing
    if not callable(thing):
        raise UsageProblem(f"module:{name} is a {type(thing).__name__}, expected a function or class that makes an "
                           "nn.Module")
    accepted = _accepted(thing, options)
    built = _built(f"module:{name}", lambda: thing(**accepted))
    if not isinstance(built, nn.Module):
        raise UsageProblem(f"module:{name} made a {type(built).__name__}, expected an nn.Module")
    return built


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
        raise UsageProblem(f"{owner} needs the package {error.name}, which is not installed: "
                           f"pip install {error.name}") from None
    except ImportError as error:
        raise UsageProblem(f"{owner} needs an optional package: {error}") from None
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageProblem(f"{owner} cannot be built with these options: {error}") from None


def _converted(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` through the family's ``checkpoint_filter_fn``, if timm has one and it works."""
    convert = getattr(sys.modules.get(type(module).__module__), "checkpoint_filter_fn", None)
    if convert is None or not type(module).__module__.startswith("timm."):
        return state
    try:
        converted = convert(dict(state), module)
    except Exception:  # a converter for another format than this one; the plain mismatch is reported instead
        return state
    wanted = module.state_dict()
    fits = set(converted) >= {n for n in wanted if not n.endswith("num_batches_tracked")}
    return {k: v for k, v in converted.items() if k in wanted} if fits else state


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
