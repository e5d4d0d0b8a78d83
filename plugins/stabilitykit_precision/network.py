"""The whole network in a number format, and parts of it between states of the network's own format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch

from stabilitykit import Model
from stabilitykit.base.errors import describe
from stabilitykit.dynamics.lowprecision import LowPrecision, editable_copy, round_to
from stabilitykit.dynamics.model import state_of, state_parts
from stabilitykit_precision.integers import IntegerNetwork, IntegerScheme
from stabilitykit_precision.layers import Left

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

# Images that try whether a network runs in a format: kernels are missing for all images or for none.
TRIED = 2
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class LowPrecisionNetwork:
    """A copy of a model in one number format.

    Attributes:
        format: one of :data:`stabilitykit_precision.FORMATS`.
        twin: the copy.
        scheme: what was rounded and how, in words.
        converted: the network itself is in the format, not emulated.

    What is converted runs without autocast, which would convert some operations back.
    """

    def __init__(
        self,
        format: str,
        twin: Model,
        scheme: str,
        enter: Callable[[torch.Tensor], torch.Tensor],
        integers: IntegerNetwork | None = None,
        converted: bool = False,
    ) -> None:
        self.format, self.twin, self.scheme = format, twin, scheme
        self._enter, self._integers, self.converted = enter, integers, converted

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """The whole network: preprocessed inputs (B, C, H, W) of the model's dtype -> logits (B, K), a float dtype."""
        with self._running(inputs):
            return self.twin.logits(self._enter(inputs))

    def initial_state(self, inputs: torch.Tensor, like: State) -> State:
        """h_0 of inputs (B, C, H, W), the stem alone in the format; dtypes as those of the clean h_0 ``like``."""
        with self._running(inputs):
            return _back(self.twin.initial_state(self._enter(inputs)), like)

    def block(self, t: int, state: State, like: State) -> State:
        """phi_t of a clean state (B, ...), in the format; dtypes as those of the clean result ``like``."""
        with self._running(state_parts(state)[0]):
            return _back(self.twin.block(t, self._entered(state)), like)

    def readout(self, state: State) -> torch.Tensor:
        """g of the clean state h_T, in the format -> logits (B, K), a float dtype."""
        with self._running(state_parts(state)[0]):
            return self.twin.readout(self._entered(state))

    def in_float(self) -> list[Left]:
        """What int8 leaves in float, once the network has run."""
        return self._integers.in_float() if self._integers is not None else []

    def _running(self, tensor: torch.Tensor) -> AbstractContextManager[object]:
        return torch.autocast(tensor.device.type, enabled=False) if self.converted else nullcontext()

    def _entered(self, state: State) -> State:
        return state_of([self._enter(part) for part in state_parts(state)])


def _back(state: State, like: State) -> State:
    return state_of([part.to(clean.dtype) for part, clean in zip(state_parts(state), state_parts(like), strict=True)])


def in_format(
    model: Model, format: str, scheme: IntegerScheme, examples: Sequence[torch.Tensor]
) -> LowPrecisionNetwork:
    """``model`` in a number format; the model itself is left as it is.

    Arguments:
        scheme: of ``int8-weights`` and ``int8``.
        examples: batches (B, C, H, W) of preprocessed inputs on the model's device: calibration images for static
            ranges; a few of the first one try whether the network runs.

    Raises:
        CellProblem: the model cannot be copied, or has no layer that int8 has a rule for.
    """
    if format in DTYPES:
        return _cast(model, format, examples[0])
    twin = editable_copy(model)
    integers = IntegerNetwork(twin.module, scheme)
    if integers.calibrating:
        _run(twin, examples)
        integers.calibrated()
    return LowPrecisionNetwork(format, twin, scheme.text(sum(map(len, examples))), _same, integers)


def _cast(model: Model, format: str, example: torch.Tensor) -> LowPrecisionNetwork:
    """The network converted as ``module.to(dtype)`` does it; where it does not run so, rounded layer by layer."""
    dtype, twin = DTYPES[format], editable_copy(model)
    twin.module.to(dtype)
    name = str(dtype).removeprefix("torch.")
    network = LowPrecisionNetwork(
        format,
        twin,
        f"the whole network and its inputs converted to {name} and run in it",
        lambda x: _to(x, dtype),
        converted=True,
    )
    try:
        with torch.inference_mode():
            network.logits(example[:TRIED])
        return network
    except Exception as error:
        why = describe(error, 160)
    rounded = LowPrecision(model, format)
    return LowPrecisionNetwork(
        format,
        rounded.twin,
        f"emulated: weights, inputs and outputs of every layer with parameters rounded to {name}, sums in float; the "
        f"network does not run in {name} on {example.device.type} ({why})",
        lambda x: round_to(x, format),
    )


@torch.inference_mode()
def _run(model: Model, batches: Iterable[torch.Tensor]) -> None:
    for inputs in batches:
        model.logits(inputs)


def _to(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
