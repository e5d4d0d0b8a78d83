"""Tiny models for what equal-dimension blocks do not show: spaces of different shapes, and a depth that is blind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stabilitykit.dynamics.model import Model, Step
from stabilitykit.testing.fixtures import IMAGE_SHAPE, TinyModel

if TYPE_CHECKING:
    import torch


class TinyCourse(Model):
    """A whole convolutional network, as its blocks: stages of residual blocks with a transition between two.

    A transition halves the side and doubles the channels. g_t is the rest of the network without its residual blocks.

    Arguments:
        stages: residual blocks of each stage; T is their sum and one transition between two stages.
        classes: K.
        channels: of the first stage.
        seed: of the weights.
        heads: False: only g of the last stage, in which no transition is left, is given as a module.
    """

    name = "tiny-course"

    def __init__(
        self, stages: Sequence[int] = (2, 2), classes: int = 3, channels: int = 4, seed: int = 0, heads: bool = True
    ) -> None:
        import torch
        from torch import nn

        steps: list[Step] = []
        names, shapes, blocks = [], [], nn.ModuleList()
        width, side = channels, IMAGE_SHAPE[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            stem = nn.Conv2d(IMAGE_SHAPE[0], width, 3, padding=1)
            for stage, count in enumerate(stages):
                if stage:
                    shapes.append((width, side, side))
                    blocks.append(nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU()))
                    width, side = 2 * width, (side + 1) // 2
                    steps.append("transition")
                    names.append(f"stage{stage}.down")
                for number in range(count):
                    shapes.append((width, side, side))
                    blocks.append(
                        nn.Sequential(
                            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
                        )
                    )
                    steps.append("residual")
                    names.append(f"stage{stage}.{number}")
            shapes.append((width, side, side))
            head = nn.Sequential(nn.Flatten(), nn.Linear(width * side * side, classes))
        parts = {"stem": stem, "blocks": blocks, "head": head}
        self._module = nn.ModuleDict(parts).eval().requires_grad_(False)
        self._steps, self._names, self._shapes, self._classes = steps, names, shapes, classes
        # Depths of a stage have one and the same module for a head.
        self._heads: dict[int, Any] = {0: head}
        self._given = heads

    @property
    def module(self) -> torch.nn.Module:
        return self._module

    @property
    def num_blocks(self) -> int:
        return len(self._steps)

    @property
    def num_classes(self) -> int:
        return self._classes

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self._shapes[0]

    @property
    def steps(self) -> Sequence[Step]:
        return self._steps

    @property
    def one_readout(self) -> bool:
        return False

    def same_readout(self, t: int) -> bool:
        return self._steps[t] == "residual"

    @property
    def block_names(self) -> Sequence[str]:
        return self._names

    def shape_at(self, t: int) -> tuple[int, ...]:
        return self._shapes[t]

    def initial_state(self, inputs: torch.Tensor) -> torch.Tensor:
        state: torch.Tensor = self._part("stem")(inputs)
        return state

    def block(self, t: int, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        change: torch.Tensor = self._part("blocks")[t](state)
        return change if self._steps[t] == "transition" else state + change

    def readout(self, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        logits: torch.Tensor = self._part("head")(state)
        return logits

    def readout_at(self, t: int, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        for later in self._transitions(t):
            state = self.block(later, state)
        return self.readout(state)

    def head_at(self, t: int) -> torch.nn.Module | None:
        from torch import nn

        left = self._transitions(t)
        if left and not self._given:
            return None
        if len(left) not in self._heads:
            self._heads[len(left)] = nn.Sequential(*(self._part("blocks")[s] for s in left), self._part("head"))
        head: nn.Module = self._heads[len(left)]
        return head

    def block_modules(self, t: int) -> Sequence[torch.nn.Module]:
        return (self._part("blocks")[t],)

    def _transitions(self, t: int) -> list[int]:
        return [s for s in range(t, self.num_blocks) if self._steps[s] == "transition"]

    def _part(self, name: str) -> Any:
        return self._module[name]


class TinyToken(TinyModel):
    """Reads its class off a token that no image has reached before the first block: depth 0 is blind.

    Arguments:
        blind: further depths to be blind; the readout is a constant there.
    """

    name = "tiny-token"

    def __init__(self, blocks: int = 3, classes: int = 3, seed: int = 0, blind: Sequence[int] = ()) -> None:
        super().__init__(blocks, classes, seed)
        self.blind = (0, *blind)

    @property
    def one_readout(self) -> bool:
        return False

    @property
    def block_names(self) -> Sequence[str]:
        return [f"layers.{t}" for t in range(self.num_blocks)]

    def readout_at(self, t: int, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self.readout(0 * state if t in self.blind else state)

    def head_at(self, t: int) -> None:
        return None
