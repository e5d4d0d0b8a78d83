"""Headline g-shadowing constants of a family of pseudo-orbits (Definition 2; the paper's section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit_shadowing.profile import Profile


@dataclass(frozen=True)
class Constant:
    """One constant.

    Attributes:
        value: delta / eps; +infinity where nothing escapes; None where it is undefined (``note`` says why).
        eps, delta: what was divided; None where undefined.
        eps_orbit, delta_orbit: positions of the witness orbits in the family (-1: none); they may differ.
        note: one sentence, or empty.
    """

    value: float | None
    eps: float | None
    delta: float | None
    eps_orbit: int
    delta_orbit: int
    note: str = ""


EXACT_ONLY = "every orbit is traced exactly (eps = 0), which gives no ratio"


def sh_profile(profile: Profile, eps: np.ndarray) -> Constant:
    """s(eps)/eps at the smallest positive eps attained by any orbit of the family.

    Orbits traced exactly (eps = 0: duplicates) give no ratio and are passed over; the note counts them.
    """
    orbit = _smallest_positive(eps)
    if orbit < 0:
        return Constant(None, None, None, -1, -1, EXACT_ONLY)
    at = float(eps[orbit])
    piece = profile.piece(at)
    delta, witness = float(profile.s[piece]), int(profile.orbit[piece])
    note = _count_exact(eps)
    if not np.isfinite(delta):
        note = "no orbit of the family has a larger eps, so every one is traced within this eps; " + note
    return Constant(delta / at, at, delta, orbit, witness, note.rstrip("; "))


def sh_paper(delta: np.ndarray, eps: np.ndarray) -> Constant:
    """min delta(p) / min eps(p), each over all orbits: the two may come from different orbits (Table 2)."""
    smallest_eps, smallest_delta = int(np.argmin(eps)), int(np.argmin(delta))
    e, d = float(eps[smallest_eps]), float(delta[smallest_delta])
    if e == 0:
        return Constant(None, e, d, smallest_eps, smallest_delta, "the smallest eps is 0: the ratio is undefined")
    return Constant(d / e, e, d, smallest_eps, smallest_delta)


def sh_best(delta: np.ndarray, eps: np.ndarray) -> Constant:
    """The largest delta(p)/eps(p) of one orbit, among those with eps(p) > 0."""
    positive = np.flatnonzero(eps > 0)
    if not len(positive):
        return Constant(None, None, None, -1, -1, EXACT_ONLY)
    orbit = int(positive[np.argmax(delta[positive] / eps[positive])])
    e, d = float(eps[orbit]), float(delta[orbit])
    return Constant(d / e, e, d, orbit, orbit, _count_exact(eps).rstrip("; "))


def _smallest_positive(eps: np.ndarray) -> int:
    positive = np.flatnonzero(eps > 0)
    return int(positive[np.argmin(eps[positive])]) if len(positive) else -1


def _count_exact(eps: np.ndarray) -> str:
    exact = int((eps == 0).sum())
    return f"{exact} of {len(eps)} orbits are traced exactly (eps = 0) and give no ratio; " if exact else ""
