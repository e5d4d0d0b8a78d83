"""Evidence that prefix, blocks and tail are the network: checked on one batch before any number is believed."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from stabilitykit.dynamics.model import state_parts
from stabilitykit_adapters.program import Program
from stabilitykit_adapters.runs import Run

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

SAMPLE = 8
"""Images certified at most: all states of them are held at once."""


class Chained(Protocol):
    """A network seen as prefix, blocks and tail: what can be certified."""

    run: Run
    program: Program

    @property
    def module(self) -> nn.Module: ...

    @property
    def num_blocks(self) -> int: ...

    def initial_state(self, inputs: torch.Tensor) -> State: ...

    def block(self, t: int, state: State) -> State: ...

    def readout(self, state: State, *, fill: float = 0.0) -> torch.Tensor:
        """``fill`` stands in for every tensor that is skipped."""

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """The network's own forward pass."""

    def hooked_states(self, inputs: torch.Tensor) -> list[State]:
        """h_0 .. h_T as seen in one plain forward pass."""

    def block_modules(self, t: int) -> Sequence[nn.Module]: ...


def certify(model: Chained, inputs: torch.Tensor, *, thorough: bool = True) -> dict[str, Any]:
    """Check one run of a network on ``inputs`` (B, ...), of which at most 8 are used.

    Returns plain data:
        ``bit_exact``: every block chained from h_0 gives the state seen in the plain forward pass, and the tail of
            h_T its logits, bit for bit at equal batch size. ``max_abs_difference`` over states and logits.
        ``states_exact``, ``tail_exact``, ``blocks``, ``batch_size``.
        ``tail_reads_only_the_state``: the tail gives the same bits when all that is skipped is NaN.
        ``reads_values``: where Python takes values out of the data, as ``Class: function``.
        ``deterministic``: two plain forward passes agree bit for bit.
        ``vacuous``: reasons why agreement would prove little (constant logits, blocks that do nothing,
            uncalibrated BatchNorm); ``[]`` is what one wants. Then ``randomised`` repeats the check on a copy with
            random weights in place of constant ones (only with ``thorough``).
        ``zero_parameters``: per block with modules of its own, what is left when their parameters are zero
            (``"identity"``, ``"identity after activation"``, ``"other"``), beside the kind that was traced.
        ``batch_drift``: largest change of a logit when the images are run one by one instead of together.
    """
    inputs = inputs[:SAMPLE]
    with torch.inference_mode():
        report = _round_trip(model, inputs)
        report["vacuous"] = _vacuity(model, inputs, report.pop("_states"), report.pop("_logits"))
        if thorough:
            report["zero_parameters"] = _zero_parameters(model, inputs)
            report["batch_drift"] = _batch_drift(model, inputs)
            if report["vacuous"]:
                other = copy.deepcopy(model)
                randomise(other.module, seed=0)
                again = _round_trip(other, inputs)
                report["randomised"] = {
                    "bit_exact": again["bit_exact"],
                    "max_abs_difference": again["max_abs_difference"],
                    "vacuous": _vacuity(other, inputs, again.pop("_states"), again.pop("_logits")),
                }
    return report


def randomise(module: nn.Module, *, seed: int = 0) -> None:
    """Give every parameter and BatchNorm statistic a random value, so that no path is switched off.

    Freshly initialised networks often compute x + 0: zero heads, zero last BatchNorm factors, layer scales of 1e-6.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor, scale: float) -> torch.Tensor:
        return (torch.randn(tensor.shape, generator=generator) * scale).to(tensor.device, tensor.dtype)

    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            if parameter.ndim <= 1 or float(parameter.std()) == 0.0:
                # Factors and offsets keep their mean (1 or 0) but become different from each other.
                mean = float(parameter.mean())
                if abs(mean) < 0.05:
                    mean = 0.0 if mean == 0.0 else 0.1
                parameter.copy_(mean + noise(parameter, 0.1))
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
                assert part.running_var is not None
                part.running_mean.copy_(noise(part.running_mean, 0.1))
                part.running_var.copy_(1.0 + noise(part.running_var, 0.2).abs())


def uncalibrated(module: nn.Module) -> list[str]:
    """Names of BatchNorm layers whose statistics are still those of a new layer."""
    return [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
        and part.running_mean is not None
        and part.running_var is not None
        and not bool(part.running_mean.any())
        and bool((part.running_var == 1).all())
    ]


def _round_trip(model: Chained, inputs: torch.Tensor) -> dict[str, Any]:
    plain, again = model.logits(inputs), model.logits(inputs)
    seen = model.hooked_states(inputs)
    state = model.initial_state(inputs)
    differences = [_difference(state, seen[0])]
    for t in range(model.num_blocks):
        state = model.block(t, state)
        differences.append(_difference(state, seen[t + 1]))
    logits = model.readout(state)
    filled = model.readout(state, fill=float("nan"))
    tail = _difference(logits, plain)
    return {
        "bit_exact": max(differences) == 0.0 and tail == 0.0,
        "states_exact": max(differences) == 0.0,
        "tail_exact": tail == 0.0,
        "max_abs_difference": max(*differences, tail),
        "tail_reads_only_the_state": _difference(filled, logits) == 0.0,
        "deterministic": bool(torch.equal(plain, again)),
        "batch_size": int(inputs.shape[0]),
        "reads_values": list(model.program.reads),
        "blocks": model.num_blocks,
        "mode": model.run.mode,
        "_states": seen,
        "_logits": plain,
    }


def _vacuity(model: Chained, inputs: torch.Tensor, states: list[State], logits: torch.Tensor) -> list[str]:
    reasons = []
    idle = sum(_difference(a, b) == 0.0 for a, b in itertools.pairwise(states))
    if idle:
        reasons.append(f"{idle} of {model.num_blocks} blocks return their input unchanged")
    if not bool(torch.isfinite(logits).all()):
        reasons.append("the logits are not finite")
    elif logits.shape[0] > 1 and bool((logits == logits[:1]).all()) and not bool((inputs == inputs[:1]).all()):
        reasons.append("the logits are the same for every image")
    else:
        # A tail that ignores the state would also reproduce the logits.
        moved = model.readout(_shifted(states[-1], len(model.run.blocks[-1].end)))
        if bool(torch.equal(moved, logits)):
            reasons.append("the tail does not react to a change of the state")
    layers = uncalibrated(model.module)
    if layers:
        reasons.append(f"{len(layers)} BatchNorm layers hold the statistics of an untrained net ({layers[0]}...)")
    return reasons


def _zero_parameters(model: Chained, inputs: torch.Tensor) -> list[dict[str, str]]:
    found = []
    state = model.initial_state(inputs)
    for t, block in enumerate(model.run.blocks):
        if block.modules:
            with _zeroed(model.block_modules(t)):
                after = model.block(t, state)
            rest = "other"
            if _difference(after, state) == 0.0:
                rest = "identity"
            elif (
                isinstance(after, torch.Tensor)
                and isinstance(state, torch.Tensor)
                and bool(torch.equal(after, state.clamp_min(0)))
            ):
                rest = "identity after activation"
            found.append({"block": block.name, "kind": block.kind, "with_zero_parameters": rest})
        state = model.block(t, state)
    return found


@contextlib.contextmanager
def _zeroed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """All parameters of ``modules`` read as zero inside; their memory is not written to."""
    parameters = list({id(p): p for module in modules for p in module.parameters()}.values())
    before = [p.data for p in parameters]
    try:
        for parameter in parameters:
            parameter.data = torch.zeros_like(parameter.data)
        yield
    finally:
        for parameter, data in zip(parameters, before):
            parameter.data = data


def _batch_drift(model: Chained, inputs: torch.Tensor) -> dict[str, float]:
    together = model.logits(inputs)
    alone = torch.cat([model.logits(inputs[i : i + 1]) for i in range(inputs.shape[0])])
    scale = float(together.abs().max())
    largest = float((together - alone).abs().max())
    return {"max_abs": largest, "relative": largest / scale if scale else 0.0}


def _difference(a: State, b: State) -> float:
    """Largest absolute difference; infinite where one side is NaN and the other is not, or shapes differ."""
    worst = 0.0
    if len(state_parts(a)) != len(state_parts(b)):
        return float("inf")
    for x, y in zip(state_parts(a), state_parts(b)):
        if x.shape != y.shape:
            return float("inf")
        if not torch.equal(x, y):
            both = x.isnan() & y.isnan()
            gap = (x - y).abs().masked_fill(both, 0.0)
            worst = max(worst, float(gap.max()) if not bool(gap.isnan().any()) else float("inf"))
    return worst


def _shifted(state: State, count: int) -> State:
    """The state with its first ``count`` parts moved (the rest is the side state): a tail may read any of them."""
    generator = torch.Generator().manual_seed(0)
    parts = list(state_parts(state))
    for n, part in enumerate(parts[:count]):
        noise = torch.randn(part.shape, generator=generator).to(part.device, part.dtype)
        parts[n] = part + noise * (part.std() + 1.0)
    return tuple(parts) if isinstance(state, tuple) else parts[0]
