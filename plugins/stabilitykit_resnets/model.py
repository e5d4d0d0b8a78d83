"""Revised ResNets as stabilitykit models: building them from options and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stabilitykit import CellProblem, Model, UsageProblem
from stabilitykit.dynamics.model import Step
from stabilitykit.training.checkpoints import Loading, known_class_names, load_into, read_checkpoint, remarks
from stabilitykit_resnets.network import IMAGE_CHANNELS, IMAGE_SIZE, STEM_SIZE, PatchStem, RevisedResNet

DIGITS_WEIGHTS = Path(__file__).with_name("weights") / "resnet18-digits.safetensors"
DIGITS_WIDTH = 8
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
USUAL = {"stem": "conv", "grouping": "first", "width": 64, "final_relu": True, "num_classes": 10}


class RevisedResNetModel(Model):
    """A :class:`RevisedResNet` seen block by block; states (B, width, 8, 8) in the stem's order."""

    def __init__(
        self,
        name: str,
        network: RevisedResNet,
        record: Mapping[str, Any],
        class_names: Sequence[str] | None = None,
        statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> None:
        self.name = name
        self._class_names = class_names
        self._statistics = statistics
        self._network = network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._record = dict(record)

    @property
    def module(self) -> RevisedResNet:
        return self._network

    @property
    def num_blocks(self) -> int:
        return len(self._network.blocks)

    @property
    def num_classes(self) -> int:
        return self._network.num_classes

    @property
    def class_names(self) -> Sequence[str] | None:
        """Of the data the weights were trained on, where the checkpoint says it."""
        return self._class_names

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (self._network.width, STEM_SIZE, STEM_SIZE)

    def initial_state(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._network.initial_state(inputs)

    def block(self, t: int, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self._network.block(t, state)

    def readout(self, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self._network.head(state)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._network(inputs)

    @property
    def block_names(self) -> Sequence[str]:
        return [f"blocks.{t}" for t in range(self.num_blocks)]

    @property
    def steps(self) -> Sequence[Step]:
        return ["residual"] * self.num_blocks

    def block_modules(self, t: int) -> Sequence[nn.Module]:
        return (self._network.blocks[t],)

    @property
    def head(self) -> nn.Module:
        """Flatten and one fully connected layer on (B, width, 8, 8)."""
        return self._network.head

    def preprocess(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Images (3, 32, 32) in [0, 1] -> (B, 3, 32, 32), normalised if asked to; CellProblem for other sizes."""
        wanted = (IMAGE_CHANNELS, IMAGE_SIZE, IMAGE_SIZE)
        for image in images:
            if tuple(image.shape) != wanted:
                raise CellProblem(
                    f"model {self.name} takes images of {_size(wanted)}, got {_size(image.shape)}; "
                    f"resize or pad them, e.g. imagefolder:DIR,size={IMAGE_SIZE} or npz:FILE,pad=2 for 28x28"
                )
        inputs = super().preprocess(images)
        if self._statistics is None:
            return inputs
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in self._statistics)
        return (inputs - mean) / std

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        if self._statistics is None:
            return super().preprocessing
        mean, std = map(list, self._statistics)
        return {"resize": None, "normalise": "mean and std", "mean": mean, "std": std}

    def describe(self) -> Mapping[str, Any]:
        """``architecture``, ``options``, ``parameters`` and, for trained weights, ``checkpoint``."""
        return {**self._record, "parameters": sum(p.numel() for p in self._network.parameters())}

    def fingerprint(self) -> str:
        # Neither the ReLU after the addition nor the parameter-free stem shows in the tensors.
        return f"{super().fingerprint()}-relu{int(self._network.final_relu)}"


def resnet18(**options: Any) -> RevisedResNetModel:
    """Revised ResNet-18: bottleneck blocks 2-2-2-2. Options as listed in the plugin's schema."""
    return build("resnet18", **options)


def resnet50(**options: Any) -> RevisedResNetModel:
    """Revised ResNet-50: bottleneck blocks 3-4-6-3. Options as listed in the plugin's schema."""
    return build("resnet50", **options)


def resnet18_digits() -> RevisedResNetModel:
    """The embedded revised ResNet-18 of width 8, trained on the train split of digits."""
    model = build("resnet18", depths=(2, 2, 2, 2), width=DIGITS_WIDTH, checkpoint=str(DIGITS_WEIGHTS))
    model.name = "resnet18-digits"
    model._class_names = [str(digit) for digit in range(10)]
    return model


def build(
    name: str,
    *,
    depths: Sequence[int],
    stem: str = "conv",
    grouping: str = "first",
    width: int = 64,
    final_relu: bool = True,
    num_classes: int = 10,
    checkpoint: str | None = None,
    allow_unused: str | None = None,
    weights: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    init: str = "torch",
    seed: int = 0,
) -> RevisedResNetModel:
    """Build a revised ResNet, untrained from ``seed`` or with the weights of ``checkpoint``.

    Raises:
        UsageProblem: options that fit no network; a checkpoint of another architecture.
        DataProblem: an unreadable checkpoint, or NaN or infinite weights.
    """
    if len(depths) != 4 or min(depths) < 1:
        raise UsageProblem(
            f"{name}: depths gives the blocks of 4 stages, each at least 1, as 2-2-2-2; "
            f"got {'-'.join(map(str, depths))}"
        )
    if width % 4:
        raise UsageProblem(f"{name}: width is a multiple of 4 (group convolutions over 4 tiles); got {width}")
    if stem == "patch" and width < PatchStem.channels:
        raise UsageProblem(
            f"{name}: stem=patch keeps all {PatchStem.channels} x {STEM_SIZE} x {STEM_SIZE} "
            f"pixel values, so width is at least {PatchStem.channels}; got {width}"
        )
    options = {
        "stem": stem,
        "grouping": grouping,
        "width": width,
        "depths": list(depths),
        "final_relu": final_relu,
        "num_classes": num_classes,
    }
    return finished(
        name,
        options,
        lambda: RevisedResNet(
            depths, width=width, stem=stem, grouping=grouping, final_relu=final_relu, num_classes=num_classes
        ),
        {**USUAL, "depths": DEPTHS.get(name)},
        checkpoint=checkpoint,
        allow_unused=allow_unused,
        weights=weights,
        mean=mean,
        std=std,
        init=init,
        seed=seed,
    )


def finished(
    name: str,
    options: Mapping[str, Any],
    make: Callable[[], RevisedResNet],
    usual: Mapping[str, Any],
    *,
    checkpoint: str | None,
    allow_unused: str | None,
    weights: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    init: str,
    seed: int,
) -> RevisedResNetModel:
    """The network that ``make`` makes as a model, its weights drawn from ``seed`` or read from ``checkpoint``.

    Arguments:
        options: what the architecture depends on, as a checkpoint records it. usual: what it is where not given.

    Raises:
        UsageProblem: a checkpoint of another architecture.
        DataProblem: an unreadable checkpoint, or NaN or infinite weights.
    """
    record: dict[str, Any] = {"architecture": name, "options": dict(options), "seed": seed}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
        if init == "kaiming_fan_out":
            _kaiming_fan_out(network)
            record["init"] = init
    names = None
    if checkpoint is not None:
        found = read_checkpoint(checkpoint)
        metadata = found.metadata
        _same_architecture(name, options, metadata.get("model"), checkpoint, usual)
        record["weights"] = load_into(network, found, name, Loading.of(allow_unused, weights=weights))
        record["warnings"] = remarks(record["weights"])
        told = ("dataset", "recipe", "epoch", "versions", "class_names")
        kept = {key: metadata[key] for key in told if key in metadata}
        names = known_class_names(metadata, network.num_classes)
        record["checkpoint"] = {"file": Path(checkpoint).name, **kept}
    return RevisedResNetModel(name, network, record, names, _statistics(mean, std, name))


def _kaiming_fan_out(network: nn.Module) -> None:
    """Convolutions as in the authors' code: normal, variance 2 / (outputs * kernel); the rest as it is."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None, name: str
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, standard deviation) of every channel; None for pixels as they are."""
    if mean is None and std is None:
        return None
    both = [tuple(values) * (IMAGE_CHANNELS if len(values) == 1 else 1) for values in (mean or (0.0,), std or (1.0,))]
    if any(len(values) != IMAGE_CHANNELS for values in both) or min(both[1]) <= 0:
        raise UsageProblem(
            f"{name}: mean and std are one number or {IMAGE_CHANNELS}, std above 0; got {both[0]} and {both[1]}"
        )
    return both[0], both[1]


def _same_architecture(
    name: str, options: Mapping[str, Any], trained: Any, checkpoint: str, defaults: Mapping[str, Any]
) -> None:
    """UsageProblem when the checkpoint says it was trained with other options (not all change a shape)."""
    if not isinstance(trained, Mapping) or not isinstance(trained.get("options"), Mapping):
        return
    theirs = dict(trained["options"])
    if all(options.get(key, value) == value for key, value in theirs.items()):
        return
    architecture = str(trained.get("architecture", name))
    usual = defaults if architecture == name else {**USUAL, "depths": DEPTHS.get(architecture)}
    text = "".join(
        f"{key}={_option_text(theirs[key])},"
        for key in options
        if key in theirs and _option_text(theirs[key]) != _option_text(usual.get(key))
    )
    mine = {key: options[key] for key in options if key in theirs and options[key] != theirs[key]}
    asked = ",".join(f"{key}={_option_text(value)}" for key, value in mine.items())
    raise UsageProblem(
        f"checkpoint {checkpoint} was not trained as {name} with {asked}; "
        f"use {architecture}:{text}checkpoint={checkpoint}"
    )


def _option_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
