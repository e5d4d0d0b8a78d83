"""The rule where no condition is given: is one value another one than the baseline's?"""

from __future__ import annotations

import math

from stabilitykit.base.results import Measurement

# Another machine or batch size moves numbers by about 1e-4 of themselves; training again moves them by far more.
TOLERANCE = 0.05


def changed(now: Measurement, before: Measurement, tolerance: float = TOLERANCE) -> tuple[bool | None, str]:
    """(whether ``now`` is another value than ``before``, in words how far it moved); None: nobody can tell.

    Arguments:
        tolerance: a share of the baseline's value; a move by more, up or down, is a change.
    """
    if now.value is None or before.value is None:
        if now.value is before.value:
            return False, "undefined, as in the baseline"
        return None, f"undefined in the {'run' if now.value is None else 'baseline'}"
    if now.value == before.value:
        return False, "the baseline's value"
    moved = math.inf if before.value == 0 else (now.value - before.value) / abs(before.value)
    if not math.isfinite(moved):
        return True, f"{now.value:.4g}, in the baseline {before.value:.4g}"
    return abs(moved) > tolerance, f"moved by {moved:+.2%}, {tolerance:.4g} allows {tolerance:.2%} either way"
