"""The component ``module``: a network made by the user's own code."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabilitykit import StabilityKitError, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit.base.names import did_you_mean
from stabilitykit.training.checkpoints import Loading, read_checkpoint
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.adapting import View, adapt, materialised, read_weights
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_adapters.source import NetworkSource, built, quietly

DEFAULT_INPUT = (3, 224, 224)


class ModuleSource(NetworkSource):
    """``module:PACKAGE.MODULE:BUILDER``."""

    def __call__(
        self,
        builder: str,
        *,
        input: Sequence[int] | None = None,
        resize: bool = False,
        checkpoint: str | None = None,
        allow_unused: str | None = None,
        resample: bool = False,
        weights: str | None = None,
        num_classes: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> AdaptedModel:
        """A network made by the user's own code (imports and runs it). Options as listed in the plugin's schema."""
        name = f"module:{builder}"
        pixels, view = Pixels.taken(options), View.taken(options)
        pixels.statistics(name, None)  # a slip is found before the network is built
        if view.classes and num_classes == len(view.classes) and max(view.classes) >= num_classes:
            num_classes = None  # the number of the dataset's classes, which are some of the outputs
        found = None if checkpoint is None else read_checkpoint(checkpoint)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module, shape = self.outline(builder=builder, num_classes=num_classes, input=input)
            shape = with_side(shape, pixels.size)
            module = materialised(module, shape, name)
        preprocess, preprocessing = plain_preprocess(shape, pixels, resize, name)
        how = Loading.of(allow_unused, resample, weights)
        module, record = read_weights(module, found, name, f"untrained, as its builder made them (seed {seed})", how)
        return adapt(
            module,
            shape,
            name=name,
            preprocess=preprocess,
            preprocessing=preprocessing,
            view=view,
            num_classes=num_classes,
            record=record,
            hint="" if input else "; give its input size as input=CxHxW",
        )

    def outline(
        self, builder: str, *, num_classes: int | None = None, input: Sequence[int] | None = None, **options: Any
    ) -> tuple[nn.Module, tuple[int, ...]]:
        given = {} if num_classes is None else {"num_classes": num_classes}
        with quietly():
            module = build_module(builder, given)
        return module, tuple(input) if input else declared_shape(module)


def with_side(shape: tuple[int, ...], side: int | None) -> tuple[int, ...]:
    return shape if side is None or len(shape) != 3 else (shape[0], side, side)


module_model = ModuleSource()


def declared_shape(module: nn.Module) -> tuple[int, ...]:
    """(C, H, W) of one input as far as the module says: ``input_size``, ``input_shape`` or ``image_size``.

    Networks of the package transformers say it in their ``config``.
    """
    given = getattr(module, "input_size", None) or getattr(module, "input_shape", None)
    if isinstance(given, (tuple, list)) and len(given) >= 1 and all(isinstance(size, int) for size in given):
        return tuple(given) if len(given) != 2 else (3, *given)
    config = getattr(module, "config", None)
    side = getattr(module, "image_size", None) or getattr(config, "image_size", None)
    channels = getattr(config, "num_channels", 3)
    channels = channels if isinstance(channels, int) else 3
    if isinstance(side, int):
        return (channels, side, side)
    if isinstance(side, (tuple, list)) and len(side) == 2 and all(isinstance(size, int) for size in side):
        return (channels, *side)
    return (channels, *DEFAULT_INPUT[1:])


def build_module(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network made by PACKAGE.MODULE:BUILDER (imports and runs that code), unwrapped.

    Arguments:
        options: for the builder; those it has no parameter for are left out.

    Raises:
        UsageProblem: it cannot be imported or called, or makes something else.
    """
    path, _, attribute = name.partition(":")
    if not path or not attribute:
        raise UsageProblem(
            f"module:{name}: expected module:PACKAGE.MODULE:BUILDER, a function or class that makes "
            "the network (this imports and runs that code)"
        )
    with _importable_from_here():
        try:
            thing: Any = importlib.import_module(path)
        except ImportError as error:
            raise UsageProblem(f"module:{name}: cannot import {path}: {error}") from None
        except (Exception, SystemExit) as error:
            raise UsageProblem(f"module:{name}: importing {path} raised {describe(error)}") from error
    for part in attribute.split("."):
        if not hasattr(thing, part):
            raise UsageProblem(f"module:{name}: {path} has no {part}{did_you_mean(part, dir(thing))}")
        thing = getattr(thing, part)
    if isinstance(thing, nn.Module):
        return unwrapped(thing)
    if not callable(thing):
        raise UsageProblem(
            f"module:{name} is a {type(thing).__name__}, expected a function or class that makes an nn.Module"
        )
    accepted = _accepted(thing, options)
    try:
        made = built(f"module:{name}", lambda: thing(**accepted))
    except StabilityKitError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may fail in any way, and it is no plugin
        raise UsageProblem(f"module:{name}: the builder raised {describe(error)}") from error
    if not isinstance(made, nn.Module):
        raise UsageProblem(f"module:{name} made a {type(made).__name__}, expected an nn.Module")
    return unwrapped(made)


def unwrapped(module: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel and torch.compile, which compute what it computes."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _accepted(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options a builder has parameters for."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return {}
    return {key: value for key, value in options.items() if key in parameters}


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
