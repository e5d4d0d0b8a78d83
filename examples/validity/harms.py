"""What is done to a network or its images, and which images it still decides as before: per image, as numpy arrays.

Attacks are those of torchattacks, which asks for a version of requests that nothing else here takes; install it with

    pip install --no-deps torchattacks==3.5.1

Without it attacks are left out, and :func:`without_attacks` says why.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from population import Member, Pixels
from stabilitykit_precision.integers import IntegerScheme
from stabilitykit_precision.network import in_format
from torch import nn
from torch.nn.utils import prune

BATCH = 100
PGD_STEPS = 10
APGD_STEPS, TARGETED_STEPS, QUERIES = 20, 10, 200
FORMATS = ("bf16", "int8")
CALIBRATION = 64
PRUNED = (0.3, 0.5)
INSTALL = "pip install --no-deps torchattacks==3.5.1"


@dataclass(frozen=True)
class Attacked:
    """Attacks of growing radius on N images.

    Attributes:
        eps: E radii (l-infinity, pixels of [0, 1]), ascending.
        correct: bool (E, N): decided rightly for all that was tried at this radius and smaller ones.
        smallest: float64 (N,): the radius at which the image fell; 0 where it is wrong unattacked, inf where it stood.
    """

    eps: tuple[float, ...]
    correct: np.ndarray
    smallest: np.ndarray


def without_attacks() -> str | None:
    """Why nothing can be attacked here; None where it can."""
    return None if find_spec("torchattacks") else f"torchattacks is not installed ({INSTALL})"


def attacked(
    member: Member,
    images: np.ndarray,
    labels: np.ndarray,
    eps: Sequence[float] | None = None,
    attack: str = "pgd",
    seed: int = 0,
) -> Attacked:
    """Attack what is decided rightly, radius by radius; an image that fell stays fallen.

    Arguments:
        images: float32 (N, 3, H, W) in [0, 1]. labels: int64 (N,).
        eps: ascending radii; None: ``member.attack_eps``.
        attack: ``"pgd"`` (10 steps of eps/4 from a random start) or ``"ensemble"``: three of AutoAttack's four with
            fewer steps, one after another on what still stands: APGD on cross-entropy (20 steps), APGD on the targeted
            difference of logits ratio (9 classes, 10 steps each), Square (200 queries). Not AutoAttack itself, whose
            5,000 queries and 100 steps are for a graphics card.

    Raises:
        ModuleNotFoundError: torchattacks is missing (see :func:`without_attacks`).
    """
    network = Pixels(member.load()).eval()
    radii = tuple(member.attack_eps if eps is None else eps)
    standing = decided(network, images) == labels
    smallest = np.where(standing, np.inf, 0.0)
    correct = np.zeros((len(radii), len(images)), dtype=bool)
    for number, radius in enumerate(radii):
        for made in _attacks(network, radius, attack, seed):
            rows = np.flatnonzero(standing)
            if len(rows):
                standing[rows] = _withstood(network, made, images[rows], labels[rows], seed)
        smallest[~standing & np.isinf(smallest)] = radius
        correct[number] = standing
    return Attacked(radii, correct, smallest)


def _attacks(network: nn.Module, eps: float, attack: str, seed: int) -> list[Any]:
    import torchattacks

    if attack == "pgd":
        return [torchattacks.PGD(network, eps=eps, alpha=eps / 4, steps=PGD_STEPS)]
    if attack != "ensemble":
        raise ValueError(f"attack is pgd or ensemble; got {attack!r}")
    classes = network.model.num_classes
    return [
        torchattacks.APGD(network, eps=eps, steps=APGD_STEPS, seed=seed),
        torchattacks.APGDT(network, eps=eps, steps=TARGETED_STEPS, seed=seed, n_classes=classes),
        torchattacks.Square(network, eps=eps, n_queries=QUERIES, seed=seed),
    ]


def _withstood(network: nn.Module, attack: Any, images: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """bool (N,): still decided as its label after the attack."""
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for batch in _batches(len(images)):
            truth = torch.from_numpy(labels[batch])
            moved = attack(torch.from_numpy(images[batch]), truth)
            with torch.inference_mode():
                found.append((network(moved).argmax(1) == truth).numpy())
    return np.concatenate(found)


def corrupted(member: Member, images: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Classes, int64 (N,), of images under ``noise`` (Gaussian, standard deviation 0.08), ``blur`` (Gaussian, 1 pixel)
    and ``jpeg`` (quality 25); ``clean`` beside them.

    Arguments:
        images: float32 (N, 3, H, W) in [0, 1].
    """
    network = Pixels(member.load()).eval()
    changes = {"clean": images, "noise": noisy(images, seed), "blur": blurred(images), "jpeg": compressed(images)}
    return {name: decided(network, changed) for name, changed in changes.items()}


def noisy(images: np.ndarray, seed: int = 0, deviation: float = 0.08) -> np.ndarray:
    """float32 (N, C, H, W) in [0, 1] with Gaussian noise of that standard deviation, clipped."""
    draw = np.random.Generator(np.random.PCG64(seed))
    return np.clip(images + deviation * draw.standard_normal(images.shape, dtype=np.float32), 0, 1).astype(np.float32)


def blurred(images: np.ndarray, deviation: float = 1.0) -> np.ndarray:
    """float32 (N, C, H, W) under a Gaussian of that many pixels, borders mirrored."""
    from scipy.ndimage import gaussian_filter

    found: np.ndarray = gaussian_filter(images, (0, 0, deviation, deviation))
    return found


def compressed(images: np.ndarray, quality: int = 25) -> np.ndarray:
    """float32 (N, 3, H, W) in [0, 1] after one round of JPEG."""
    found = np.empty_like(images)
    for number, image in enumerate(np.round(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        found[number] = np.asarray(Image.open(buffer), dtype=np.float32).transpose(2, 0, 1) / 255
    return found


def quantised(member: Member, images: np.ndarray, formats: Sequence[str] = FORMATS) -> dict[str, np.ndarray]:
    """Classes, int64 (N,), of the whole network in each number format, as property ``precision`` runs it.

    Arguments:
        images: float32 (N, 3, H, W) in [0, 1]; the first 64 give int8's static ranges.
        formats: of ``bf16``, ``fp16``, ``int8-weights``, ``int8``.
    """
    model = member.load()
    examples = [model.preprocess(list(images[:CALIBRATION]))]
    found = {}
    for format in formats:
        scheme = IntegerScheme(inputs=format == "int8")
        low = in_format(model, format, scheme, examples)
        found[format] = decided(low.logits, images, model.preprocess)
    return found


def pruned(member: Member, images: np.ndarray, shares: Sequence[float] = PRUNED) -> dict[float, np.ndarray]:
    """Classes, int64 (N,), after the smallest weights of all convolutions and linear layers together are set to 0.

    Arguments:
        images: float32 (N, 3, H, W) in [0, 1]. shares: of the weights set to 0.
    """
    found = {}
    for share in shares:
        # The pruning of torch flattens weights with view, which other memory formats refuse.
        network = Pixels(member.load()).eval().to(memory_format=torch.contiguous_format)
        layers = [(m, "weight") for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)
        for layer, name in layers:
            prune.remove(layer, name)
        found[share] = decided(network, images)
    return found


def decided(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: np.ndarray,
    preprocess: Callable[[Sequence[np.ndarray]], torch.Tensor] | None = None,
) -> np.ndarray:
    """Classes, int64 (N,), in batches of 100; images float32 (N, C, H, W) in [0, 1]."""
    return scores(network, images, preprocess).argmax(1)


def scores(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: np.ndarray,
    preprocess: Callable[[Sequence[np.ndarray]], torch.Tensor] | None = None,
) -> np.ndarray:
    """Logits, float64 (N, K), in batches of 100; images float32 (N, C, H, W) in [0, 1]."""
    with torch.inference_mode():
        parts = []
        for batch in _batches(len(images)):
            shown = torch.from_numpy(images[batch]) if preprocess is None else preprocess(list(images[batch]))
            parts.append(network(shown).double().numpy())
    return np.concatenate(parts)


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))
