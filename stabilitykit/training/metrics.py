"""Classification results as in the paper's Table 1: macro precision, recall and F1 (scikit-learn), mean loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit.base.errors import DataProblem

if TYPE_CHECKING:
    import torch

    from stabilitykit.dynamics.dataset import Dataset
    from stabilitykit.dynamics.model import Model


def classification_metrics(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Table 1 for one model on one dataset.

    Arguments:
        labels: integers (N,) in 0..K-1.
        logits: float (N, K); the prediction is the argmax, the lowest class on ties.

    Returns:
        ``n``; macro ``precision``, ``recall``, ``f1`` over the classes that occur as label or prediction (0 where a
        class is never predicted); ``accuracy``; ``loss``, the mean cross-entropy in nats, in float64.

    Raises:
        DataProblem: other shapes, no image at all, or labels outside 0..K-1.
    """
    from scipy.special import log_softmax
    from sklearn.metrics import precision_recall_fscore_support

    labels = np.asarray(labels, dtype=np.int64)
    logits = np.asarray(logits, dtype=np.float64)
    if labels.ndim != 1 or len(labels) == 0 or logits.ndim != 2 or len(logits) != len(labels):
        raise DataProblem(
            f"metrics take labels (N,) and logits (N, K) with N >= 1; got {labels.shape} and {logits.shape}"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise DataProblem(
            f"metrics: labels range over {labels.min()}..{labels.max()}, the model has {logits.shape[1]} classes"
        )
    predicted = logits.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    return {
        "n": len(labels),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "accuracy": float((predicted == labels).mean()),
        "loss": float(loss),
    }


def predict(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    *,
    batch_size: int = 400,
    device: torch.device | str = "cpu",
    progress: Callable[..., Iterator[Any]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 (N,) and logits float32 (N, K) of ``dataset[indices]``; the model runs in eval mode."""
    import torch

    from stabilitykit.base.progress import no_progress
    from stabilitykit.dynamics.trajectory import batches

    out = np.empty((len(indices), model.num_classes), dtype=np.float32)
    training = model.module.training
    model.module.eval()
    total = -(-len(indices) // batch_size)
    try:
        with torch.inference_mode():
            stream = batches(model, dataset, indices, batch_size, device)
            for rows, inputs in (progress or no_progress)(stream, f"evaluate on {dataset.name}", total):
                out[rows] = model.logits(inputs).float().cpu().numpy()
    finally:
        model.module.train(training)
    return np.asarray(dataset.labels)[indices], out
