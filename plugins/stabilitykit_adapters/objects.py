"""A network given in Python: a copy of it is looked at, so that the object itself is never touched."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from stabilitykit import UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.adapting import View, adapt, materialised, read_weights
from stabilitykit_adapters.modules import declared_shape, unwrapped, with_side
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_adapters.source import NetworkSource


class ObjectSource(NetworkSource):
    """An ``nn.Module`` as it is: its weights, whatever its mode and device."""

    def __call__(
        self,
        thing: nn.Module,
        *,
        name: str,
        input: Sequence[int] | None = None,
        expected_shape: Sequence[int] | None = None,
        resize: bool = False,
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> AdaptedModel:
        """Options as listed in the plugin's schema.

        Arguments:
            thing: the network; it is copied to the CPU, in eval mode.
            name: what results call it.
            class_names: of all its outputs, in their order.
        """
        pixels, view = Pixels.taken(options), View.taken(options)
        pixels.statistics(name, None)  # a slip is found before anything is copied
        module, declared = self.outline(thing, name=name, input=input or expected_shape)
        shape = with_side(declared, pixels.size)
        with torch.random.fork_rng(devices=[]):
            module = materialised(module, shape, name)
        preprocess, preprocessing = plain_preprocess(shape, pixels, resize, name)
        module, record = read_weights(module, None, name, "those of the object given in Python")
        classes = [type(part) for part in module.modules()]
        record |= {
            "architecture": f"{type(module).__module__}.{type(module).__qualname__}",
            "code": source_digest(classes),
            "warnings": _hooks(module),
        }
        if class_names is not None:
            record["class_names"] = [str(c) for c in class_names]
        return adapt(
            module,
            shape,
            name=name,
            preprocess=preprocess,
            preprocessing=preprocessing,
            view=view,
            record=record,
            hint=f"; it was run on inputs of {'x'.join(map(str, shape))}: give another size as input=(C, H, W)",
        )

    def outline(
        self, thing: nn.Module, *, name: str = "", input: Sequence[int] | None = None, **options: Any
    ) -> tuple[nn.Module, tuple[int, ...]]:
        module = private_copy(unwrapped(thing), name or type(thing).__name__).cpu().eval()
        return module, tuple(input) if input else declared_shape(module)


network = ObjectSource()


def private_copy(module: nn.Module, name: str) -> nn.Module:
    """A deep copy that shares no tensor with ``module``; UsageProblem where it cannot be copied."""
    memo: dict[int, Any] = {}
    for part in module.modules():  # weight_norm of old keeps the weight it computed last, which deepcopy refuses
        for kept in vars(part).values():
            if isinstance(kept, torch.Tensor) and not kept.is_leaf:
                memo[id(kept)] = kept.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise UsageProblem(
            f"model {name}: it cannot be copied ({describe(error, 200)}), and it is not touched itself; give it by "
            "the function that builds it, as module:PACKAGE.MODULE:BUILDER"
        ) from error


def source_digest(classes: Sequence[type]) -> str:
    """Hex digest of what is written about those of ``classes`` that are not torch's own, as far as it can be read.

    Of a class without readable source (typed at a prompt) its name alone counts.
    """
    digest = hashlib.sha256()
    for cls in dict.fromkeys(classes):
        if cls.__module__.partition(".")[0] == "torch":
            continue
        try:
            text = inspect.getsource(cls)
        except (OSError, TypeError):
            text = ""
        digest.update(f"{cls.__qualname__}\n{text}\n".encode())
    return digest.hexdigest()


def _hooks(module: nn.Module) -> list[str]:
    """A warning where the owner's hooks run with the network."""
    count = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())
    return [f"the network has {count} forward hooks of its owner, which run with it"] if count else []
