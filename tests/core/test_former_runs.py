"""A run that was made before the code moved into its rooms is verified by the code of today."""

from __future__ import annotations

from pathlib import Path

from stabilitykit.review.verify import verify

FORMER = Path(__file__).parents[1] / "fixtures" / "run-before-the-move"


def test_numbers_of_a_former_run_stand():
    verdicts = verify(FORMER)
    assert {v.status for v in verdicts} == {"stands"}
    assert len({v.property for v in verdicts}) == 6
