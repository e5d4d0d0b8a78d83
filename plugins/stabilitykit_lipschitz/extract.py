"""Read a torch module as a `Network`: run a copy of it once on traced tensors, then compare the two."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit_lipschitz import folding
from stabilitykit_lipschitz.copying import evaluation_copy, storages
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.rules import FUNCTIONS, RULES
from stabilitykit_lipschitz.trace import Contradicted, InDouble, Trace, Traced, UnsupportedModule

# Typical sizes of the sample rows and of the inputs compared: activations are seen near zero and far out.
SCALES = (0.01, 0.1, 1.0, 3.0, 10.0, 100.0, 1000.0)
# Given inputs compared at most.
MOST = 64


class Reading:
    """network: what ``model`` computes in eval mode, weights in float64; `compare` checks it at further inputs.

    Arguments:
        model: a torch module; it is copied, never changed.
        input_shape: shape of one sample; needed unless the first module with weights is Linear, BatchNorm1d or a
            LayerNorm.

    Raises:
        UnsupportedModule: something it does has no rule, or the rules give other numbers than it does.
        ValueError: the input's shape is missing or wrong. TypeError: not a module.
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...] | None = None) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"expected a torch.nn.Module or a stabilitykit_lipschitz.Network, got {type(model).__name__}"
            )
        shape = tuple(input_shape) if input_shape is not None else guess_shape(model)
        self.name, self.shape = type(model).__name__, shape
        rng = np.random.default_rng(0)
        rows = rng.standard_normal((len(SCALES), *shape)) * np.reshape(SCALES, (-1, *[1] * len(shape)))
        self.seeds = itertools.count(1)  # noise from a generator must not repeat from pass to pass
        with undisturbed(next(self.seeds)):
            self.copy = evaluation_copy(model)
            self.network = self._trace(torch.from_numpy(rows), storages(model))
        more = rng.standard_normal((2 * len(SCALES), *shape)) * np.reshape(SCALES * 2, (-1, *[1] * len(shape)))
        self.compare(more)
        self.compare(more[2:3])

    def _trace(self, rows: torch.Tensor, outside: set[int]) -> Network:
        names = {id(m): name for name, m in self.copy.named_modules()}
        trace = Trace(rows, names, outside - storages(self.copy), RULES, FUNCTIONS)
        return self._finish(trace, traced_output(self.copy, trace, self.name, self.shape))

    def _finish(self, trace: Trace, result: Traced) -> Network:
        factor, cell = 1.0, result.held
        if cell.softmax:
            if not torch.equal(result.positions, torch.arange(result.numel()).view(len(result), -1)):
                raise UnsupportedModule(f"{self.name} {cell.unreadable}")
            factor, cell.unreadable = 0.5, ""
        value = row_per_sample(trace, result, self.name)
        outputs = folding.dense_blocks(value, "the output")
        errors = dict(trace.errors)
        for state, error in value.errors.items():
            errors[len(trace.layers) + 1, state] = error
        return Network(prod(self.shape), tuple(trace.layers), outputs, value.bias, self.shape, factor, errors)

    def compare(self, inputs: np.ndarray) -> None:
        """Raises Contradicted where the network's outputs or gradients are not the module's.

        inputs: (B, ...) float64, of which at most 64 are used.
        """
        x = np.asarray(inputs, dtype=np.float64).reshape(-1, *self.shape)[:MOST]
        if not len(x):
            return
        with undisturbed(next(self.seeds)), InDouble():
            try:
                real, slope = self._differentiated(torch.tensor(x))
            except Exception as error:
                raise Contradicted(
                    f"{self.name} fails on a batch of {len(x)}: {' '.join(str(error).split())[:300]}"
                ) from error
        rows = None if len(real) != len(x) else real.double().reshape(len(x), -1).numpy()
        flat = x.reshape(len(x), -1)
        with np.errstate(all="ignore"):
            expected, allowance = self.network(flat), self.network.allowance(flat)
            if self.network.factor != 1.0:
                expected = np.exp(expected - expected.max(1, keepdims=True))
                expected, allowance = expected / expected.sum(1, keepdims=True), allowance.max(1, keepdims=True) + 1e-9
            usable = np.isfinite(expected).all(1) & np.isfinite(allowance).all(1)
            if rows is None or rows.shape != expected.shape or (np.abs(rows - expected) > allowance)[usable].any():
                raise Contradicted(
                    f"{self.name} does not compute what its traced operations say (a state it keeps, randomness, the "
                    "batch size or the kind of tensor decides); expected one fixed function of each sample"
                )
            if self.network.factor == 1.0 and slope is not None:
                self._same_slopes(flat, slope.reshape(len(x), -1).numpy())

    def _differentiated(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(outputs, autograd's gradient of their sum weighted by 1, 2, ... over each sample, or None without one)."""
        out = self.copy(x.clone())
        try:
            with torch.enable_grad():
                start = x.clone().requires_grad_()
                flat = self.copy(start).reshape(len(x), -1)
                weights = torch.arange(1.0, flat.shape[1] + 1.0, dtype=torch.float64)
                (slope,) = torch.autograd.grad((flat * weights).sum(), start)
        except RuntimeError:  # torch itself has none, as where a needed tensor was overwritten in place
            return out, None
        return out, slope

    def _same_slopes(self, flat: np.ndarray, slope: np.ndarray) -> None:
        """A backward hook or a custom backward would make every Jacobian taken by autograd one of something else."""
        network = self.network
        weights = np.tile(np.arange(1.0, network.classes + 1.0), (len(flat), 1))
        expected = network.pull(network.slopes_at(flat), weights)
        allowed = 1e-6 * np.linalg.norm(expected, axis=1) + 1e-9 * np.linalg.norm(weights[0]) * network.rough()
        wrong = np.linalg.norm(expected - slope, axis=1) > allowed
        if wrong[np.isfinite(expected).all(1) & np.isfinite(slope).all(1)].any():
            raise Contradicted(
                f"{self.name} has gradients that are not those of its outputs (a backward hook, .data or a custom "
                "backward); expected autograd's own"
            )


def traced_output(module: nn.Module, trace: Trace, name: str, shape: tuple[int, ...]) -> Traced:
    """What ``module`` returns for the trace's input.

    Raises:
        UnsupportedModule: it has no rule, does not run on inputs of ``shape`` (one sample's), or returns no tensor.
    """
    try:
        with trace:
            result = module(trace.input)
    except UnsupportedModule:
        raise
    except Exception as error:  # whatever the module's own code raises
        raise trace.problem or UnsupportedModule(
            f"{name} does not run on inputs of shape (batch, {', '.join(map(str, shape))}): "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    if trace.problem is not None:
        raise trace.problem
    if not isinstance(result, Traced):
        raise UnsupportedModule(
            f"the model returns {type(result).__name__}; expected one tensor of logits that depends on its input"
        )
    return result


def row_per_sample(trace: Trace, result: Traced, name: str) -> Any:
    """The trace's value of an output. Raises UnsupportedModule where its first axis is not that of the samples."""
    value, perm = trace.read(result)
    if perm is not None or result.dim() < 1 or result.shape[0] != trace.batch:
        raise UnsupportedModule(f"{name} does not return one row per sample; expected (batch, classes)")
    return value


def extract(model: nn.Module, input_shape: tuple[int, ...] | None = None) -> Network:
    """The network computed by ``model`` in eval mode, weights in float64. Arguments and errors as of `Reading`."""
    return Reading(model, input_shape).network


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """No gradients, no autocast, no compilation; random numbers by ``seed``, their generators end as they began."""
    python, numpy_state = random.getstate(), np.random.get_state()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            # importing the compiler takes a second; where it was never loaded nothing can be compiled
            torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext(),
        ):
            random.seed(seed)
            np.random.seed(seed)
            # the copies compute on the CPU: `torch.manual_seed` would reseed the accelerators' generators, too
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


def guess_shape(root: nn.Module) -> tuple[int, ...]:
    for module in root.modules():
        if isinstance(module, nn.LazyLinear):
            break
        if isinstance(module, nn.Linear):
            return (module.in_features,)
        if isinstance(module, nn.BatchNorm1d):
            return (module.num_features,)
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            return tuple(module.normalized_shape)
        if list(module.parameters(recurse=False)) and not list(module.children()):
            break
    raise ValueError("the shape of one input cannot be read off the model; expected input_shape=(C, H, W) or (n,)")
