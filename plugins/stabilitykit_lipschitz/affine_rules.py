"""Rules of affine ops: products with constants, sums, scales; and gates that are an activation, x * sigmoid(x)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch.utils._pytree import tree_iter

from stabilitykit_lipschitz import folding
from stabilitykit_lipschitz.moving_rules import run
from stabilitykit_lipschitz.rounding import UNIT
from stabilitykit_lipschitz.slopes import named
from stabilitykit_lipschitz.trace import Trace, Traced

aten = torch.ops.aten
Rule = Callable[[Trace, Any, dict], Any]
LINEAR = (
    *(aten.convolution.default, aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default),
    *(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default, aten.adaptive_avg_pool1d.default),
    *(aten.mean.dim, aten.sum.dim_IntList, aten.cumsum.default, aten.constant_pad_nd.default),
    *(aten.upsample_nearest1d.default, aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default),
    *(aten.upsample_linear1d.default,),
)


def linear(trace: Trace, func: Any, given: dict) -> Traced:
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


def mm(trace: Trace, func: Any, given: dict) -> Any:
    a, b = given["self"], given["mat2"]
    if isinstance(a, Traced) and isinstance(b, Traced):
        _product(trace)
    if isinstance(a, Traced):
        return _rows_times(trace, a, b, trace.execute(func, given))
    return trace.view(aten.t.default, trace.call(aten.mm.default, trace.view(aten.t.default, b), a.t()))


def mv(trace: Trace, func: Any, given: dict) -> Any:
    a, b = given["self"], given["vec"]
    if isinstance(b, Traced):
        _product(trace)
    out = trace.call(aten.mm.default, a, b.unsqueeze(1))
    return trace.view(aten.squeeze.dim, out, 1)


def bmm(trace: Trace, func: Any, given: dict) -> Any:
    a, b = given["self"], given["mat2"]
    if isinstance(a, Traced) and isinstance(b, Traced):
        _product(trace)
    if not isinstance(a, Traced):
        a, b = trace.view(aten.transpose.int, b, 1, 2), a.transpose(1, 2)
        return trace.view(aten.transpose.int, trace.call(aten.bmm.default, a, b), 1, 2)
    if not bool((b == b[:1]).all()):
        trace.refuse("multiplies by matrices that differ along the first dimension")
    return _rows_times(trace, a, b[0], trace.execute(func, {"self": a, "mat2": b}))


def plus_product(product: Any) -> Rule:
    """beta * self + alpha * (product of the other two)."""

    def rule(trace: Trace, func: Any, given: dict) -> Any:
        first, second = [v for k, v in given.items() if k not in ("self", "beta", "alpha")][:2]
        out = trace.call(product, first, second) if any_traced(first, second) else product(first, second)
        if given["alpha"] != 1:
            out = _scaled_by(trace, out, given["alpha"])
        if given["beta"] == 0:
            return out
        bias = given["self"] if given["beta"] == 1 else _scaled_by(trace, given["self"], given["beta"])
        return trace.call(aten.add.Tensor, out, bias)

    return rule


def any_traced(*values: Any) -> bool:
    return any(isinstance(v, Traced) for v in values)


def _scaled_by(trace: Trace, value: Any, factor: Any) -> Any:
    return trace.call(aten.mul.Tensor, value, factor) if isinstance(value, Traced) else value * factor


def _shape(*values: Any) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*(v.shape for v in values if isinstance(v, torch.Tensor))))


def _sum(trace: Trace, a: Any, b: Any, alpha: Any, func: Any, given: dict) -> Traced:
    """a + alpha b."""
    shape = _shape(a, b)
    sample = trace.execute(func, given)
    if any_traced(a) and any_traced(b):
        (x, perm), (y, other) = trace.read(a, shape), trace.read(b, shape)
        if not (perm is other is None or (perm is not None and other is not None and (perm == other).all())):
            trace.refuse("adds tensors of different samples of a batch")
        if alpha not in (1, -1):
            y = trace.algebra.scale(np.full(y.size, float(alpha)), y, 0.0)
        return trace.place(trace.algebra.combine(x, y, -1.0 if alpha == -1 else 1.0), sample, shape, perm)
    x, perm = trace.read(a if any_traced(a) else b, shape)
    c = trace.constant(b if any_traced(a) else a, shape, perm)
    if not any_traced(a) and alpha != 1:
        x = trace.algebra.scale(np.full(x.size, float(alpha)), x, 0.0)
    return trace.place(trace.algebra.shifted(x, c * float(alpha) if any_traced(a) else c), sample, shape, perm)


def add(trace: Trace, func: Any, given: dict) -> Traced:
    return _sum(trace, given["self"], given["other"], given["alpha"], func, given)


def sub(trace: Trace, func: Any, given: dict) -> Traced:
    return _sum(trace, given["self"], given["other"], -given["alpha"], func, given)


def rsub(trace: Trace, func: Any, given: dict) -> Traced:
    return _sum(trace, given["other"], given["self"], -given["alpha"], func, given)


def _scale(trace: Trace, x: Traced, factor: Any, inverse: bool, sample: torch.Tensor) -> Traced:
    shape = _shape(x, factor)
    value, perm = trace.read(x, shape)
    f = trace.constant(factor, shape, perm)
    with np.errstate(all="ignore"):
        out = trace.algebra.scale(1.0 / f if inverse else f, value, 2 * UNIT if inverse else 0.0)
    return trace.place(out, sample, shape, perm)


def mul(trace: Trace, func: Any, given: dict) -> Traced:
    a, b = given["self"], given["other"]
    if any_traced(a) and any_traced(b):
        return _gated(trace, a, b, trace.execute(func, given))
    return _scale(trace, a if any_traced(a) else b, b if any_traced(a) else a, False, trace.execute(func, given))


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


def div(trace: Trace, func: Any, given: dict) -> Traced:
    a, b = given["self"], given["other"]
    if any_traced(b):
        trace.refuse("divides by a tensor that depends on the input")
    return _scale(trace, a, b, True, trace.execute(func, given))


def neg(trace: Trace, func: Any, given: dict) -> Traced:
    return _scale(trace, given["self"], -1.0, False, trace.execute(func, given))


def masked_fill(trace: Trace, func: Any, given: dict) -> Traced:
    mask, value = given["mask"], given["value"]
    if any_traced(mask, value):
        trace.refuse("chooses by values of its input")
    kept = trace.call(aten.mul.Tensor, given["self"], (~mask).double())
    return trace.call(aten.add.Tensor, kept, torch.where(mask, torch.as_tensor(value, dtype=torch.float64), 0.0))


def where(trace: Trace, func: Any, given: dict) -> Traced:
    mask, a, b = given["condition"], given["self"], given["other"]
    if any_traced(mask):
        trace.refuse("chooses by values of its input")
    first, second = ((t, k.double()) for t, k in ((a, mask), (b, ~mask)))
    return trace.call(
        aten.add.Tensor,
        *(_scaled_by(trace, t, k) if any_traced(t) else torch.where(k.bool(), t, 0.0) for t, k in (first, second)),
    )
