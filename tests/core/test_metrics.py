"""Table 1 metrics against hand-made references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit import DataProblem
from stabilitykit.training.metrics import classification_metrics


def reference(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Macro precision, recall and F1 by counting; loss by torch in float64."""
    predicted = logits.argmax(1)
    rows = []
    for c in np.union1d(labels, predicted):
        hit = float(((labels == c) & (predicted == c)).sum())
        said, true = float((predicted == c).sum()), float((labels == c).sum())
        p, r = hit / said if said else 0.0, hit / true if true else 0.0
        rows.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
    p, r, f = np.mean(rows, axis=0)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels))
    return {
        "n": len(labels),
        "precision": p,
        "recall": r,
        "f1": f,
        "accuracy": float((predicted == labels).mean()),
        "loss": float(loss),
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(2, 6), st.floats(0.01, 300), st.integers(0, 2**31))
def test_against_counting(n: int, k: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, k, n), (rng.normal(size=(n, k)) * scale).astype(np.float32)
    found, expected = classification_metrics(labels, logits), reference(labels, logits)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    order = rng.permutation(n)
    assert classification_metrics(labels[order], logits[order]) == pytest.approx(found, rel=1e-9, abs=1e-12)


def test_perfect_and_extreme_logits() -> None:
    labels = np.arange(10) % 5
    logits = np.eye(5)[labels] * 1e4
    assert classification_metrics(labels, logits) == {
        "n": 10,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "accuracy": 1.0,
        "loss": 0.0,
    }
    assert classification_metrics(labels, -logits)["loss"] == pytest.approx(1e4 + np.log(4))


@pytest.mark.parametrize(
    ("labels", "logits"),
    [(np.zeros(0, int), np.zeros((0, 3))), (np.array([0, 3]), np.zeros((2, 3))), (np.array([0]), np.zeros((2, 3)))],
)
def test_bad_input(labels: np.ndarray, logits: np.ndarray) -> None:
    with pytest.raises(DataProblem):
        classification_metrics(labels, logits)
