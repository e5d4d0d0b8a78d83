"""Contexts over given readouts: the property sees exactly the numbers a test chose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.evaluation.context import Context
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


class LabelledDataset(TinyDataset):
    """Labels as given; the pixels do not matter."""

    def __init__(self, labels: np.ndarray, classes: int) -> None:
        super().__init__(len(labels), classes)
        self._labels = np.asarray(labels, dtype=np.int64)


@pytest.fixture(scope="session")
def context_of() -> Callable[..., Context]:
    """``context_of(logits (T+1, N, K), labels, space=, seed=, classes=, indices=)`` -> Context."""
    models: dict[int, TinyModel] = {}

    def make(logits, labels, space="logits", seed=0, classes=None, dataset_labels=None, indices=None):
        logits = np.asarray(logits, dtype=np.float32)
        classes = logits.shape[2] if classes is None else classes
        indices = np.arange(len(labels)) if indices is None else np.asarray(indices)
        dataset = LabelledDataset(labels if dataset_labels is None else dataset_labels, classes)
        labels = np.asarray(labels, dtype=np.int64)
        trajectory = Trajectory(logits, labels, indices, space, list(dataset.class_names))
        blocks = len(logits) - 1
        return Context(
            models.setdefault(blocks, TinyModel(blocks=blocks)),
            dataset,
            indices,
            None,
            Extraction(space=space),
            torch.device("cpu"),
            seed=seed,
            make_trajectory=lambda: trajectory,
        )

    return make
