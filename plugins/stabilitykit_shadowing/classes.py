"""Classes of orbits and their tracers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stabilitykit import Kind, Measurement
from stabilitykit.evaluation.context import Context
from stabilitykit_shadowing.measure import Shadowed


def one_class(context: Context, orbit: Mapping[str, Any]) -> bool:
    """Is the tracer of a witness orbit of the class of the image that the orbit starts from?"""
    first, second = context.labels[context.rows_of([orbit["start"], orbit["tracer"]])]
    return bool(first == second)


def of_another_class(context: Context, data: Shadowed, cautions: str) -> Measurement:
    """Share of the orbits whose best tracer among all images is of another class than the image they start from."""
    labels, start, tracer = context.labels, data.orbits.start, data.tracer
    other = np.flatnonzero(labels[start] != labels[tracer])
    witness: dict[str, Any] = {}
    if len(other):
        best = int(other[data.eps[other].argmin()])
        witness = context.describe_images(context.indices[[start[best], tracer[best]]]) | {"eps": float(data.eps[best])}
    return Measurement(
        "tracers.of_another_class",
        len(other) / len(start),
        Kind.ESTIMATE if context.trajectory.rounded else Kind.EXACT,
        len(context.trajectory),
        "share",
        witness,
        "Definition 2",
        note=f"{len(other)} of {len(start)} pseudo-orbits are traced best, among all images, by one of another class "
        "than their first; the witness is the best-traced of them and its tracer" + cautions,
    )
