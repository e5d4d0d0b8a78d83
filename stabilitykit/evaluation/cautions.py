"""What a reader has to know before any number of a pair: weights that are none, idle blocks, an accuracy of chance."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.subject import Subject

FEWEST = 20
"""Images below which an accuracy says nothing."""
SIGMAS = 3.0
"""Standard deviations above chance from which an accuracy counts as more than chance."""


def cautions_before(subject: Subject) -> list[str]:
    """What can be said before anything is measured: untrained weights, blocks that do nothing, what loading let
    through, no certificate."""
    details = subject.model.describe()
    word = "UNCERTIFIED" if subject.settings.uncertified else "certificate"
    found = [f"{word}: {reason}" for reason in _texts(subject.certificate.get("reasons"))]
    if untrained(subject.model_choice, details):
        found.append("the weights are untrained (no checkpoint was given): every number is about a random network")
    core = subject.certificate.get("core")
    kind = core.get("output_kind") if isinstance(core, Mapping) else None
    if kind == "log-probabilities" and subject.model.replayed and subject.settings.extraction.space == "logits":
        found.append(
            "the values are log-probabilities, and distances are between them as they are, however small a "
            "probability: --space probabilities measures the probabilities"
        )
    idle = _texts(subject.certificate.get("vacuous"))
    if idle:
        found.append(f"{'; '.join(idle)}: so it is in networks that are not trained")
    return found + _texts(subject.certificate.get("remarks")) + _texts(details.get("warnings"))


def untrained(choice: Choice, details: Mapping[str, object]) -> bool:
    """Whether a model says that its weights are untrained, or takes a checkpoint and was given none."""
    weights = details.get("weights")
    if isinstance(weights, str):
        return weights.startswith("untrained")
    if weights is not None or "checkpoint" in details:
        return False
    return choice.has_option("checkpoint") and choice.options.get("checkpoint") is None


def cautions_after(subject: Subject) -> list[str]:
    """What the readouts show: decisions that are all alike, an accuracy that does not differ from chance."""
    trajectory = subject.known_trajectory
    settings = subject.settings
    if trajectory is None:
        return []
    known = untrained(subject.model_choice, subject.model.describe())
    found = [] if known or subject.model.replayed else _all_alike(trajectory)
    if settings.any_classes or not settings.extraction.networks_classes or subject.model.replayed or known:
        return found
    if trajectory.num_classes != len(trajectory.class_names):
        return found
    accuracy, chance, limit = at_chance(trajectory)
    if accuracy > limit or limit >= 1 or len(trajectory) < FEWEST:
        return found
    return [
        *found,
        f"accuracy {accuracy:.3g} on {len(trajectory)} images is chance ({chance:.3g}): check the weights, the order "
        "of the classes and the preprocessing (mean, std)",
    ]


def _all_alike(trajectory: Trajectory) -> list[str]:
    """What tells no image apart in the end, of readouts that should; empty where something does."""
    count, chosen = len(trajectory), trajectory.predictions
    if count < FEWEST or len(np.unique(trajectory.labels)) < 2 or (chosen != chosen[0]).any():
        return []
    advice = "the network does not look trained: check the weights and the preprocessing (mean, std)"
    if trajectory.depth in trajectory.blind:
        return [f"all {count} images have the same final readout; {advice}"]
    return [f"all {count} images are taken for one class (output {int(chosen[0])}); {advice}"]


def at_chance(trajectory: Trajectory) -> tuple[float, float, float]:
    """(accuracy of the final readout, the accuracy of predictions drawn independently of the labels, the limit up to
    which an accuracy is not told from that by :data:`SIGMAS` standard deviations)."""
    labels, chosen, count = trajectory.labels, trajectory.predictions, len(trajectory)
    size = max(int(labels.max(initial=0)), int(chosen.max(initial=0))) + 1
    shares = [np.bincount(values, minlength=size) / count for values in (labels, chosen)]
    chance = float(shares[0] @ shares[1])
    limit = chance + SIGMAS * math.sqrt(chance * (1 - chance) / count)
    return float((labels == chosen).mean()), chance, limit


def _texts(value: object) -> list[str]:
    return [str(text) for text in value] if isinstance(value, (list, tuple)) else []
