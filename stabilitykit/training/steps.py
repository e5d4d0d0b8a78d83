"""One step of training after another: optimizer, schedule of its learning rate, precision, average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stabilitykit.training.recipe import Recipe


class Stepper:
    """Adam on a module as a recipe has it.

    Arguments:
        module: whose parameters are trained, on its device.
        recipe: schedule, weight decay, precision, average.
        steps: of one epoch; a schedule ends with the last step of the last epoch.
    """

    def __init__(self, module: nn.Module, recipe: Recipe, steps: int) -> None:
        self.module, self.recipe = module, recipe
        self.optimizer = torch.optim.AdamW(
            [p for p in module.parameters() if p.requires_grad], lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self._schedule = _schedule(self.optimizer, recipe, steps * recipe.epochs)
        self._average = (
            AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)
            if recipe.average
            else None
        )

    def step(self, loss: torch.Tensor) -> None:
        """Follow the gradient of ``loss``, a float32 scalar, then move the learning rate and the average."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self._schedule is not None:
            self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.module)

    def precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Within it the network's products are of the recipe's dtype."""
        if self.recipe.amp == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=getattr(torch, self.recipe.amp))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the module has the averaged weights, where the recipe averages, and is in eval mode."""
        self.module.eval()
        if self._average is None or not int(self._average.n_averaged):
            yield
            return
        last = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        self.module.load_state_dict(self._average.module.state_dict())
        try:
            yield
        finally:
            self.module.load_state_dict(last)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on bit for bit."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self._schedule is None else self._schedule.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict` of a stepper of the same recipe."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, total: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    if recipe.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=total)
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    return None
