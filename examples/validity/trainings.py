"""The trainings of the population: one loop, in which augmentation, label noise and attacks are settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import image_sets
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stabilitykit.plugins.registry import Registry
from stabilitykit.training.checkpoints import save_weights

BATCH = 100
HIGHEST_LR = 3e-3
CROP = 4


@dataclass(frozen=True)
class Training:
    """One network of the population.

    Attributes:
        images: name of the :class:`~image_sets.ImageSet`.
        width: of the revised ResNet-18, a multiple of 4.
        seed: of initial weights, order, augmentation and attacks.
        augment: of ``flip`` and ``crop``.
        noise: percentage of training labels that are wrong: 0, 5, 10 or 30.
        eps: l-infinity radius of the attack on every training batch, 0: none. One step of 1.25 eps from a random start
            (Wong, Rice and Kolter 2020, "Fast is better than free").
    """

    images: str
    width: int
    seed: int
    augment: tuple[str, ...] = ()
    noise: int = 0
    eps: float = 0.0

    @property
    def key(self) -> str:
        augment = "-augmented" if self.augment else ""
        noise = f"-noise{self.noise}" if self.noise else ""
        attacked = f"-eps{round(self.eps, 4)}" if self.eps else ""
        return f"{self.images}-w{self.width}{augment}{noise}{attacked}-s{self.seed}"


def design(images: image_sets.ImageSet, quick: bool = False) -> list[Training]:
    """Two widths, with and without augmentation, of three shares of wrong labels; and attacks of every radius.

    With clean labels, and under attack, ``images.repeats`` seeds each. ``quick``: eight networks of one small width.
    """
    widths, noises = ((8,), (0, 30)) if quick else ((8, 16), (0, 10, 30))
    plain = [
        Training(images.name, width, seed, augment, noise)
        for width in widths
        for augment in ((), images.augment)
        for noise in noises
        for seed in range(1 if noise else images.repeats)
    ]
    attacked = [
        Training(images.name, width, seed, (), 0, eps)
        for width in widths
        for eps in images.training_eps
        for seed in range(images.repeats)
    ]
    return plain + attacked


def train(training: Training, images: np.ndarray, labels: np.ndarray, epochs: int, output: Path) -> None:
    """Adam with a one-cycle schedule; the weights go to ``output`` (safetensors) when all epochs are done.

    Arguments:
        images: float32 (N, 3, 32, 32) in [0, 1]. labels: int64 (N,), noisy where the training says so.
    """
    options = {"width": training.width, "seed": training.seed}
    network = Registry.load().create("model", {"name": "resnet18", "options": options}).module.train()
    pixels, truth = torch.from_numpy(images), torch.from_numpy(labels)
    draw = torch.Generator().manual_seed(training.seed + 1)
    optimiser = torch.optim.Adam(network.parameters(), HIGHEST_LR)
    steps = epochs * (len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, HIGHEST_LR, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(pixels), generator=draw)
        for batch in order[: len(pixels) // BATCH * BATCH].split(BATCH):
            shown = augmented(pixels[batch], training.augment, draw)
            if training.eps:
                shown = fast_attack(network, shown, truth[batch], training.eps, draw)
            optimiser.zero_grad()
            functional.cross_entropy(network(shown), truth[batch]).backward()
            optimiser.step()
            schedule.step()
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(output, network.state_dict(), {"validity": asdict(training), "epochs": epochs})


def augmented(batch: torch.Tensor, augment: tuple[str, ...], draw: torch.Generator) -> torch.Tensor:
    """(B, C, H, W), float32: every second image mirrored, every image shifted by up to 4 pixels, zeros moving in."""
    if "flip" in augment:
        mirrored = torch.rand(len(batch), generator=draw) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    if "crop" in augment:
        height, width = batch.shape[2:]
        padded = functional.pad(batch, (CROP,) * 4)
        tops = torch.randint(2 * CROP + 1, (len(batch),), generator=draw).tolist()
        lefts = torch.randint(2 * CROP + 1, (len(batch),), generator=draw).tolist()
        batch = torch.stack(
            [image[:, top : top + height, left : left + width] for image, top, left in zip(padded, tops, lefts)]
        )
    return batch


def fast_attack(
    network: nn.Module, batch: torch.Tensor, labels: torch.Tensor, eps: float, draw: torch.Generator
) -> torch.Tensor:
    """One step of the gradient's sign, 1.25 eps long, from a random point of the l-infinity ball; pixels in [0, 1].

    Arguments:
        batch: float32 (B, C, H, W). labels: int64 (B,).
    """
    start = (torch.rand(batch.shape, generator=draw) * 2 - 1) * eps
    moved = (batch + start).clamp(0, 1).requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(network(moved), labels), moved)
    ahead = moved.detach() + 1.25 * eps * slope.sign()
    return torch.min(torch.max(ahead, batch - eps), batch + eps).clamp(0, 1)
