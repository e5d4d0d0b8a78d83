"""A run that was made before the code moved into its rooms is verified by the code of today."""

from __future__ import annotations

from pathlib import Path

from stabilitykit.review.verify import verify

FORMER = Path(__file__).parents[1] / "fixtures" / "run-before-the-move"


def test_numbers_of_a_former_run_stand():
    verdicts = verify(FORMER)
    # T_g.best is measured no more: at most it is not looked at.
    assert {v.status for v in verdicts if v.measurement != "T_g.best"} == {"stands"}
    assert {v.status for v in verdicts if v.measurement == "T_g.best"} <= {"stands", "not recomputed"}
    assert len({v.property for v in verdicts}) == 6
