"""A model's certificate: are its blocks and readout, chained, the model itself?"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from stabilitykit.base.errors import catching
from stabilitykit.base.results import to_plain
from stabilitykit.evaluation.blame import describe_failure
from stabilitykit.evaluation.subject import Subject


def certify(subject: Subject) -> dict[str, Any]:
    """What the model says of itself on the first batch; ``error`` where it fails to."""
    from stabilitykit.dynamics.trajectory import batches

    batch_size = subject.settings.extraction.batch_size
    with catching() as caught:
        _, inputs = next(
            batches(subject.model, subject.dataset, subject.indices[:batch_size], batch_size, subject.device)
        )
        return to_plain(dict(subject.model.certify(inputs)))
    assert caught.error is not None
    return {"error": describe_failure(subject.model_choice, caught.error)["message"]}


def warn_of(certificate: Mapping[str, Any], owner: str) -> None:
    """Say so when the blocks are not the model: numbers about them are then numbers about something else."""
    if "error" in certificate:
        text = f"could not be made: {certificate['error']}"
    elif certificate.get("bit_exact", True):
        return
    else:
        text = (
            f"chained blocks and readout differ from the model's own forward pass by up to "
            f"{certificate.get('max_abs_difference')}"
        )
    print(f"warning: certificate of {owner}: {text}", file=sys.stderr)
