"""Decisions of a network in two number formats, compared image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from stabilitykit.dynamics.readout import kept_logits
from stabilitykit.dynamics.space import Space, to_space
from stabilitykit.evaluation.context import Context
from stabilitykit_precision.network import LowPrecisionNetwork

# Of an image whose logits are not all finite.
NO_DECISION = -1


@dataclass(frozen=True)
class Decisions:
    """What a network decides on n images.

    Attributes:
        logits: float32 or float64 (n, K).
        space: where margins are taken.
    """

    logits: np.ndarray
    space: Space

    @property
    def classes(self) -> np.ndarray:
        """int64 (n,): argmax of the logits, the lowest class on ties; NO_DECISION where they are not all finite."""
        finite = np.isfinite(self.logits).all(axis=1)
        return np.where(finite, self.logits.argmax(axis=1), NO_DECISION).astype(np.int64)

    def margins(self, rows: np.ndarray) -> np.ndarray:
        """float64 (m,): largest minus second largest value in ``space`` of the m ``rows``; NaN without a decision."""
        wanted = self.logits[rows]
        finite = np.isfinite(wanted).all(axis=1)
        values = to_space(np.where(finite[:, None], wanted, 0), self.space)
        if values.shape[1] < 2:
            return np.full(len(values), np.nan)
        top = np.partition(values, -2, axis=1)[:, -2:]
        return np.where(finite, top[:, 1] - top[:, 0], np.nan)

    def accuracy(self, labels: np.ndarray) -> float:
        """Share of decisions that are the labels, integers (n,)."""
        return float((self.classes == labels).mean())


@torch.inference_mode()
def clean_logits(context: Context, rows: np.ndarray) -> np.ndarray:
    """Logits (n, K) of the network as it was extracted, of ``rows``, integers (n,)."""
    parts = []
    for _, inputs in context.batches(rows):
        with context.running():
            parts.append(kept_logits(context.model, context.model.logits(inputs)))
    return np.concatenate(parts)


@torch.inference_mode()
def logits_in(context: Context, network: LowPrecisionNetwork, rows: np.ndarray, description: str = "") -> np.ndarray:
    """Logits (n, K), float32 or float64, of the whole network in its format, of ``rows``, integers (n,)."""
    count = -(-len(rows) // context.batch_size)
    batches: Iterator = context.progress(context.batches(rows), description, count)
    parts = []
    for _, inputs in batches:
        with context.running():
            parts.append(kept_logits(context.model, network.logits(inputs)))
    return np.concatenate(parts)


def mean_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """float64 (n,): mean over classes of |after - before|, logits (n, K) each; NaN where one is not finite."""
    with np.errstate(invalid="ignore"):
        change = np.abs(np.asarray(after, np.float64) - before).mean(axis=1)
    return np.where(np.isfinite(change), change, np.nan)
