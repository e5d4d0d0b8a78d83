"""Layer-wise bounds: one pass through the model, layer by layer, without a dense matrix of any convolution.

The model runs on traced tensors as for LipSDP (`trace`), with the same rules; only the values are not affine maps of
states but bounds of how far they move with the input (`gains`), for nine pairs of norms at once. Lip(f + g) <=
Lip(f) + Lip(g), so a block with a skip costs 1 + Lip of its branch.
"""

from __future__ import annotations

from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit_lipschitz import pairs
from stabilitykit_lipschitz.copying import evaluation_copy, storages
from stabilitykit_lipschitz.extract import SCALES, guess_shape, row_per_sample, traced_output, undisturbed
from stabilitykit_lipschitz.gains import Gain, Gains
from stabilitykit_lipschitz.layer_rules import FUNCTIONS, RULES
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.regions import Ball, Box, Data, Region
from stabilitykit_lipschitz.slopes import Activation
from stabilitykit_lipschitz.trace import Contradicted, InDouble, Trace, Traced

UNPROVEN = (
    "rests on the module's own values at the centre of the region, whose float64 rounding is covered by a relative "
    "margin of 1e-9 and not proven: no certificate"
)


class LayerTrace(Trace):
    """One pass. Row 0 of ``rows`` is the region's centre where there is one; reach: how far the region goes from it in
    l1, l2 and l-infinity, (3,), or None for all inputs. assumptions, notes: sentences for the result."""

    algebra: Gains

    def __init__(self, rows: torch.Tensor, names: dict[int, str], outside: set[int], reach: np.ndarray | None) -> None:
        self.algebra = Gains(prod(rows.shape[1:]))
        self.reach = reach
        self.assumptions: list[str] = []
        self.notes: list[str] = []
        self.measured = False  # whether the bound rests on values that torch computed at the region's centre
        super().__init__(rows, names, outside, RULES, FUNCTIONS)

    def away(self, value: Gain) -> np.ndarray:
        """How far a value can be from its value at the centre on the region, in the three norms, (3,)."""
        assert self.reach is not None
        self.measured = True
        with np.errstate(invalid="ignore"):
            far = self.reach[:, None] * value.table
        far = np.where((self.reach[:, None] == 0) | (value.table == 0), 0.0, far)
        return far.min(0) * (1 + 1e-12)

    def held_rows(self, traced: Traced) -> torch.Tensor:
        """The sample that each number of a tensor belongs to, in the tensor's shape, int64."""
        return traced.positions // max(traced.held.size, 1)

    def at_centre(self, traced: Traced) -> torch.Tensor:
        """Its value at the region's centre, in the tensor's shape without the batch, float64."""
        return self.sample(traced)[0]

    def activate(
        self, traced: Traced, activation: Activation | Normalisation, result: torch.Tensor, perm: Any, value: Any
    ) -> Traced:
        before = self._rows(self.sample(traced).expand(result.shape), perm)
        self.agree(activation, before, self._rows(result, perm))
        assert isinstance(activation, Activation)
        if self.reach is None:
            alpha, beta = activation.bounds(value.size)
        else:
            at = before[0]
            # the centre's value is torch's own: its rounding is paid by a relative margin
            far = self.away(value)[2] + 1e-9 * (np.abs(at) + np.abs(before).max(initial=0.0) * 1e-3)
            alpha, beta = activation.bounds_on(at - far, at + far)
        steep = float(np.maximum(np.abs(alpha), np.abs(beta)).max(initial=0.0))
        if not np.isfinite(steep):
            self.notes.append(f"{activation.name} has no largest slope: it jumps or grows ever steeper")
            return self.place(Gain(value.size, np.full((3, 3), inf)), result, tuple(result.shape), perm)
        table = pairs.after(value.table, steep * pairs.identity(value.size))
        out = self.algebra.settled(table, value.size, made=(activation.name, value))
        return self.place(out, result, tuple(result.shape), perm)

    def _compare(self, value: Any, sample: np.ndarray) -> None:
        if value.size != sample.shape[1]:
            self.refuse("mixes the samples of a batch")


class LayerReading:
    """What a layer-wise bound says of a module.

    table: (3, 3) float64, see `pairs`, valid on ``region``; value: how the outputs came about. copy: the module in
    float64 and eval mode. proven: rounding
    is bounded at every step; False where values at the region's centre enter, whose rounding a margin covers.

    Arguments and errors as of `extract.Reading`; region: Ball or Box, None for all inputs.
    """

    def __init__(
        self, model: nn.Module, input_shape: tuple[int, ...] | None = None, region: Region | None = None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"method 'layerwise' reads a torch.nn.Module; got {type(model).__name__}")
        if isinstance(region, Data):
            raise ValueError("method 'layerwise' bounds a Ball, a Box or all inputs; Data says nothing between inputs")
        self.shape = tuple(input_shape) if input_shape is not None else guess_shape(model)
        self.name, self.region = type(model).__name__, region
        with undisturbed(0):
            self.copy = evaluation_copy(model)
            trace, result = self._run(self._rows(), storages(model))
        value = row_per_sample(trace, result, self.name)
        assert isinstance(value, Gain)
        self.value, self.table, self.outputs = value, value.table, value.size
        self.proven = not trace.measured
        if trace.measured:
            trace.notes.append(UNPROVEN)
        self.assumptions, self.notes = tuple(dict.fromkeys(trace.assumptions)), tuple(dict.fromkeys(trace.notes))
        self._compare(trace, result)

    def _rows(self) -> np.ndarray:
        rng = np.random.default_rng(0)
        scales = SCALES * 2
        rows = rng.standard_normal((len(scales), *self.shape)) * np.reshape(scales, (-1, *[1] * len(self.shape)))
        if self.region is not None:
            middle = centre(self.region)
            if len(middle) != prod(self.shape):
                raise ValueError(
                    f"region has {len(middle)} coordinates; expected {prod(self.shape)}, the size of one input"
                )
            inside = np.concatenate([middle[None], self.region.sample(4, rng)])
            rows = np.concatenate([inside.reshape(-1, *self.shape), rows])
        return rows

    def _run(self, rows: np.ndarray, outside: set[int]) -> tuple[LayerTrace, Traced]:
        names = {id(m): name for name, m in self.copy.named_modules()}
        far = None if self.region is None else reach(self.region)
        trace = LayerTrace(torch.from_numpy(rows), names, outside - storages(self.copy), far)
        return trace, traced_output(self.copy, trace, self.name, self.shape)

    def _compare(self, trace: LayerTrace, result: Traced) -> None:
        """The module itself, alone and in batches, must give what its traced operations gave."""
        rows = torch.from_numpy(trace.states[0].reshape(-1, *self.shape))
        expected = trace.sample(result).reshape(len(rows), -1)
        count = np.arange(len(rows))
        for some in (count, count[:1], count[2:5], count[::-1].copy(), count[3:4]):
            real = self.values(rows[some].numpy())
            there = expected[some].numpy()
            with np.errstate(invalid="ignore"):
                wrong = np.abs(real - there) > 1e-7 * (np.abs(there).max(1, keepdims=True) + 1e-300)
            if (wrong & np.isfinite(there) & np.isfinite(real)).any():
                raise Contradicted(
                    f"{self.name} does not compute what its traced operations say (a state it keeps, randomness, the "
                    "batch size or the kind of tensor decides); expected one fixed function of each sample"
                )

    def values(self, x: np.ndarray) -> np.ndarray:
        """The module's outputs, (B, K), at inputs (B, ...), float64."""
        with undisturbed(1), InDouble():
            out = self.copy(torch.tensor(np.reshape(x, (-1, *self.shape))))
        if len(out) != len(x):
            raise Contradicted(f"{self.name} returns {len(out)} rows for {len(x)} inputs; expected one per input")
        return out.double().reshape(len(x), -1).numpy()


def centre(region: Region) -> np.ndarray:
    """Middle of a Ball or Box, (n,)."""
    if isinstance(region, Ball):
        return np.ravel(np.asarray(region.center, dtype=np.float64))
    assert isinstance(region, Box)
    low, high = region.box()
    return 0.5 * (low + high)


def reach(region: Region) -> np.ndarray:
    """How far a Ball or Box goes from its middle in l1, l2 and l-infinity, (3,), rounded upward."""
    middle = centre(region)
    if isinstance(region, Ball):
        far = region.radius * np.array([np.sqrt(len(middle)), 1.0, 1.0])
    else:
        assert isinstance(region, Box)
        low, high = region.box()
        half = np.maximum(high - middle, middle - low)
        far = np.array([half.sum(), np.linalg.norm(half), half.max(initial=0.0)])
    return far * (1 + 1e-12) + 1e-15 * np.abs(middle).max(initial=0.0) * np.array([len(middle), len(middle) ** 0.5, 1])
