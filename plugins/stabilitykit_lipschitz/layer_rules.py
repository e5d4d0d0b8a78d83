"""Rules of a layer-wise bound where they are not those of affine maps: norms by formula, products on a region."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from stabilitykit_lipschitz import known, operators, pairs
from stabilitykit_lipschitz.affine_rules import LINEAR as MEASURED
from stabilitykit_lipschitz.gains import Gain
from stabilitykit_lipschitz.moving_rules import run
from stabilitykit_lipschitz.rules import FUNCTIONS as COMMON_FUNCTIONS
from stabilitykit_lipschitz.rules import RULES as COMMON_RULES
from stabilitykit_lipschitz.slopes import named
from stabilitykit_lipschitz.trace import Traced

aten = torch.ops.aten
GLOBAL_PRODUCT = (
    "multiplies two tensors that both depend on the input (as attention by dot products does): over all inputs it has "
    "no Lipschitz constant; expected region=Ball(...) or Box(...)"
)


def _first(trace: Any, func: Any, x: Any) -> Gain:
    """The value of a tensor that keeps the batch first."""
    if not isinstance(x, Traced):
        trace.refuse(f"runs {func} with weights that depend on the input")
    value, perm = trace.read(x)
    if perm is not None or len(x.shape) < 2 or x.shape[0] != trace.batch:
        trace.refuse(f"runs {func} on a tensor that does not keep the batch dimension first")
    return value


def _convolution(trace: Any, func: Any, given: dict) -> Traced:
    if isinstance(given["weight"], Traced) or isinstance(given["bias"], Traced):
        trace.refuse("convolves with weights that depend on the input")
    x = given["input"]
    value = _first(trace, func, x)
    sample = trace.execute(func, given)
    if len(x.shape) != len(given["weight"].shape):
        trace.refuse("convolves a tensor without a batch dimension; expected (batch, channels, ...)")
    kernel = given["weight"].detach().double().numpy()
    axes = kernel.ndim - 2
    how = [given[k] for k in ("stride", "padding", "dilation", "transposed", "output_padding", "groups")]
    for at in (0, 1, 2, 4):  # one number stands for all axes
        how[at] = list(how[at]) * axes if len(how[at]) == 1 else list(how[at])
    linear = operators.Convolution(kernel, tuple(x.shape[1:]), tuple(sample.shape[1:]), tuple(how))
    return trace.place(trace.algebra.through(linear, value, prod(sample.shape[1:])), sample, tuple(sample.shape))


def _nonnegative(trace: Any, func: Any, given: dict) -> Traced:
    """Means, sums and enlargements: no weight is negative, so row and column sums say all."""
    name = "self" if "self" in given else "input"
    x = given[name]
    value = _first(trace, func, x)
    sample = trace.execute(func, given)
    if not len(sample.shape) or sample.shape[0] != trace.batch:
        trace.refuse(f"runs {func}, which mixes the samples of a batch")

    def sums() -> tuple[torch.Tensor, torch.Tensor]:
        ones = torch.ones(2, *x.shape[1:], dtype=torch.float64, requires_grad=True)
        rows = run(func, {**given, name: ones})
        # a sum over the first sample must leave the second one alone
        return rows.detach(), torch.autograd.grad(rows[:1].sum(), ones)[0]

    # below a dispatch there is no autograd, in a thread of its own there is
    with ThreadPoolExecutor(1) as pool:
        rows, columns = pool.submit(sums).result()
    if rows.shape[0] != 2 or columns[1].any() or (columns < 0).any():
        trace.refuse(f"runs {func}, which mixes the samples of a batch")
    linear = known.nonnegative(rows[0].reshape(-1).numpy(), columns[0].reshape(-1).numpy())
    return trace.place(trace.algebra.through(linear, value, prod(sample.shape[1:])), sample, tuple(sample.shape))


def _counts(size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int) -> int:
    """How many windows hold the input that most of them hold, along one axis."""
    held = np.zeros(size, dtype=np.int64)
    for o in range(outputs):
        at = o * stride - padding + dilation * np.arange(kernel)
        held[at[(at >= 0) & (at < size)]] += 1
    return int(held.max(initial=0))


def _max_pool(trace: Any, func: Any, given: dict) -> Any:
    x = given["self"]
    value = _first(trace, func, x)
    result = trace.execute(func, given)
    sample = result[0] if isinstance(result, tuple) else result
    axes = len(given["kernel_size"])
    if len(x.shape) != axes + 2:
        trace.refuse("takes maxima over a tensor without a batch dimension; expected (batch, channels, ...)")
    kernel, padding, dilation = given["kernel_size"], given["padding"], given["dilation"]
    stride = given["stride"] or kernel
    form = [list(v) * axes if len(v) == 1 else list(v) for v in (kernel, stride, padding, dilation)]
    counts = [_counts(*each) for each in zip(x.shape[2:], *form, sample.shape[2:])]
    linear = known.maxima(counts, value.size, prod(sample.shape[1:]))
    out = trace.place(trace.algebra.through(linear, value, prod(sample.shape[1:])), sample, tuple(sample.shape))
    if not isinstance(result, tuple):
        return out
    return (out, *(trace.opaque(r, "uses where a maximum was found, which jumps") for r in result[1:]))


def _along(trace: Any, func: Any, given: dict, kind: Callable[[int, int], known.Known]) -> Traced:
    """A softmax: independent along one axis, which is not the batch."""
    x = given["self"]
    value, perm = trace.read(x)
    dim = given["dim"] % len(x.shape)
    rows = trace.held_rows(x)
    if not (rows == rows.movedim(dim, -1)[..., :1].movedim(-1, dim)).all():
        trace.refuse("takes a softmax over the samples of a batch")
    sample = trace.execute(func, given)
    classes = int(x.shape[dim])
    linear = kind(classes, value.size // max(classes, 1))
    made = ("softmax over the last axis", value) if dim == len(x.shape) - 1 and kind is known.softmax else None
    out = trace.algebra.settled(pairs.after(value.table, linear.norms), value.size, made=made)
    return trace.place(out, sample, tuple(x.shape), perm)


def _softmax(trace: Any, func: Any, given: dict) -> Traced:
    return _along(trace, func, given, known.softmax)


def _log_softmax(trace: Any, func: Any, given: dict) -> Traced:
    return _along(trace, func, given, known.log_softmax)


# -- products of two tensors that depend on the input ----------------------------------------------------------------


def _gated(trace: Any, a: Traced, b: Traced, sample: torch.Tensor) -> Traced:
    """a * b, number by number: z * sigmoid(z) is silu everywhere, all else needs a region."""
    (u, perm), (v, other) = (trace.read(t, sample.shape) for t in (a, b))
    if not (perm is other is None or (perm is not None and other is not None and (perm == other).all())):
        trace.refuse("multiplies tensors of different samples of a batch")
    for x, (z, g) in ((a, (u, v)), (b, (v, u))):
        if g.made is not None and g.made[0] == "sigmoid" and g.made[1] is z and x.shape == sample.shape:
            return trace.activate(x, named("silu"), sample, perm, z)
    if u.is_constant or v.is_constant:
        trace.refuse("multiplies by a tensor that was computed from the input but does not depend on it")
    if trace.reach is None:
        trace.refuse(GLOBAL_PRODUCT)
    with np.errstate(invalid="ignore"):
        tops = [float(trace.at_centre(t).abs().max()) * (1 + 1e-9) + trace.away(w)[2] for t, w in ((a, u), (b, v))]
        table = tops[1] * u.table + tops[0] * v.table
    _assume(trace)
    return _placed(trace, table, u.size, sample, perm)


def _matrices(trace: Any, a: Traced, b: Traced, sample: torch.Tensor) -> Traced:
    """Products of matrices, (..., n, k) by (..., k, m), both of which depend on the input: |d(AB)| <= |dA| |B| +
    |A| |dB|, Frobenius norms of the changes by spectral norms of what stays, which the region bounds."""
    u, v = (trace.read(t)[0] for t in (a, b))
    if trace.reach is None:
        trace.refuse(GLOBAL_PRODUCT)
    rows = [trace.held_rows(t) for t in (a, b)]
    if not all((r == r[..., :1, :1]).all() for r in rows) or not (rows[0][..., 0, 0] == rows[1][..., 0, 0]).all():
        trace.refuse("multiplies across the samples of a batch")
    # a view of a softmax keeps what it was made by, but its rows need not be those that sum to 1
    chances = u.made is not None and u.made[0].startswith("softmax")
    chances = chances and bool(((trace.sample(a).sum(-1) - 1).abs() < 1e-9).all())
    tops = []
    for t, held, w in zip((a, b), rows, (u, v)):
        at = trace.sample(t)[held[..., 0, 0] == 0]
        if chances and t is b:
            # rows of probabilities change by what sums to 0: of the other factor only the distance from a row counts
            at = at - at.mean(-2, keepdim=True)
        top = float(torch.linalg.matrix_norm(at, 2).max()) * (1 + 1e-9) + trace.away(w)[1]
        if chances and t is a:  # no row of probabilities is longer than 1
            top = min(top, float(at.shape[-2]) ** 0.5 * (1 + 1e-12))
        tops.append(top)
    table = np.full((3, 3), inf)
    with np.errstate(invalid="ignore"):
        table[:, 1] = tops[1] * u.table[:, 1] + tops[0] * v.table[:, 1]
    _assume(trace)
    order = rows[0][..., :1, :1].expand(sample.shape).reshape(-1).numpy()
    straight = (np.diff(order) >= 0).all()
    perm = None if straight else np.argsort(order, kind="stable")
    return _placed(trace, table, sample.numel() // trace.batch, sample, perm)


def _placed(trace: Any, table: np.ndarray, size: int, sample: torch.Tensor, perm: Any) -> Traced:
    table = np.where(np.isnan(table), inf, table) * (1 + 1e-12)
    return trace.place(trace.algebra.settled(table, size), sample, tuple(sample.shape), perm)


def _assume(trace: Any) -> None:
    trace.assumptions.append(
        "products of two tensors that depend on the input (attention): holds on the region only, by the norms there, "
        "which are those at its centre plus how far they can move"
    )


def _mul(trace: Any, func: Any, given: dict) -> Traced:
    a, b = given["self"], given["other"]
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _gated(trace, a, b, trace.execute(func, given))
    return COMMON_RULES[func](trace, func, given)


def _product(func: Any) -> Callable[..., Any]:
    def rule(trace: Any, op: Any, given: dict) -> Any:
        a, b = given["self"], given["mat2"]
        if isinstance(a, Traced) and isinstance(b, Traced):
            return _matrices(trace, a, b, trace.execute(op, given))
        return COMMON_RULES[func](trace, op, given)

    return rule


def _attention(trace: Any, func: Any, given: dict) -> Any:
    """torch's attention, taken apart: softmax(q k' scale + mask) v."""
    query, key, value, mask = (given[k] for k in ("query", "key", "value", "attn_mask"))
    if given["dropout_p"] or not all(isinstance(t, Traced) for t in (query, key, value)) or isinstance(mask, Traced):
        trace.refuse("attends with dropout, weights in place of a tensor, or a mask that depends on the input")
    scale = query.shape[-1] ** -0.5 if given["scale"] is None else given["scale"]
    across = trace.view(aten.transpose.int, key, -2, -1)
    with torch._C._DisableTorchDispatch():
        plain = trace.sample(query) @ trace.sample(across)
    scores = trace.call(aten.mul.Tensor, _matrices(trace, query, across, plain), scale)
    if given["is_causal"]:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -inf)
        scores = trace.call(aten.add.Tensor, scores, mask)
    weights = trace.call(aten._softmax.default, scores, -1, False)
    sample, *others = trace.execute(func, given)
    out = _matrices(trace, weights, value, sample)
    return (out, *(trace.opaque(r, "uses a by-product of attention") for r in others))


# -- normalisation ---------------------------------------------------------------------------------------------------


def _normalised(
    trace: Any, x: Traced, groups: int, eps: float, centred: bool, gain: Any, bias: Any, sample: torch.Tensor
) -> Traced:
    """Each of ``groups`` equal runs of numbers divided by its own standard deviation (or root mean square)."""
    value = _first(trace, "a normalisation", x)
    if isinstance(gain, Traced) or isinstance(bias, Traced):
        trace.refuse("scales a normalisation by a tensor that depends on the input")
    width = value.size // groups
    if trace.reach is None:
        factor = f"1/sqrt(eps) = {eps**-0.5:.3g}" if eps > 0 else "unbounded"
        trace.refuse(
            f"normalises by statistics of each sample, which has no useful global Lipschitz constant (its factor is "
            f"{factor}, reached by constant inputs); expected region=Ball(...) or Box(...)"
        )
    at = trace.at_centre(x).reshape(groups, width).numpy()
    spread = np.sqrt(((at - at.mean(1, keepdims=True) if centred else at) ** 2).sum(1)) * (1 - 1e-9)
    power = np.maximum(0.0, spread - 1e-12 * np.abs(at).max(1) * width**0.5 - trace.away(value)[1]) ** 2 / width
    floor = float((power + eps).min())
    if floor <= 0.0:
        trace.refuse(
            "normalises what can be constant on this region, with eps = 0: no bound; expected a smaller Ball or Box"
        )
    steep = floor**-0.5 * (1 + 1e-12)
    if not power.min() > 0.0:
        trace.notes.append(
            f"{trace.where()}: constant inputs are not excluded on this region, its factor is {steep:.4g}"
        )
    table = np.full((3, 3), inf)
    table[:, 1] = value.table[:, 1] * steep
    out = trace.algebra.settled(table, value.size)
    if gain is not None:
        out = trace.algebra.scale(gain, out, 0.0)
    return trace.place(out, sample, tuple(x.shape))


def _layer_norm(trace: Any, func: Any, given: dict) -> Any:
    sample, x = trace.execute(func, given), given["input"]
    width = prod(given["normalized_shape"])
    groups = prod(x.shape[1:]) // width
    gain = None if given["weight"] is None else _plain(trace, given["weight"], lambda w: w.reshape(-1).repeat(groups))
    out = _normalised(trace, x, groups, float(given["eps"]), True, gain, None, sample[0])
    return (out, *(trace.opaque(s, "uses the statistics of a LayerNorm") for s in sample[1:]))


def _group_norm(trace: Any, func: Any, given: dict) -> Any:
    sample, x = trace.execute(func, given), given["input"]
    each = prod(x.shape[2:])
    gain = None if given["weight"] is None else _plain(trace, given["weight"], lambda w: w.repeat_interleave(each))
    out = _normalised(trace, x, given["group"], float(given["eps"]), True, gain, None, sample[0])
    return (out, *(trace.opaque(s, "uses the statistics of a GroupNorm") for s in sample[1:]))


def _plain(trace: Any, weight: Any, form: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    if isinstance(weight, Traced):
        trace.refuse("scales a normalisation by a tensor that depends on the input")
    with torch._C._DisableTorchDispatch():
        return form(weight.detach().double()).numpy()


def _instance_norm(
    trace: Any,
    input: Any,  # torch's name of it
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if not use_input_stats:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None or running_var is not None:
        trace.refuse("updates its running statistics; expected an InstanceNorm in eval mode")
    return functional.group_norm(input, input.shape[1], weight, bias, eps)


def _rms_norm(trace: Any, x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Traced:
    if not isinstance(x, Traced) or isinstance(weight, Traced):
        trace.refuse("scales a normalisation by a tensor that depends on the input")
    eps = float(torch.finfo(torch.float64).eps if eps is None else eps)
    with torch._C._DisableTorchDispatch():
        plain = None if weight is None else weight.detach().double()
        sample = torch.rms_norm(trace.sample(x), normalized_shape, plain, eps)
    groups = prod(x.shape[1:]) // prod(normalized_shape)
    gain = None if plain is None else plain.reshape(-1).repeat(groups).numpy()
    return _normalised(trace, x, groups, eps, False, gain, None, sample)


NONNEGATIVE = tuple(op for op in MEASURED if op not in (aten.convolution.default, aten.constant_pad_nd.default))
RULES: dict[Any, Any] = {
    **COMMON_RULES,
    **dict.fromkeys(NONNEGATIVE, _nonnegative),
    aten.constant_pad_nd.default: COMMON_RULES[aten.reflection_pad2d.default],
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool3d_with_indices.default: _max_pool,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _log_softmax,
    aten.mul.Tensor: _mul,
    aten.mm.default: _product(aten.mm.default),
    aten.bmm.default: _product(aten.bmm.default),
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
}
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **COMMON_FUNCTIONS,
    functional.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    functional.instance_norm: _instance_norm,
    torch.instance_norm: lambda trace, *args: _instance_norm(trace, *args[:8]),
}
