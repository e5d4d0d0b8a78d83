"""Small networks whose states change their shape on the way: convolutional stages, and maps with channels last."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from stabilitykit.dynamics.model import Model

# Channels and side of the three stages; images are 3 x 4 x 4.
STAGES = ((4, 4), (6, 2), (5, 1))


class CourseModel(Model):
    """Two blocks a stage, the first of stages 2 and 3 a transition; readout: pooling and a linear map.

    Arguments:
        residual: the other blocks are x + f(x), else f(x): then no inner depth has a head.
        channels_last: states (H, W, C).
        seed: of the weights.
    """

    name = "course"

    def __init__(self, residual: bool = True, channels_last: bool = False, seed: int = 0, classes: int = 3) -> None:
        self.residual, self.last, self.classes = residual, channels_last, classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inner = [nn.Conv2d(c, c, 1) for c, _ in STAGES]
            between = [nn.Conv2d(a[0], b[0], 2, 2) for a, b in itertools.pairwise(STAGES)]
            self._module = nn.ModuleDict(
                {
                    "stem": nn.Conv2d(3, STAGES[0][0], 1),
                    "blocks": nn.ModuleList([inner[0], between[0], inner[1], between[1], inner[2]]),
                    "head": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(STAGES[-1][0], classes)),
                }
            ).eval()
            with torch.no_grad():
                for parameter in self._module.parameters():
                    parameter.mul_(2.0)

    @property
    def module(self):
        return self._module

    @property
    def num_blocks(self):
        return len(self._module["blocks"])

    @property
    def num_classes(self):
        return self.classes

    @property
    def steps(self):
        inner = "residual" if self.residual else "equal"
        return [inner, "transition", inner, "transition", inner]

    @property
    def without_head(self):
        return "" if self.residual else "it has no residual steps"

    @property
    def state_shape(self):
        return self.shape_at(0)

    def shape_at(self, t):
        channels, side = STAGES[(0, 0, 1, 1, 2, 2)[t]]
        return (side, side, channels) if self.last else (channels, side, side)

    def feature_axis(self, t):
        return 2 if self.last else 0

    def initial_state(self, inputs):
        return self._out(self._module["stem"](inputs).tanh())

    def block(self, t, state):
        x = self._in(state)
        change = self._module["blocks"][t](x)
        return self._out((x + change).tanh() if self.steps[t] == "residual" else change.tanh())

    def readout(self, state):
        return self._module["head"](self._in(state))

    def readout_at(self, t, state):
        for later in range(t, self.num_blocks):
            if self.steps[later] != "residual":
                state = self.block(later, state)
        return self.readout(state)

    @property
    def head(self):
        return None if self.last else self._module["head"]

    def head_at(self, t):
        return self.head if (t >= 4 and self.residual) or t == self.num_blocks else None

    def _in(self, state):
        return state.movedim(3, 1) if self.last else state

    def _out(self, maps):
        return maps.movedim(1, 3) if self.last else maps
