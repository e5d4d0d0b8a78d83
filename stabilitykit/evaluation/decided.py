"""What the network of a subject decided about every image."""

from __future__ import annotations

from stabilitykit.base.decisions import Decisions
from stabilitykit.dynamics.decisions import decisions_along_depth, prediction_depth, sureness
from stabilitykit.evaluation.subject import Subject


def decided(subject: Subject) -> Decisions | None:
    """The decisions of ``subject``; None unless a property has asked for its trajectory."""
    trajectory, model = subject.known_trajectory, subject.model
    if trajectory is None:
        return None
    chosen = decisions_along_depth(trajectory)
    confidence, margin = sureness(trajectory.logits[-1])
    classes = [str(name) for name in subject.dataset.class_names]
    comparable = trajectory.num_classes == len(classes)
    known = model.class_names if subject.readout.kind != "probe" else None
    outputs = (
        classes
        if comparable
        else [str(name) for name in known]
        if known is not None and len(known) == trajectory.num_classes
        else [f"output {number}" for number in range(trajectory.num_classes)]
    )
    names = [str(name) for name in model.block_names]
    return Decisions(
        subject.model_choice.label,
        subject.dataset_choice.label,
        classes,
        outputs,
        comparable,
        names if len(names) == trajectory.depth else [f"block {t}" for t in range(trajectory.depth)],
        "readout" if model.replayed else "logit",
        {
            "index": trajectory.indices.tolist(),
            "label": trajectory.labels.tolist(),
            "prediction": chosen[-1].tolist(),
            # Recorded readouts may be anything: their softmax would be no probability.
            "confidence": [None] * len(trajectory) if model.replayed else confidence.tolist(),
            "margin": margin.tolist(),
            "prediction_depth": prediction_depth(chosen, trajectory.seeing).tolist(),
        },
    )
