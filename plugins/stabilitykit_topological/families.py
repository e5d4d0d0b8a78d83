"""Perturbations phi^ of the blocks phi: weight noise, low precision, magnitude pruning, block reset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from stabilitykit import CellProblem, Model, UsageProblem
from stabilitykit.dynamics.lowprecision import FORMATS, LowPrecision, editable_copy
from stabilitykit_topological import FAMILIES

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

    Block = Callable[[int, State], State]


@dataclass(frozen=True)
class Perturbation:
    """One perturbed system, built when it is run (each holds a copy of the model).

    Attributes:
        family: one of FAMILIES.
        scale: what distinguishes it in its family: relative noise, share pruned, the block reset; else None.
        block: the only block that differs, or None when all may.
    """

    family: str
    scale: float | None = None
    block: int | None = None

    @property
    def label(self) -> str:
        return self.family if self.scale is None else f"{self.family} {self.scale:g}"

    def build(self, model: Model, seed: int) -> Block:
        """phi^ as a function (t, state) -> state; ``model`` is not touched.

        Raises:
            CellProblem: the model cannot be copied, or does not say which modules a block to reset has.
        """
        if self.family in FORMATS:
            return LowPrecision(model, self.family).block
        # Equal on every machine, and independent of which other perturbations are run.
        digest = hashlib.sha256(f"{seed}|{self.label}".encode()).digest()
        drawn = int.from_bytes(digest[:7], "little")
        twin = editable_copy(model)
        with torch.no_grad():
            if self.family == "gaussian":
                _add_noise(_parameters(twin), float(self.scale or 0), torch.Generator().manual_seed(drawn))
            elif self.family == "pruning":
                _prune(_parameters(twin), float(self.scale or 0))
            else:
                assert self.block is not None
                _reset(twin.block_modules(self.block), drawn)
        return twin.block


def plan(
    model: Model, families: Sequence[str], scales: Sequence[float], fractions: Sequence[float]
) -> tuple[list[Perturbation], list[str]]:
    """The perturbations to run, weakest first within a family, and notes on what is left out.

    Raises:
        UsageProblem: an unknown family, or one that needs a scale and has none.
        CellProblem: nothing is left to run.
    """
    plans: list[Perturbation] = []
    notes: list[str] = []
    for family in families:
        if family not in FAMILIES:
            raise UsageProblem(f"perturbation: unknown family {family!r}; families: {', '.join(FAMILIES)}, all")
        if family == "gaussian":
            plans += [Perturbation(family, scale) for scale in _positive(scales, "scales")]
        elif family == "pruning":
            plans += [Perturbation(family, share) for share in _positive(fractions, "fractions", 1.0)]
        elif family == "reset":
            known = [t for t in range(model.num_blocks) if len(model.block_modules(t))]
            plans += [Perturbation(family, float(t), t) for t in known]
            if len(known) < model.num_blocks:
                notes.append(
                    f"reset: model {model.name} does not say which modules belong to "
                    f"{model.num_blocks - len(known)} of its {model.num_blocks} blocks (Model.block_modules)"
                )
        else:
            plans.append(Perturbation(family))
    if not plans:
        raise CellProblem("no perturbation can be run: " + ("; ".join(notes) or "no family was given"))
    return plans, notes


def _positive(numbers: Sequence[float], option: str, largest: float = float("inf")) -> list[float]:
    if not numbers or any(not 0 < number <= largest for number in numbers):
        raise UsageProblem(f"perturbation: option {option} takes numbers in (0, {largest:g}]; got {list(numbers)}")
    return sorted(set(numbers))


def _parameters(model: Model) -> list[nn.Parameter]:
    """Parameters of the blocks; all of the network's where a block does not name its modules (the copy's stem and
    head are never run, so changing them has no effect)."""
    modules: list[nn.Module] = []
    for t in range(model.num_blocks):
        own = list(model.block_modules(t))
        if not own:
            modules = [model.module]
            break
        modules += own
    seen: dict[int, nn.Parameter] = {}
    for module in modules:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                seen.setdefault(id(parameter), parameter)
    return list(seen.values())


def _add_noise(parameters: Iterable[nn.Parameter], scale: float, generator: torch.Generator) -> None:
    """Gaussian noise with ``scale`` times each tensor's root mean square as standard deviation."""
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        size = parameter.double().square().mean().sqrt()
        parameter.add_((scale * size * noise.to(parameter.device, torch.float64)).to(parameter.dtype))


def _prune(parameters: Iterable[nn.Parameter], share: float) -> None:
    """Zero the ``share`` of smallest magnitudes in every weight matrix or kernel (tensors of 2 or more dimensions)."""
    for parameter in parameters:
        if parameter.ndim < 2:
            continue
        count = round(share * parameter.numel())
        if count:
            smallest = parameter.abs().flatten().argsort(stable=True)[:count]
            mask = torch.ones(parameter.numel(), dtype=torch.bool, device=parameter.device)
            mask[smallest] = False
            parameter.mul_(mask.reshape(parameter.shape))


def _reset(modules: Sequence[nn.Module], seed: int) -> None:
    """Weights as before training: ``reset_parameters`` where a module has it; other tensors are shuffled, which keeps
    their scale whatever their meaning."""
    devices = {p.device.index for m in modules for p in m.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
        torch.manual_seed(seed)
        for module in _all_modules(modules):
            own = list(module.parameters(recurse=False))
            if own and callable(getattr(module, "reset_parameters", None)):
                module.reset_parameters()  # type: ignore[operator]
                continue
            for parameter in own:
                order = torch.randperm(parameter.numel()).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].reshape(parameter.shape).clone())


def _all_modules(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    seen: set[int] = set()
    for module in modules:
        for part in module.modules():
            if id(part) not in seen:
                seen.add(id(part))
                yield part
