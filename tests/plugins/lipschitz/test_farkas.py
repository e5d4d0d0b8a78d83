"""Multipliers that are no proof of emptiness."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from stabilitykit_lipschitz.farkas import impossible, impossible_in_box

ONE, BOX = np.ones((1, 1)), (-np.ones(1), np.ones(1))


def test_negative_multipliers_turn_an_inequality_around() -> None:
    assert not impossible_in_box(ONE, np.array([5.0]), np.array([-2.0]), *BOX)
    assert impossible_in_box(ONE, np.array([-5.0]), np.array([2.0]), *BOX)
    # x <= 1 and x <= 2: only multipliers of both signs cancel the rows.
    rows = np.ones((2, 1))
    for b in ([1.0, 2.0], [2.0, 1.0], [-1.0, -2.0]):
        assert not impossible(rows, np.array(b), np.ones(2))


def test_all_corners_of_the_box_count() -> None:
    """-x <= -0.5 holds at one end of the box only, whichever end that is."""
    for sign in (1.0, -1.0):
        assert not impossible_in_box(sign * ONE, np.array([-0.5]), np.ones(1), *BOX)
        assert impossible_in_box(sign * ONE, np.array([-1.5]), np.ones(1), *BOX)


@given(st.integers(0, 10**6))
def test_a_system_that_just_has_a_solution_is_possible(seed: int) -> None:
    """Rows of weight 1, -1 and so on whose sum is rounding alone: b is met with equality at one corner."""
    rng = np.random.default_rng(seed)
    low, high = -rng.random(5), rng.random(5)
    a = rng.standard_normal((3, 5))
    y = rng.random(3)
    corner = np.where(y @ a > 0, low, high)
    assert not impossible_in_box(a, a @ corner, y, low, high)
