"""Was a run made by the code and on the machine of today? That decides what may differ, and by how much."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stabilitykit.base.results import SCHEMA_VERSION
from stabilitykit.evaluation.job import COMPUTES
from stabilitykit.evaluation.rerun import SAME_MACHINE
from stabilitykit.review.leaves import ABSENT, Difference, differences
from stabilitykit.runs.provenance import LOGIT_BOUND

Tolerance = tuple[float, float]
# (relative, absolute). A witness is recomputed in another order of summation than the search's.
WITNESS: Tolerance = SAME_MACHINE
# Readouts over 1 GiB are searched as float32 copies; a witness recomputed in float64 is off by their rounding.
ROUNDED: Tolerance = (1e-4, 1e-6)
# Another machine moves logits by LOGIT_BOUND of the largest one. Distances between near images, quotients of those
# and quantised blocks magnify that: 9e-5 of a number was seen, ten times as much is let pass.
DRIFT: Tolerance = (100 * LOGIT_BOUND, 0.1 * LOGIT_BOUND)

# Parts of the provenance that decide the bits of a number, and those that say by which code it was made.
MACHINE, CODE = ("python", "packages", "device", "determinism"), ("git", "packages.stabilitykit", "plugins")
# Words for people: they repeat numbers that stand elsewhere, too, and may be worded better one day.
WORDS = re.compile(r"(^|\.)(note|title|reference|notes\[\d+\])$")
# Leaves of a record that say where and by which version it was made, not what.
MADE_BY = re.compile(r"(^|\.)plugin\.(distribution|version)$|^record\.(device|threads)$|\.recorded_on$")
TIME = re.compile(r"^seconds$|^result\.tables\..*\.seconds$")


@dataclass(frozen=True)
class Circumstances:
    """Under which circumstances a run is compared with what is measured today.

    Attributes:
        other_code: what of the code differs, in words; empty when the run was written by the very code of today.
        other_machine: what of the machine differs, in words; empty on the machine the run was made on.
        relative: relative tolerance asked for; None: none on the same machine, else the drift between machines.
    """

    other_code: tuple[str, ...] = ()
    other_machine: tuple[str, ...] = ()
    relative: float | None = None

    @classmethod
    def of(
        cls, schema: int, recorded: Mapping[str, Any], today: Mapping[str, Any], relative: float | None = None
    ) -> Circumstances:
        """From a run's schema and provenance, and the provenance that a run of today would have."""
        code, machine = [], []
        if schema != SCHEMA_VERSION:
            code.append(f"schema {schema} in the run, {SCHEMA_VERSION} here")
        for difference in differences(recorded, today):
            path = difference.path
            text = f"{path} {_short(difference.reported)} in the run, {_short(difference.recomputed)} here"
            if path.startswith(CODE):
                code.append(text)
            elif path.startswith(MACHINE):
                machine.append(text)
        return cls(tuple(code), tuple(machine), relative)

    @property
    def tolerance(self) -> Tolerance:
        """(relative, absolute) for numbers that the same computation gives again; (0, 0): to the last bit."""
        if self.relative is not None:
            return self.relative, WITNESS[1]
        return DRIFT if self.other_machine else (0.0, 0.0)

    def witness_tolerance(self, rounded: bool) -> Tolerance:
        """(relative, absolute) for numbers recomputed from a witness; ``rounded``: of float32 copies."""
        if self.relative is not None:
            return self.relative, WITNESS[1]
        return max(self.tolerance, ROUNDED if rounded else WITNESS)

    def judge(self, difference: Difference) -> str | None:
        """What to make of a leaf that differs: None, the run does not stand; else why it does not count ("": it is
        equal within the tolerance)."""
        path = difference.path
        if TIME.search(path):
            return "a time"
        if MADE_BY.search(path):
            return "where or by which version it was made"
        if difference.within(*self.tolerance):
            return ""
        if path == f"record.{COMPUTES}" and self.other_machine:
            return "a digest of bits, which another machine moves"
        if not self.other_code:
            return None
        if path.endswith(".recheck"):
            return "which measurements are rechecked depends on the version"
        if difference.reported is ABSENT:
            return ""
        if difference.recomputed is ABSENT:
            return "not measured by this version"
        if WORDS.search(path) and isinstance(difference.recomputed, str):
            return "worded otherwise by this version"
        return None


def close(a: float, b: float, tolerance: Tolerance) -> bool:
    """Equal, or within (relative, absolute)."""
    return a == b or math.isclose(a, b, rel_tol=tolerance[0], abs_tol=tolerance[1])


def _short(leaf: Any) -> str:
    text = str(leaf)
    return text if len(text) <= 60 else text[:57] + "..."
