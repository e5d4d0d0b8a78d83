"""Extraction by torch.compile: what comes before the blocks, every block and every readout as a compiled function."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from stabilitykit.base.errors import CellProblem, describe
from stabilitykit.dynamics.model import state_of, state_parts
from stabilitykit.dynamics.trajectory import depth_logits

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import Model
    from stabilitykit.dynamics.readout import Readout

# How far, relative to the largest logit, compiled logits may lie from those of the blocks run one by one: a compiler
# reorders sums; more would be another function. The low precisions round differently at every fused operation.
TOLERANCE, LOW_TOLERANCE = 1e-3, 0.1

Parts = tuple[torch.Tensor, ...]


class CompiledForward:
    """Logits (B, K) at depths 0..T of a batch, compiled once for batches of ``batch_size``.

    The operations of a first batch are recorded below Python, so it does not matter how a model runs its blocks.
    Smaller batches are filled up with copies of their last image: nothing is compiled anew for them. The first
    batch is also run block by block, where states and readouts are checked, and compared.
    """

    def __init__(self, model: Model, readout: Readout, batch_size: int) -> None:
        self.model, self.readout, self.batch_size = model, readout, batch_size
        self.difference: float | None = None
        shared = readout.kind == "head" and model.one_readout
        self._start = _Piece(lambda parts: state_parts(model.initial_state(parts[0])))
        self._blocks = [
            _Piece(lambda parts, t=t: state_parts(model.block(t, state_of(parts))))  # type: ignore[misc]
            for t in range(model.num_blocks)
        ]
        self._readouts = [
            _Piece(lambda parts, t=t: (readout.logits(t, state_of(parts)),))  # type: ignore[misc]
            for t in range(1 if shared else model.num_blocks + 1)
        ]

    def __call__(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Logits of one batch.

        Arguments:
            inputs: (B, C, H, W) of the model's dtype, B <= batch_size.

        Returns:
            T+1 tensors (B, K) of the model's readout dtype, one for each depth.

        Raises:
            CellProblem: torch.compile cannot run the model, or changes its logits by more than rounding.
        """
        count = len(inputs)
        plain = list(depth_logits(self.model, self.readout, inputs)) if self.difference is None else None
        try:
            with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
                warnings.simplefilter("ignore")  # of the compiler, about itself
                logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
                if count < self.batch_size:
                    inputs = torch.cat([inputs, inputs[-1:].expand(self.batch_size - count, *inputs.shape[1:])])
                found = [logits[:count] for logits in self._run(inputs)]
        except (KeyboardInterrupt, CellProblem):
            raise
        except Exception as error:
            raise CellProblem(
                f"model {self.model.name}: torch.compile cannot run it ({describe(error)}); leave out --compile"
            ) from error
        if plain is not None:
            self._compare(plain, found)
        return found

    def _run(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        parts = self._start((inputs,))
        found = [self._readouts[0](parts)[0]]
        for t, block in enumerate(self._blocks, 1):
            parts = block(parts)
            found.append(self._readouts[t if len(self._readouts) > 1 else 0](parts)[0])
        return found

    def _compare(self, plain: list[torch.Tensor], found: list[torch.Tensor]) -> None:
        largest = max(float(logits.abs().max()) for logits in plain)
        self.difference = max(float((a.double() - b.double()).abs().max()) for a, b in zip(plain, found, strict=True))
        low = torch.is_autocast_enabled(plain[0].device.type)
        if not self.difference <= (LOW_TOLERANCE if low else TOLERANCE) * max(largest, 1e-30):
            raise CellProblem(
                f"model {self.model.name}: torch.compile moves logits by {self.difference:.2g} (the "
                f"largest is {largest:.2g}), more than rounding; leave out --compile"
            )


class _Piece:
    """A function of tensors, recorded as its operations on the first tensors it is called with, then compiled."""

    def __init__(self, function: Callable[[Parts], Parts]) -> None:
        self._function = function
        self._compiled: Any = None

    def __call__(self, parts: Parts) -> Parts:
        if self._compiled is None:
            from torch.fx.experimental.proxy_tensor import make_fx

            graph = make_fx(lambda *tensors: self._function(tensors))(*parts)
            self._compiled = torch.compile(graph, dynamic=False)
        # Casts of autocast are in the record.
        with torch.autocast(parts[0].device.type, enabled=False):
            return tuple(self._compiled(*parts))
