"""The networks of the study: trained here, embedded, and whatever checkpoints a list file names."""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import image_sets
import torch
from trainings import Training, design, train

from stabilitykit import Model
from stabilitykit.plugins.registry import Registry


@dataclass(frozen=True)
class Member:
    """One network.

    Attributes:
        key: its name in every table, unique.
        group: networks that are compared with one another: one data set, one family of architectures.
        weights: its file; None where the model brings its own.
        model: spec that stabilitykit takes, without the weights.
        images: name of the image set.
        train, test: .npz files of the images (see ``image_sets.ImageSet.files``); ``dataset`` and ``test_spec`` are
            the specs of them.
        labels: key of the labels it was trained on, as ``y30`` with 30 % of them wrong; ``y`` for clean ones. Empty
            where it was not trained on these images, so that there is no generalisation gap.
        attack_eps: radii of attacks on it.
        about: plain data: width, seed, augment, noise (percentage), eps (of adversarial training), source.
    """

    key: str
    group: str
    weights: Path | None
    model: Mapping[str, Any]
    images: str
    train: Path
    test: Path
    labels: str
    attack_eps: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def spec(self) -> dict[str, Any]:
        """``model`` with the weights: what ``stabilitykit.evaluate`` takes."""
        weights = {} if self.weights is None else {"checkpoint": str(self.weights)}
        return {"name": self.model["name"], "options": {**self.model.get("options", {}), **weights}}

    @property
    def dataset(self) -> dict[str, Any]:
        """Spec of the training images with the labels the network saw."""
        return {"name": "npz", "options": {"path": str(self.train), "labels": self.labels or "y"}}

    @property
    def readout_dataset(self) -> dict[str, Any]:
        """Spec of the first 2,000 of them, for lens and probes."""
        return {"name": "npz", "options": {**self.dataset["options"], "mask": "readout"}}

    @property
    def test_spec(self) -> dict[str, Any]:
        """Spec of the test images, in the order of the file."""
        return {"name": "npz", "options": {"path": str(self.test)}}

    def load(self) -> Model:
        """The network as stabilitykit's Model, on the CPU, in eval mode."""
        model: Model = Registry.load().create("model", self.spec)
        model.module.eval()
        return model


class Pixels(torch.nn.Module):
    """A Model as a module on pixels: float32 (B, 3, 32, 32) in [0, 1] -> logits (B, K), differentiable in the pixels.

    Raises:
        ValueError: the model does more to an image than subtract a mean and divide by a standard deviation.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        said = dict(model.preprocessing)
        if said.get("resize"):
            raise ValueError(f"{model.name} resizes its images; give it images of its own size")
        self.model, self.network = model, model.module
        self.register_buffer("mean", torch.tensor(said.get("mean", [0.0])).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(said.get("std", [1.0])).reshape(-1, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.logits((pixels - self.mean) / self.std)


def members(options: argparse.Namespace) -> list[Member]:
    """All networks whose weights are there, trained ones first; what is missing is trained with ``options.train``.

    Arguments:
        options: ``work`` (folder of images, weights, results so far), ``cifar`` and ``mnist`` (folders or None),
            ``quick``, ``train``, ``list`` (TOML files of further checkpoints), ``checkpoints`` (folder their files are
            relative to). What is left out, and why, is added to ``options.left_out``.
    """
    found: list[Member] = []
    sets = image_sets.image_sets(cifar=options.cifar, mnist=options.mnist, quick=options.quick)
    for images in sets:
        files = images.files(options.work)
        for training in design(images, options.quick):
            member = trained_member(training, images, files, options)
            if member is not None:
                found.append(member)
    for path in options.list:
        found += _listed(path, {images.name: images for images in sets}, options)
    return found


def trained_member(
    training: Training, images: image_sets.ImageSet, files: tuple[Path, Path], options: argparse.Namespace
) -> Member | None:
    """The network of that training, trained if ``options.train`` and need be; None, with the reason left in
    ``options.left_out``, where it has no weights. ``files`` are those of ``images``."""
    weights = options.work / "weights" / f"{training.key}.safetensors"
    if not weights.exists() and options.train:
        _train(training, images, files[0], weights)
    if not weights.exists():
        options.left_out[training.key] = "no weights; add --train"
        return None
    return _trained(training, images, files, weights)


def _train(training: Training, images: image_sets.ImageSet, file: Path, weights: Path) -> None:
    print(f"training {training.key}", file=sys.stderr, flush=True)
    pixels, labels = image_sets.read(file, _labels(training))
    train(training, pixels, labels, images.epochs, weights)


def _labels(training: Training) -> str:
    return f"y{training.noise}" if training.noise else "y"


def _trained(training: Training, images: image_sets.ImageSet, files: tuple[Path, Path], weights: Path) -> Member:
    about = {
        "width": training.width,
        "seed": training.seed,
        "augment": "+".join(training.augment),
        "noise": training.noise,
        "eps": training.eps,
        "source": "trained here",
    }
    model = {"name": "resnet18", "options": {"width": training.width}}
    return Member(
        training.key,
        f"{images.name}, revised ResNet-18",
        weights,
        model,
        images.name,
        *files,
        _labels(training),
        images.attack_eps,
        about,
    )


def _listed(path: Path, sets: Mapping[str, image_sets.ImageSet], options: argparse.Namespace) -> list[Member]:
    """Networks of a list file; an entry that cannot be had is left out with the reason."""
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["network"]:
        key, images = entry["key"], sets.get(entry["images"])
        name = entry.get("file")
        weights = None if name is None else (options.checkpoints or Path()) / name
        if images is None:
            options.left_out[key] = f"no images {entry['images']}"
            continue
        if weights is not None and not weights.exists():
            options.left_out[key] = f"no file {name} in --checkpoints"
            continue
        if "code" in entry:  # where a builder of its own is defined
            sys.path.insert(0, str((path.parent / entry["code"]).resolve()))
        model = {"name": entry["model"], "options": entry.get("options", {})}
        files = images.files(options.work)
        about = {"source": entry.get("about", "given"), "eps": entry.get("eps", 0.0)}
        found.append(Member(key, entry["group"], weights, model, images.name, *files, "", images.attack_eps, about))
    return found
