"""Results of other properties, read by registry name."""

from __future__ import annotations

from stabilitykit import CellProblem, Kind, Measurement, PropertyResult
from stabilitykit.evaluation.context import Context


def result_of(context: Context, name: str, owner: str) -> PropertyResult:
    """The result of property ``name``; CellProblem saying how to get it when it is missing."""
    result = context.results.get(name)
    if result is None:
        raise CellProblem(
            f"{owner} needs the result of property {name}, which is missing or failed; "
            f"run `stabilitykit evaluate --property {name}` to see why"
        )
    return result


def find(result: PropertyResult, name: str) -> Measurement | None:
    """The measurement of that name, or None."""
    return next((m for m in result.measurements if m.name == name), None)


def lipschitz_of(result: PropertyResult, space: str) -> Measurement | None:
    """Lip of g into ``space``: the measurement ``lipschitz`` (logits), ``lipschitz.probabilities`` (softmax of g).

    Without the latter, half of the former: softmax is 1/2-Lipschitz in l2, which keeps an upper bound an upper
    bound. A lower bound has no such consequence: then there is none.
    """
    logits = find(result, "lipschitz")
    if space == "logits":
        return logits
    own = find(result, "lipschitz.probabilities")
    if own is not None:
        return own
    if logits is None or logits.value is None or logits.kind not in (Kind.UPPER, Kind.EXACT):
        return None
    return Measurement(
        "lipschitz.probabilities",
        logits.value / 2,
        Kind.UPPER,
        logits.n,
        logits.unit,
        {key: logits.witness[key] for key in ("depth", "at") if key in logits.witness},
        reference=logits.reference,
        note="half of Lip(g): softmax is 1/2-Lipschitz in l2",
    )
