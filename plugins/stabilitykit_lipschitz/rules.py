"""Which aten op does what to an affine function of states. Ops are known by identity, never by name."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch.nn import functional
from torch.utils._pytree import tree_iter, tree_map

from stabilitykit_lipschitz import folding
from stabilitykit_lipschitz.activations import ACTIVATIONS, NoRule
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.rounding import UNIT
from stabilitykit_lipschitz.slopes import named
from stabilitykit_lipschitz.trace import Trace, Traced, UnsupportedModule

aten = torch.ops.aten
Rule = Callable[[Trace, Any, dict], Any]


# -- moving coordinates ----------------------------------------------------------------------------------------------


def _select(trace: Trace, func: Any, given: dict) -> Any:
    """Ops that move, repeat or drop coordinates, found by moving their positions; constants among them stay."""
    parts: list[Traced] = []

    def positions(t: Any) -> Any:
        """0 stands for a constant; positions are exact in float64."""
        if not isinstance(t, Traced):
            is_number = isinstance(t, torch.Tensor) and t.is_floating_point()
            return torch.zeros_like(t, dtype=torch.float64) if is_number else t
        start = sum(p.held.size for p in parts)
        parts.append(t)
        return 1.0 + t.positions.double() % t.held.size + start + (t.positions // t.held.size) * width

    traced = [t for t in tree_iter(given) if isinstance(t, Traced)]
    for t in traced:
        if t.held.unreadable:
            trace.refuse(t.held.unreadable)
    width = sum(t.held.size for t in traced)
    with torch._C._DisableTorchDispatch():
        moved = run(func, tree_map(positions, given))
        fixed = run(func, tree_map(lambda t: torch.zeros(t.shape).double() if isinstance(t, Traced) else t, given))
    index = moved.reshape(-1).long()
    if (index == 0).any():
        if len(index) % trace.batch:
            trace.refuse("mixes the samples of a batch")
        rows, perm = index.numpy().reshape(trace.batch, -1), None
        steps = width * np.arange(trace.batch)[:, None]
        rows = np.where(rows > 0, rows - steps, 0)
        if not (rows == rows[:1]).all() or rows.min() < 0 or rows.max() > width:
            trace.refuse("mixes the samples of a batch")
        order = rows[0] - 1
    else:
        order, perm = trace.order(index - 1, width)
    values = [p.held.value for p in parts]
    if (order < 0).any():
        values.append(trace.algebra.constant(np.zeros(1)))
        order = np.where(order < 0, width, order)
    shape = (len(order),)
    value = (
        trace.algebra.gather(order, values[0], shape) if len(values) == 1 else trace.algebra.stack(values, order, shape)
    )
    if fixed.any():
        value = trace.algebra.shifted(value, trace.constant(fixed, tuple(fixed.shape), perm))
    return trace.place(value, trace.execute(func, given), tuple(moved.shape), perm)


def run(func: Any, given: dict) -> Any:
    schema = func._schema.arguments
    positional = [given[a.name] for a in schema if not a.kwarg_only]
    return func(*positional, **{a.name: given[a.name] for a in schema if a.kwarg_only})


def _cast(trace: Trace, func: Any, given: dict) -> Any:
    if given["dtype"] not in (None, torch.float32, torch.float64):
        trace.refuse(f"rounds a tensor to {given['dtype']}, which makes it a step function")
    device = given["device"]
    if device is not None and torch.device(device).type != "cpu":
        trace.refuse(f"moves a tensor to {device} inside its forward; expected it to stay where its input is")
    return _select(trace, aten.clone.default, {"self": given["self"], "memory_format": None})


def _filled(trace: Trace, func: Any, given: dict) -> Traced:
    """copy, fill and zero: the new content, broadcast."""
    target = given["self"]
    source = given.get("src", given.get("value", 0.0))
    if isinstance(source, Traced):
        return source
    _, perm = trace.order(target.positions, target.held.size)
    shape = tuple(target.shape)
    value = trace.algebra.constant(trace.constant(source, shape, perm))
    return trace.place(value, torch.as_tensor(source, dtype=torch.float64).expand(shape), shape, perm)


def _same(trace: Trace, func: Any, given: dict) -> Any:
    """Shapes and fresh constants: nothing of the numbers is used."""
    return trace.execute(func, given)


# -- affine maps -----------------------------------------------------------------------------------------------------


def _linear(trace: Trace, func: Any, given: dict) -> Traced:
    """Ops that are affine in their first argument, sample by sample: their matrix is measured."""
    name = "self" if "self" in given else "input"
    x = given[name]
    others = {k: v for k, v in given.items() if k != name}
    if not isinstance(x, Traced) or any(isinstance(t, Traced) for t in tree_iter(others)):
        trace.refuse(f"runs {func} with weights that depend on the input")
    value, perm = trace.read(x)
    if perm is not None or len(x.shape) < 2 or x.shape[0] != trace.batch:
        trace.refuse(f"runs {func} on a tensor that does not keep the batch dimension first")
    without = {**given, "bias": None} if "bias" in given else given
    shape = tuple(x.shape[1:])

    def act(given: dict, batch: torch.Tensor) -> torch.Tensor:
        with torch._C._DisableTorchDispatch():
            return run(func, {**given, name: batch})

    zero = act(without, torch.zeros(1, *shape).double())
    matrix, out = folding.matrix_of(lambda b: (act(without, torch.from_numpy(b)) - zero).numpy(), shape)
    result = trace.algebra.apply(matrix, value, (prod(out),), 4 * UNIT * folding.norm(matrix))
    offset = act(given, torch.zeros(1, *shape).double()).reshape(-1).numpy()
    sample = trace.execute(func, given)
    if sample.shape[0] != trace.batch or prod(out) != len(offset):
        trace.refuse(f"runs {func}, which mixes the samples of a batch")
    return trace.place(trace.algebra.shifted(result, offset), sample, tuple(sample.shape))


def _rows_times(trace: Trace, x: Traced, weight: torch.Tensor, sample: torch.Tensor) -> Traced:
    """x (R, n) times weight (n, m), row by row; each row belongs to one sample."""
    value, perm = trace.read(x)
    n, m = weight.shape
    count = value.size // n if n else 0
    row_perm = None
    if perm is not None:
        rows = perm.reshape(-1, n)
        if not (rows[:, :1] % n == 0).all() or not (rows == rows[:, :1] + np.arange(n)).all():
            trace.refuse("multiplies across the samples of a batch")
        row_perm = (rows[:, :1] // n * m + np.arange(m)).reshape(-1)
    if count * n != value.size:
        trace.refuse("multiplies across the samples of a batch")
    w = trace.constant(weight, (trace.batch, *weight.shape), None).reshape(n, m).T
    return trace.place(trace.algebra.repeated(w, count, value), sample, tuple(sample.shape), row_perm)


def _product(trace: Trace) -> None:
    trace.refuse("multiplies two tensors that both depend on the input")


def _mm(trace: Trace, func: Any, given: dict) -> Any:
    a, b = given["self"], given["mat2"]
    if isinstance(a, Traced) and isinstance(b, Traced):
        _product(trace)
    if isinstance(a, Traced):
        return _rows_times(trace, a, b, trace.execute(func, given))
    return trace.view(aten.t.default, trace.call(aten.mm.default, trace.view(aten.t.default, b), a.t()))


def _mv(trace: Trace, func: Any, given: dict) -> Any:
    a, b = given["self"], given["vec"]
    if isinstance(b, Traced):
        _product(trace)
    out = trace.call(aten.mm.default, a, b.unsqueeze(1))
    return trace.view(aten.squeeze.dim, out, 1)


def _bmm(trace: Trace, func: Any, given: dict) -> Any:
    a, b = given["self"], given["mat2"]
    if isinstance(a, Traced) and isinstance(b, Traced):
        _product(trace)
    if not isinstance(a, Traced):
        a, b = trace.view(aten.transpose.int, b, 1, 2), a.transpose(1, 2)
        return trace.view(aten.transpose.int, trace.call(aten.bmm.default, a, b), 1, 2)
    if not bool((b == b[:1]).all()):
        trace.refuse("multiplies by matrices that differ along the first dimension")
    return _rows_times(trace, a, b[0], trace.execute(func, {"self": a, "mat2": b}))


def _plus_product(product: Any) -> Rule:
    """beta * self + alpha * (product of the other two)."""

    def rule(trace: Trace, func: Any, given: dict) -> Any:
        first, second = [v for k, v in given.items() if k not in ("self", "beta", "alpha")][:2]
        out = trace.call(product, first, second) if _any(first, second) else product(first, second)
        if given["alpha"] != 1:
            out = _scaled_by(trace, out, given["alpha"])
        if given["beta"] == 0:
            return out
        bias = given["self"] if given["beta"] == 1 else _scaled_by(trace, given["self"], given["beta"])
        return trace.call(aten.add.Tensor, out, bias)

    return rule


def _any(*values: Any) -> bool:
    return any(isinstance(v, Traced) for v in values)


def _scaled_by(trace: Trace, value: Any, factor: Any) -> Any:
    return trace.call(aten.mul.Tensor, value, factor) if isinstance(value, Traced) else value * factor


def _shape(*values: Any) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*(v.shape for v in values if isinstance(v, torch.Tensor))))


def _sum(trace: Trace, a: Any, b: Any, alpha: Any, func: Any, given: dict) -> Traced:
    """a + alpha b."""
    shape = _shape(a, b)
    sample = trace.execute(func, given)
    if _any(a) and _any(b):
        (x, perm), (y, other) = trace.read(a, shape), trace.read(b, shape)
        if not (perm is other is None or (perm is not None and other is not None and (perm == other).all())):
            trace.refuse("adds tensors of different samples of a batch")
        if alpha not in (1, -1):
            y = trace.algebra.scale(np.full(y.size, float(alpha)), y, 0.0)
        return trace.place(trace.algebra.combine(x, y, -1.0 if alpha == -1 else 1.0), sample, shape, perm)
    x, perm = trace.read(a if _any(a) else b, shape)
    c = trace.constant(b if _any(a) else a, shape, perm)
    if not _any(a) and alpha != 1:
        x = trace.algebra.scale(np.full(x.size, float(alpha)), x, 0.0)
    return trace.place(trace.algebra.shifted(x, c * float(alpha) if _any(a) else c), sample, shape, perm)


def _add(trace: Trace, func: Any, given: dict) -> Traced:
    return _sum(trace, given["self"], given["other"], given["alpha"], func, given)


def _sub(trace: Trace, func: Any, given: dict) -> Traced:
    return _sum(trace, given["self"], given["other"], -given["alpha"], func, given)


def _rsub(trace: Trace, func: Any, given: dict) -> Traced:
    return _sum(trace, given["other"], given["self"], -given["alpha"], func, given)


def _scale(trace: Trace, x: Traced, factor: Any, inverse: bool, sample: torch.Tensor) -> Traced:
    shape = _shape(x, factor)
    value, perm = trace.read(x, shape)
    f = trace.constant(factor, shape, perm)
    with np.errstate(all="ignore"):
        out = trace.algebra.scale(1.0 / f if inverse else f, value, 2 * UNIT if inverse else 0.0)
    return trace.place(out, sample, shape, perm)


def _mul(trace: Trace, func: Any, given: dict) -> Traced:
    a, b = given["self"], given["other"]
    if _any(a) and _any(b):
        return _gated(trace, a, b, trace.execute(func, given))
    return _scale(trace, a if _any(a) else b, b if _any(a) else a, False, trace.execute(func, given))


def _gated(trace: Trace, a: Traced, b: Traced, sample: torch.Tensor) -> Traced:
    """z * sigmoid(k z), the only product of two dependent tensors with bounded slopes that is known here."""
    for x, gate in ((a, b), (b, a)):
        (z, perm), (g, other) = trace.read(x), trace.read(gate)
        if x.shape != gate.shape or perm is not None or other is not None or list(g.maps) == [] or g.bias.any():
            continue
        (level, matrix), *rest = g.maps.items()
        is_state = sparse.issparse(matrix) and matrix.shape[0] == matrix.shape[1] and level > 0 and not rest
        if not is_state or (matrix != sparse.identity(matrix.shape[0])).nnz:
            continue
        layer = trace.layers[level - 1]
        rate = _ratio(layer.blocks, layer.bias, folding.dense_blocks(z, "a gate"), z.bias)
        if layer.activation.name == "sigmoid" and rate is not None:
            return trace.activate(x, named("silu") if rate == 1.0 else _swish(rate), sample, None, z)
    _product(trace)
    raise AssertionError


def _swish(rate: float) -> Any:
    from stabilitykit_lipschitz.slopes import silu

    return silu(rate, "swish")


def _ratio(left: dict, left_bias: np.ndarray, right: dict, right_bias: np.ndarray) -> float | None:
    """k with left = k * right exactly, or None; k must be positive."""
    if sorted(left) != sorted(right):
        return None
    a = np.concatenate([*(left[k].ravel() for k in sorted(left)), left_bias])
    b = np.concatenate([*(right[k].ravel() for k in sorted(left)), right_bias])
    if not b.any():
        return None
    at = int(np.abs(b).argmax())
    rate = float(a[at] / b[at])
    # k z is rounded once per entry: far below the outward rounding of the slopes
    return rate if rate > 0 and (np.abs(a - rate * b) <= 8 * UNIT * np.abs(a)).all() else None


def _div(trace: Trace, func: Any, given: dict) -> Traced:
    a, b = given["self"], given["other"]
    if _any(b):
        trace.refuse("divides by a tensor that depends on the input")
    return _scale(trace, a, b, True, trace.execute(func, given))


def _neg(trace: Trace, func: Any, given: dict) -> Traced:
    return _scale(trace, given["self"], -1.0, False, trace.execute(func, given))


def _masked_fill(trace: Trace, func: Any, given: dict) -> Traced:
    mask, value = given["mask"], given["value"]
    if _any(mask, value):
        trace.refuse("chooses by values of its input")
    kept = trace.call(aten.mul.Tensor, given["self"], (~mask).double())
    return trace.call(aten.add.Tensor, kept, torch.where(mask, torch.as_tensor(value, dtype=torch.float64), 0.0))


def _where(trace: Trace, func: Any, given: dict) -> Traced:
    mask, a, b = given["condition"], given["self"], given["other"]
    if _any(mask):
        trace.refuse("chooses by values of its input")
    first, second = ((t, k.double()) for t, k in ((a, mask), (b, ~mask)))
    return trace.call(
        aten.add.Tensor,
        *(_scaled_by(trace, t, k) if _any(t) else torch.where(k.bool(), t, 0.0) for t, k in (first, second)),
    )


# -- normalisation, activations, softmax -----------------------------------------------------------------------------


def _batch_norm(trace: Trace, func: Any, given: dict) -> Any:
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


def _layer_norm(trace: Trace, func: Any, given: dict) -> Any:
    sample = trace.execute(func, given)
    x, width = given["input"], prod(given["normalized_shape"])
    out = _normalise(trace, x, width, given["eps"], True, given["weight"], given["bias"], sample[0])
    return (out, *(trace.opaque(s, "uses the statistics of a LayerNorm") for s in sample[1:]))


def _rms_norm(trace: Trace, x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Traced:
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
    if perm is not None or _any(weight, bias):
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


def _activation(trace: Trace, func: Any, given: dict) -> Any:
    x = given["self"]
    if not isinstance(x, Traced):
        trace.refuse(f"runs {func} with parameters that depend on the input")
    value, perm = trace.read(x)

    def parameter(p: Any) -> np.ndarray:
        return trace.constant(p, tuple(x.shape), perm)

    if any(_any(t) for k, t in given.items() if k not in ("self", "noise")):
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


def _named(name: str, torchs: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Traced]:
    def rule(trace: Trace, x: Any, **_: Any) -> Traced:
        with torch._C._DisableTorchDispatch():
            sample = torchs(trace.sample(x))
        value, perm = trace.read(x)
        return trace.activate(x, named(name), sample, perm, value)

    return rule


def _softmax(trace: Trace, func: Any, given: dict) -> Traced:
    x = given["self"]
    value, perm = trace.read(x)
    if perm is not None or len(x.shape) != 2 or given["dim"] not in (1, -1) or x.shape[0] != trace.batch:
        trace.refuse("takes a softmax; expected one over the classes of a (batch, K) tensor")
    out = trace.place(value, trace.sample(x), tuple(x.shape))
    out.held.softmax = True
    out.held.unreadable = "goes on after a softmax; expected the softmax to be the last step"
    return out


def _dependent(trace: Trace, func: Any, given: dict) -> Any:
    trace.refuse(f"decides by values of its input ({func}); expected the same operations for every input")


def _pad(trace: Trace, x: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    """torch's padding; a circular one reads positions around the end instead of writing into a new tensor."""
    if mode != "circular":
        return functional.pad(x, pad, mode, value)
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2])):
        size = x.shape[-1 - axis]
        if not 0 <= before <= size or not 0 <= after <= size:
            trace.refuse("pads around the end by a negative number or more than once")
        x = x.index_select(-1 - axis, torch.arange(-before, size + after) % size)
    return x


SELECTIONS = (
    *(aten.clone.default, aten._unsafe_view.default, aten.index.Tensor, aten.index_select.default, aten.flip.default),
    *(aten.roll.default, aten.cat.default, aten.stack.default, aten.repeat.default, aten.pixel_shuffle.default),
    *(aten.pixel_unshuffle.default, aten.channel_shuffle.default, aten.native_channel_shuffle.default),
    *(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.replication_pad1d.default),
    *(aten.replication_pad2d.default, aten._reshape_copy.default, aten.view_copy.default, aten.lift.default),
)
LINEAR = (
    *(aten.convolution.default, aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default),
    *(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default, aten.adaptive_avg_pool1d.default),
    *(aten.mean.dim, aten.sum.dim_IntList, aten.cumsum.default, aten.constant_pad_nd.default),
    *(aten.upsample_nearest1d.default, aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default),
    *(aten.upsample_linear1d.default,),
)
FACTORIES = (
    *(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default),
    *(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default),
)
COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne")
DECISIONS = (
    *(aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default, aten.nonzero.default),
    *(
        getattr(getattr(aten, name), kind)
        for name in ("gt", "ge", "lt", "le", "eq", "ne")
        for kind in ("Tensor", "Scalar")
    ),
)
RULES: dict[Any, Rule] = {
    **dict.fromkeys(SELECTIONS, _select),
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(FACTORIES, _same),
    **dict.fromkeys(DECISIONS, _dependent),
    **dict.fromkeys(ACTIVATIONS, _activation),
    aten._to_copy.default: _cast,
    aten.copy.default: _filled,
    aten.fill.Scalar: _filled,
    aten.fill.Tensor: _filled,
    aten.zero.default: _filled,
    aten.mm.default: _mm,
    aten.mv.default: _mv,
    aten.bmm.default: _bmm,
    aten.addmm.default: _plus_product(aten.mm.default),
    aten.addmv.default: _plus_product(aten.mv.default),
    aten.baddbmm.default: _plus_product(aten.bmm.default),
    aten.add.Tensor: _add,
    aten.add.Scalar: _add,
    aten.sub.Tensor: _sub,
    aten.sub.Scalar: _sub,
    aten.rsub.Tensor: _rsub,
    aten.rsub.Scalar: _rsub,
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.div.Scalar: _div,
    aten.neg.default: _neg,
    aten.masked_fill.Scalar: _masked_fill,
    aten.masked_fill.Tensor: _masked_fill,
    aten.where.self: _where,
    aten.native_batch_norm.default: _batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten._softmax.default: _softmax,
}
# Functions of torch that are more than one op, taken whole: their bounds are tighter than those of their parts.
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.pad: _pad,
    functional.softsign: _named("softsign", functional.softsign),
    functional.tanhshrink: _named("tanhshrink", functional.tanhshrink),
    functional.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
}
