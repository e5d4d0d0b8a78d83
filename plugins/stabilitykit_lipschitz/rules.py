"""Which aten op does what to an affine function of states. Ops are known by identity, never by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from stabilitykit_lipschitz import affine_rules as affine
from stabilitykit_lipschitz import moving_rules as moving
from stabilitykit_lipschitz import nonlinear_rules as nonlinear
from stabilitykit_lipschitz.activations import ACTIVATIONS
from stabilitykit_lipschitz.trace import Trace

aten = torch.ops.aten
Rule = Callable[[Trace, Any, dict], Any]
RULES: dict[Any, Rule] = {
    **dict.fromkeys(moving.SELECTIONS, moving.select),
    **dict.fromkeys(affine.LINEAR, affine.linear),
    **dict.fromkeys(moving.FACTORIES, moving.same),
    **dict.fromkeys(nonlinear.DECISIONS, nonlinear.dependent),
    **dict.fromkeys(ACTIVATIONS, nonlinear.activation),
    aten._to_copy.default: moving.cast,
    aten.copy.default: moving.filled,
    aten.fill.Scalar: moving.filled,
    aten.fill.Tensor: moving.filled,
    aten.zero.default: moving.filled,
    aten.mm.default: affine.mm,
    aten.mv.default: affine.mv,
    aten.bmm.default: affine.bmm,
    aten.addmm.default: affine.plus_product(aten.mm.default),
    aten.addmv.default: affine.plus_product(aten.mv.default),
    aten.baddbmm.default: affine.plus_product(aten.bmm.default),
    aten.add.Tensor: affine.add,
    aten.add.Scalar: affine.add,
    aten.sub.Tensor: affine.sub,
    aten.sub.Scalar: affine.sub,
    aten.rsub.Tensor: affine.rsub,
    aten.rsub.Scalar: affine.rsub,
    aten.mul.Tensor: affine.mul,
    aten.mul.Scalar: affine.mul,
    aten.div.Tensor: affine.div,
    aten.div.Scalar: affine.div,
    aten.neg.default: affine.neg,
    aten.masked_fill.Scalar: affine.masked_fill,
    aten.masked_fill.Tensor: affine.masked_fill,
    aten.where.self: affine.where,
    aten.native_batch_norm.default: nonlinear.batch_norm,
    aten._native_batch_norm_legit_no_training.default: nonlinear.batch_norm,
    aten.native_layer_norm.default: nonlinear.layer_norm,
    aten._softmax.default: nonlinear.softmax,
}

# Functions of torch that are more than one op, taken whole: their bounds are tighter than those of their parts.
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.pad: moving.pad,
    functional.softsign: nonlinear.whole_function("softsign", functional.softsign),
    functional.tanhshrink: nonlinear.whole_function("tanhshrink", functional.tanhshrink),
    functional.rms_norm: nonlinear.rms_norm,
    torch.rms_norm: nonlinear.rms_norm,
}
