"""Rules of normalisation, activations and softmax, and of decisions by values, which have none."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch

from stabilitykit_lipschitz.activations import ACTIVATIONS, NoRule
from stabilitykit_lipschitz.affine_rules import any_traced
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.rounding import UNIT
from stabilitykit_lipschitz.slopes import named
from stabilitykit_lipschitz.trace import Trace, Traced, UnsupportedModule

aten = torch.ops.aten
COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne")
DECISIONS = (
    *(aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default),
    *(getattr(getattr(aten, name), kind) for name in COMPARISONS for kind in ("Tensor", "Scalar")),
)


def batch_norm(trace: Trace, func: Any, given: dict) -> Any:
    x, mean, var = given["input"], given["running_mean"], given["running_var"]
    if given.get("training", False) or mean is None or var is None:
        trace.refuse(
            "normalises by the statistics of the whole batch (it keeps no running ones), so one sample's output has "
            "no Lipschitz constant; calibrate it first"
        )
    form = [1, -1] + [1] * (len(x.shape) - 2)
    sample = trace.execute(func, given)
    value, perm = trace.read(x)
    mean, var = (trace.constant(t.view(form), tuple(x.shape), perm) for t in (mean, var))
    gain, shift = (
        np.full(value.size, default) if t is None else trace.constant(t.view(form), tuple(x.shape), perm)
        for t, default in ((given["weight"], 1.0), (given["bias"], 0.0))
    )
    factor = gain / np.sqrt(var + given["eps"])
    out = trace.place(
        trace.algebra.shifted(trace.algebra.scale(factor, value, 6 * UNIT), shift - mean * factor),
        sample[0],
        tuple(x.shape),
        perm,
    )
    return (out, *sample[1:])


def layer_norm(trace: Trace, func: Any, given: dict) -> Any:
    sample = trace.execute(func, given)
    x, width = given["input"], prod(given["normalized_shape"])
    out = _normalise(trace, x, width, given["eps"], True, given["weight"], given["bias"], sample[0])
    return (out, *(trace.opaque(s, "uses the statistics of a LayerNorm") for s in sample[1:]))


def rms_norm(trace: Trace, x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Traced:
    if not isinstance(x, Traced) or isinstance(weight, Traced):
        trace.refuse("scales a normalisation by a tensor that depends on the input")
    eps = torch.finfo(torch.float64).eps if eps is None else float(eps)
    with torch._C._DisableTorchDispatch():
        w = None if weight is None else weight.detach().double()
        sample = torch.rms_norm(trace.sample(x), normalized_shape, w, eps)
    return _normalise(trace, x, prod(normalized_shape), eps, False, weight, None, sample)


def _normalise(
    trace: Trace, x: Traced, width: int, eps: float, centred: bool, weight: Any, bias: Any, sample: torch.Tensor
) -> Traced:
    value, perm = trace.read(x)
    if perm is not None or any_traced(weight, bias):
        trace.refuse("normalises a tensor that does not keep the batch dimension first")
    groups, parts = value.size // width, []
    for group in range(groups):
        piece = trace.algebra.gather(np.arange(group * width, (group + 1) * width), value, (width,))
        if centred:
            piece = trace.algebra.apply(np.eye(width) - 1.0 / width, piece, (width,), 2 * UNIT * np.sqrt(width))
        activation = Normalisation(eps)
        parts.append(trace.layer(activation, piece, activation.value(trace.predicted(piece)[0])))
    out = trace.algebra.stack(parts, np.arange(value.size), (value.size,)) if groups > 1 else parts[0]
    if weight is not None:
        out = trace.algebra.scale(np.tile(trace.constant(weight, (trace.batch, *weight.shape), None), groups), out, 0.0)
    if bias is not None:
        out = trace.algebra.shifted(out, np.tile(trace.constant(bias, (trace.batch, *bias.shape), None), groups))
    return trace.place(out, sample, tuple(x.shape))


def activation(trace: Trace, func: Any, given: dict) -> Any:
    x = given["self"]
    if not isinstance(x, Traced):
        trace.refuse(f"runs {func} with parameters that depend on the input")
    value, perm = trace.read(x)

    def parameter(p: Any) -> np.ndarray:
        return trace.constant(p, tuple(x.shape), perm)

    if any(any_traced(t) for k, t in given.items() if k not in ("self", "noise")):
        trace.refuse(f"runs {func} with parameters that depend on the input")
    try:
        activation = ACTIVATIONS[func](given, parameter)
    except NoRule as error:
        raise UnsupportedModule(f"{trace.where()}: {error}") from error
    result = trace.execute(func, given)
    if isinstance(result, tuple):
        out = trace.activate(x, activation, result[0], perm, value)
        return (out, *(trace.opaque(r, f"uses a by-product of {func}") for r in result[1:]))
    return trace.activate(x, activation, result, perm, value)


def whole_function(name: str, torchs: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Traced]:
    def rule(trace: Trace, x: Any, **_: Any) -> Traced:
        with torch._C._DisableTorchDispatch():
            sample = torchs(trace.sample(x))
        value, perm = trace.read(x)
        return trace.activate(x, named(name), sample, perm, value)

    return rule


def softmax(trace: Trace, func: Any, given: dict) -> Traced:
    x = given["self"]
    value, perm = trace.read(x)
    if perm is not None or len(x.shape) != 2 or given["dim"] not in (1, -1) or x.shape[0] != trace.batch:
        trace.refuse("takes a softmax; expected one over the classes of a (batch, K) tensor")
    out = trace.place(value, trace.sample(x), tuple(x.shape))
    out.held.softmax = True
    out.held.unreadable = "goes on after a softmax; expected the softmax to be the last step"
    return out


def dependent(trace: Trace, func: Any, given: dict) -> Any:
    trace.refuse(f"decides by values of its input ({func}); expected the same operations for every input")
