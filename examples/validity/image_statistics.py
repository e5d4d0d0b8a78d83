"""How well a number finds images, what it adds to softmax, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

LEVEL = 0.95
FOLDS, REPEATS = 5, 3
# Scales of the numbers differ by powers of ten, and a tail must not decide: each becomes normal by its ranks.
QUANTILES = 100


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the two-sided p of no effect (0.5 for an AUROC, 0 for a gain)."""

    value: float
    low: float
    high: float
    p: float


def auroc(scores: np.ndarray, target: np.ndarray) -> Estimate:
    """AUROC with DeLong's interval (DeLong, DeLong and Clarke-Pearson 1988), normal on the logit scale.

    Arguments:
        scores: float (N,), high for images to be found. target: (N,), 1 those and 0 the others.
    """
    value = float(placements(scores, target)[0].mean())
    error = float(np.sqrt(_variance(*placements(scores, target))))
    if error == 0 or value in (0.0, 1.0):  # separated, or the same for all: there is nothing to estimate an error from
        return Estimate(value, value, value, 1.0 if value == 0.5 else 0.0)
    z = stats.norm.ppf((1 + LEVEL) / 2)
    scale = error / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(np.log(value / (1 - value)) + sign * z * scale)))) for sign in (-1, 1))
    return Estimate(value, low, high, float(2 * stats.norm.sf(abs(value - 0.5) / error)))


def placements(scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the others below each image to be found, float64 (P,), and of those above each other, float64 (M,);
    ties count half. The mean of either is the AUROC."""
    found, others = scores[target == 1], scores[target == 0]
    every = stats.rankdata(np.concatenate([found, others]))
    above = (every[: len(found)] - stats.rankdata(found)) / len(others)
    below = 1 - (every[len(found) :] - stats.rankdata(others)) / len(found)
    return above, below


def _variance(above: np.ndarray, below: np.ndarray) -> float:
    return float(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))


def difference(first: np.ndarray, second: np.ndarray, target: np.ndarray) -> Estimate:
    """AUROC of ``first`` minus that of ``second`` on the same images, with DeLong's paired interval.

    Of two predictions by :func:`foretold` it knows how images vary, not how other cuts would. Nested regressions that
    hardly differ make its p cautious (Demler, Pencina and D'Agostino 2012).
    """
    a, b = placements(first, target), placements(second, target)
    parts = a[0] - b[0], a[1] - b[1]
    value, error = float(parts[0].mean()), float(np.sqrt(_variance(*parts)))
    z = stats.norm.ppf((1 + LEVEL) / 2)
    p = 1.0 if error == 0 else float(2 * stats.norm.sf(abs(value) / error))
    return Estimate(value, value - z * error, value + z * error, p)


def foretold(numbers: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
    """float64 (N,): log odds of a logistic regression on ``numbers`` (N, M), each image's from four fifths without it;
    the mean of three cuts into fifths."""
    quantiles = min(QUANTILES, len(target) // 2)
    model = make_pipeline(
        QuantileTransformer(n_quantiles=quantiles, output_distribution="normal", random_state=seed),
        LogisticRegression(max_iter=1000),
    )
    total = np.zeros(len(target))
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        total += cross_val_predict(model, numbers, target.astype(int), cv=folds, method="decision_function")
    return total / REPEATS
