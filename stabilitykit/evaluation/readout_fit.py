"""What every result says of the trained readouts that it was measured through."""

from __future__ import annotations

from typing import Any

from stabilitykit.base.results import READOUT_FIT, PropertyResult, Table
from stabilitykit.dynamics.readout import Fit
from stabilitykit.evaluation.subject import Subject


def stated(result: PropertyResult, subject: Subject) -> PropertyResult:
    """``result`` with a table and a note of how well the readouts that it was measured through do, depth by depth."""
    fit = subject.readout.fit
    if fit is None:
        return result
    lens = subject.readout.kind == "lens"
    held, count = _held_out(subject, fit)
    columns = ["depth", "block", "accuracy held out", "N held out", "accuracy in sample", "N in sample"]
    columns += ["KL to the network (nats)", "at the start", "remark"] if lens else ["cross-entropy (nats)"]
    names = ["(before the blocks)", *subject.model.block_names]
    rows: list[list[Any]] = []
    for t, (depth, name) in enumerate(zip(fit.depths, names, strict=True)):
        own: list[Any] = [depth.loss, depth.before, depth.remark] if lens else [depth.loss]
        rows.append([t, str(name), held[t], count if held[t] is not None else 0, depth.accuracy, fit.n, *own])
    what = "lens" if lens else "probes"
    result.tables[READOUT_FIT] = Table(columns, rows, f"Accuracy of the {what} at every depth, exact on these images")
    result.notes.append(_note(subject, fit, what, count))
    return result


def _held_out(subject: Subject, fit: Fit) -> tuple[list[float | None], int]:
    """(accuracy of every depth on images not trained on, how many): the evaluated ones where others were trained on."""
    if subject.in_sample:
        return [depth.held_out for depth in fit.depths], fit.n_held_out
    trajectory = subject.trajectory()
    right = [logits.argmax(axis=-1) == trajectory.labels for logits in trajectory.logits]
    return [float(share.mean()) for share in right], len(trajectory)


def _note(subject: Subject, fit: Fit, what: str, count: int) -> str:
    choice = subject.probe_choice
    if not subject.in_sample:
        assert choice is not None
        text = f"{what} trained on {fit.n} images of {choice.label}; held out: the {count} evaluated images"
    elif count:
        text = (
            f"{what} trained on the evaluated images ({fit.n}); held out: {count} of them, judged by others trained in "
            "the same way on the rest"
        )
    else:
        text = f"{what} trained on the evaluated images ({fit.n}): accuracies are in-sample; see --probe-dataset"
    kept = [str(t) for t, depth in enumerate(fit.depths[:-1]) if depth.remark]
    if kept:
        text += f"; at depths {', '.join(kept)} training found nothing better than its start"
    return text
