"""A model's certificate: are its blocks and readout, chained, the model itself, and a function of one image?

Nothing is measured on a model that fails: :func:`require` fails its cells with the reason, unless the user goes on with
``--uncertified``; then :func:`marked` says so in every number.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from stabilitykit.base.errors import CellProblem, StabilityKitError, catching
from stabilitykit.base.results import PropertyResult, to_plain
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.space import kind_of_outputs
from stabilitykit.dynamics.trajectory import batches, depth_logits
from stabilitykit.evaluation.blame import describe_failure
from stabilitykit.evaluation.settings import Settings
from stabilitykit.evaluation.subject import Subject

SAMPLE = 8
"""Images that are run twice, and alone."""
DEPTHS = 5
"""Depths at most whose readouts are compared between batches."""
ROUNDING = 1e-5
"""Largest difference between readouts, relative to the largest of them, that rounding in float32 explains."""
UNEXPLAINED = 1e-3
"""The same where float64 cannot be asked."""
DOUBLE_ROUNDING = 1e-9
"""The same in float64: tells rounding, which shrinks, from a real dependence, which stays."""


def certify(subject: Subject) -> dict[str, Any]:
    """What the model says of itself and what the core sees, on the first batch and on one of other images.

    Returns plain data: what ``Model.certify`` gave; ``reasons``, why numbers of this model are not to be believed
    (``[]`` is what one wants); under ``core`` the largest differences relative to the largest readout: ``chain``
    (chained and plain pass), ``repeat`` (two passes), ``batch`` (images alone and together), and ``output_kind``; what
    ``Model.certify_images`` gave, with ``remarks`` for the reader.
    ``error`` where a check could not be run at all.
    """
    report: dict[str, Any] = {}
    reasons: list[str] = []
    with catching() as caught:
        first, other = _two_batches(subject)
    if caught.error is not None:  # no image to look at: every cell meets this error itself, and says whose it is
        return {"error": describe_failure(subject.dataset_choice, caught.error)["message"], "reasons": []}
    with catching() as caught:
        if not _finite(subject.model, first[:SAMPLE]):  # extraction fails, and names image and depth
            return {"error": "readouts are NaN or infinite", "reasons": []}
        report = to_plain(dict(subject.model.certify(first)))
        with torch.inference_mode():
            checked = _checks(subject, first, other)
        reasons = _own_reasons(report, checked) + checked.pop("reasons")
        report |= {"core": checked, **to_plain(dict(subject.model.certify_images(_all_batches(subject))))}
        if checked["output_kind"] == "probabilities" and _softmax_follows(subject):
            reasons.append(
                "its readout gives probabilities (rows sum to 1), and the softmax would be taken twice; measure them "
                "as they are with --space logits, or let the model return logits"
            )
    if caught.error is not None:
        message = describe_failure(subject.model_choice, caught.error)["message"]
        report["error"] = message
        made = isinstance(caught.error, StabilityKitError)
        reasons.append(message if made else f"the certificate could not be made: {message}")
    return {**report, "reasons": [_with_reads(reason, report) for reason in reasons[:1]] + reasons[1:]}


def require(certificate: Mapping[str, Any], settings: Settings, owner: str) -> None:
    """CellProblem with the reasons unless the certificate has none, or the user goes on uncertified."""
    reasons = certificate.get("reasons") or []
    if reasons and not settings.uncertified:
        raise CellProblem(
            f"model {owner}: {'; '.join(map(str, reasons))} (--uncertified measures it and marks every number)"
        )


def marked(result: PropertyResult, certificate: Mapping[str, Any]) -> PropertyResult:
    """``result``, every measurement and the result itself marked where the certificate has reasons against it."""
    reasons = certificate.get("reasons") or []
    if reasons:
        text = f"UNCERTIFIED: {'; '.join(map(str, reasons))}"
        result.notes.insert(0, text)
        result.measurements[:] = [replace(m, note=f"{text}. {m.note}" if m.note else text) for m in result.measurements]
    return result


def warn_of(certificate: Mapping[str, Any], cautions: Sequence[str], owner: str) -> None:
    """One line on stderr per caution, and one where blocks and model agree up to rounding only."""
    texts = list(cautions)
    if not certificate.get("reasons") and not certificate.get("bit_exact", True):
        texts.append(
            "certificate: chained blocks and readout differ from the model's own forward pass by up to "
            f"{certificate.get('max_abs_difference')}, which is rounding"
        )
    for text in texts:
        print(f"warning: {owner}: {text}", file=sys.stderr)


def _two_batches(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    """Preprocessed inputs of the first images, and of others: the last ones, or the second half in a small set."""
    size, indices = subject.settings.extraction.batch_size, subject.indices
    count = len(indices)
    rows = [np.arange(min(size, count)), np.arange(max(count - size, min(size, count // 2)), count)]
    found = []
    for part in rows:
        chosen = indices[part] if len(part) else indices[:1]
        found.append(next(batches(subject.model, subject.dataset, chosen, len(chosen), subject.device))[1])
    return found[0], found[1]


def _all_batches(subject: Subject) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """(dataset indices, preprocessed inputs) of every evaluated image; nothing is read before it is asked for."""
    size, indices = subject.settings.extraction.batch_size, subject.indices
    for rows, inputs in batches(subject.model, subject.dataset, indices, size, subject.device):
        yield [int(i) for i in indices[rows]], inputs


def _checks(subject: Subject, first: torch.Tensor, other: torch.Tensor) -> dict[str, Any]:
    model = subject.model
    depths = sorted({round(d) for d in np.linspace(0, model.num_blocks, DEPTHS)})
    reasons = []
    chain = 0.0
    kind = "logits"
    for number, inputs in enumerate((first, other)):
        chained, plain = _readouts(model, inputs, [model.num_blocks])[0], model.logits(inputs)
        if number == 0:
            kind = kind_of_outputs(plain)
        chain = max(chain, _relative(chained, plain))
    few = first[:SAMPLE]
    one = [*_readouts(model, few, depths), model.logits(few)]
    two = [*_readouts(model, few, depths), model.logits(few)]
    repeat = max(_relative(a, b) for a, b in zip(one, two))
    drift = 0.0
    if repeat > ROUNDING:
        reasons.append(
            "it computes something else each time (two passes over the same images in eval mode differ by "
            f"{repeat:.2g} of the largest readout): dropout or noise that is always on, or a state kept between calls"
        )
    else:
        if chain > ROUNDING:
            reasons.append(
                f"the chained blocks are not the model (largest difference {chain:.2g} of the largest readout): they "
                "read what is not in the state; choose another run with --run"
            )
        mixed = _with_extremes(subject, few[:3])
        drift = _batch_drift(model, mixed, depths)
        if drift > ROUNDING and not _is_rounding(model, mixed, depths, drift):
            reasons.append(
                f"its readouts move with the batch (an image alone and among others: {drift:.2g} of the largest "
                "readout, beyond rounding): it takes statistics over the batch or decides by the whole batch"
            )
    return {
        "reasons": reasons,
        "chain": chain,
        "repeat": repeat,
        "batch": drift,
        "output_kind": kind,
        "images": [int(first.shape[0]), int(other.shape[0])],
        "tolerance": ROUNDING,
    }


def _own_reasons(report: Mapping[str, Any], checked: Mapping[str, Any]) -> list[str]:
    """What the model's own certificate says against it and the core's checks have not said."""
    if checked["reasons"]:
        return []
    again = report.get("randomised")
    if isinstance(again, Mapping) and not again.get("bit_exact", True):
        return ["with random weights in place of constant ones the chained blocks are not the model"]
    difference = report.get("max_abs_difference")
    if not report.get("bit_exact", True) and not (isinstance(difference, float) and difference <= UNEXPLAINED):
        return [
            f"the chained blocks are not the model (largest difference {difference}); choose another run with --run"
        ]
    if report.get("deterministic") is False and not checked["repeat"] <= ROUNDING:
        return ["it computes something else each time"]
    return []


def _with_reads(reason: str, report: Mapping[str, Any]) -> str:
    """``reason``, with where Python takes values out of the data if the model's certificate says so."""
    reads = report.get("reads_values")
    if not reads or "each time" in reason:
        return reason
    return (
        f"its course depends on the data (Python takes values out of tensors in {', '.join(map(str, reads))}): {reason}"
    )


def _softmax_follows(subject: Subject) -> bool:
    """Whether readouts go through the softmax although nobody stated that they are logits."""
    output = subject.model.describe().get("output")
    stated = isinstance(output, Mapping) and bool(output.get("stated"))
    return (
        subject.settings.extraction.space == "probabilities"
        and subject.settings.extraction.networks_classes
        and not stated
    )


def _finite(model: Model, inputs: torch.Tensor) -> bool:
    """Whether all readouts of a batch are finite; CellProblem for states and readouts of impossible sizes."""
    with torch.inference_mode():
        return all(bool(torch.isfinite(logits).all()) for logits in depth_logits(model, HeadReadout(model), inputs))


def _readouts(model: Model, inputs: torch.Tensor, depths: Sequence[int]) -> list[torch.Tensor]:
    """g(h_t) (B, K) of one batch for every t in ``depths``."""
    state, found = model.initial_state(inputs), []
    for t in range(model.num_blocks + 1):
        if t:
            state = model.block(t - 1, state)
        if t in depths:
            found.append(model.readout_at(t, state))
    return found


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over largest value; infinite for other shapes; values that are NaN in both are equal."""
    if a.shape != b.shape:
        return float("inf")
    gap = (a.double() - b.double()).abs()
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), torch.zeros_like(gap), gap)
    if bool(gap.isnan().any()):
        return float("inf")
    largest = float(gap.max()) if gap.numel() else 0.0
    finite = b.double()[torch.isfinite(b)].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    return largest / scale if largest and scale else largest


def _with_extremes(subject: Subject, inputs: torch.Tensor) -> torch.Tensor:
    """``inputs`` behind a black, a dark and a white picture: what depends on the batch shows in such company."""
    try:
        image = np.asarray(subject.dataset.images([int(i) for i in subject.indices[:2]])[0])
        extremes = subject.model.preprocess(
            [np.zeros_like(image), image * image.dtype.type(0.05), np.ones_like(image)]
        ).to(inputs)
        if extremes.shape[1:] == inputs.shape[1:] and bool(torch.isfinite(extremes).all()):
            return torch.cat([extremes, inputs])
    except Exception:  # a preprocessing that takes no such picture: the images alone have to do
        pass
    return inputs


def _batch_drift(model: Model, inputs: torch.Tensor, depths: Sequence[int]) -> float:
    """Largest relative change of a readout when images are run alone instead of together.

    Rows that are not finite together or alone (a black picture in a network that divides) do not count. In pairs where
    the network does not run on one image.
    """
    together = torch.stack([*_readouts(model, inputs, depths), model.logits(inputs)])
    for size in (1, 2):
        try:
            parts = [inputs[n : n + size] for n in range(0, len(inputs), size)]
            alone = torch.cat([torch.stack([*_readouts(model, p, depths), model.logits(p)]) for p in parts], dim=1)
        except Exception as error:
            failure = error
            continue
        usable = torch.isfinite(together).all(dim=2) & torch.isfinite(alone).all(dim=2)
        keep = usable.all(dim=0)
        return max((_relative(a[keep], b[keep]) for a, b in zip(alone, together)), default=0.0)
    raise failure


def _is_rounding(model: Model, inputs: torch.Tensor, depths: Sequence[int], drift: float) -> bool:
    """Whether the drift all but vanishes in float64, on a copy of the model."""
    try:
        twin = copy.deepcopy(model)
        twin.module.double()
        return _batch_drift(twin, inputs.double(), depths) <= DOUBLE_ROUNDING
    except Exception:  # it cannot be copied, or does not run in float64
        return drift <= UNEXPLAINED
