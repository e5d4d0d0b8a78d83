"""What needs no trajectory: the baselines that the constants are held against, and two of the outcomes."""

from __future__ import annotations

import math

import harms
import image_sets
import numpy as np
import torch
from population import Member, Pixels
from scipy.special import softmax
from torch import nn
from torch.nn import functional

GRADIENT_IMAGES = 500
BINS = 15


def baselines(member: Member) -> dict[str, float]:
    """``accuracy``, ``confidence``, ``margin`` (mean difference of the two largest logits), ``gradient`` (mean l2 norm
    of the gradient of cross-entropy at the pixels, on 500 images) and ``spectral`` (log of the product over layers)."""
    images, labels = image_sets.read(member.test)
    network = Pixels(member.load()).eval()
    logits = harms.scores(network, images)
    ordered = np.sort(logits, axis=1)
    return {
        "accuracy": float((logits.argmax(1) == labels).mean()),
        "confidence": float(softmax(logits, axis=1).max(1).mean()),
        "margin": float((ordered[:, -1] - ordered[:, -2]).mean()),
        "gradient": float(gradient_norms(network, images[:GRADIENT_IMAGES], labels[:GRADIENT_IMAGES]).mean()),
        "spectral": spectral_product(network),
    }


def calibration_and_gap(member: Member) -> dict[str, float]:
    """``ece``: expected calibration error on the test images. ``gap``: accuracy on the training images with the labels
    the network saw minus accuracy on the test images; left out where it was not trained on these images."""
    network = Pixels(member.load()).eval()
    images, labels = image_sets.read(member.test)
    logits = harms.scores(network, images)
    found = {"ece": calibration_error(softmax(logits, axis=1), labels)}
    if member.labels:
        seen, given = image_sets.read(member.train, member.labels)
        right = (logits.argmax(1) == labels).mean()
        found["gap"] = float((harms.decided(network, seen) == given).mean() - right)
    return found


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017): |accuracy - confidence| in bins of equal width, weighted by count.

    Arguments:
        probabilities: float (N, K). labels: int (N,).
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    chosen = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[chosen == b].mean() - confidence[chosen == b].mean()) * (chosen == b).mean() for b in set(chosen)]
    return float(sum(gaps))


def gradient_norms(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 (N,): l2 norm of the gradient of each image's cross-entropy at its pixels, float32 (N, C, H, W)."""
    found = []
    for start in range(0, len(images), harms.BATCH):
        pixels = torch.from_numpy(images[start : start + harms.BATCH]).requires_grad_()
        truth = torch.from_numpy(labels[start : start + harms.BATCH])
        (slope,) = torch.autograd.grad(functional.cross_entropy(network(pixels), truth, reduction="sum"), pixels)
        found.append(slope.flatten(1).double().norm(dim=1).numpy())
    return np.concatenate(found)


def spectral_product(network: nn.Module) -> float:
    """Log of the product, over convolutions, linear layers and BatchNorms, of their spectral norms.

    A convolution counts as the matrix (outputs, inputs x kernel), as in spectral normalisation (Miyato et al. 2018).
    """
    total = 0.0
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            total += math.log(float(torch.linalg.matrix_norm(module.weight.detach().double().flatten(1), 2)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            gains = module.weight.detach().double() / (module.running_var.double() + module.eps).sqrt()
            total += math.log(float(gains.abs().max()))
    return total
