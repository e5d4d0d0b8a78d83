import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_shadowing import bracket as bracket_module
from stabilitykit_shadowing.bracket import bracket
from stabilitykit_shadowing.bracket_kernel import SLOTS, slot_of
from stabilitykit_shadowing.bracket_lower import lower_side
from stabilitykit_shadowing.measure import bracket_of, shadow
from stabilitykit_shadowing.orbits import nearest_orbits

from tests.plugins.shadowing.reference import all_distances, every_pseudo_orbit, s_of
from tests.plugins.shadowing.strategies import trajectories


def places(eps):
    return np.concatenate([[0.0], eps, eps * 0.999, eps * 1.001, [1e-3, 0.3, 3.0]])


@settings(deadline=None, max_examples=150)
@given(trajectories(max_images=5), st.booleans(), st.booleans())
def test_bracket_holds_against_all_pseudo_orbits(values, start_tracer, with_family):
    delta, eps = every_pseudo_orbit(values, start_tracer)
    if with_family:
        family = shadow(values, nearest_orbits(values), start_tracer=start_tracer)
        bounds = bracket_of(values, family, start_tracer=start_tracer)
    else:
        bounds = bracket(values, start_tracer=start_tracer)
    for at in places(eps):
        lower, upper = bounds.at(at)
        exact = s_of(delta, eps, at)
        assert lower <= exact <= upper * (1 + 1e-12)
        piece = bounds.upper.piece(at)
        if np.isfinite(upper):  # the witness is an orbit that escapes
            path = bounds.paths[bounds.upper.orbit[piece]]
            apart = all_distances(values)
            assert max(apart[t + 1, path[t], path[t + 1]] for t in range(len(path) - 1)) == pytest.approx(upper, 1e-9)


@settings(deadline=None, max_examples=60)
@given(trajectories(max_images=5))
def test_bracket_holds_with_few_candidates_and_without_the_pair_pass(values):
    delta, eps = every_pseudo_orbit(values)
    labels = np.arange(values.shape[1]) % 2
    whole = bracket_module.ALL_SWITCHES
    try:
        bracket_module.ALL_SWITCHES = 0
        bounds = bracket(values, labels=labels, pair_work=0)
    finally:
        bracket_module.ALL_SWITCHES = whole
    smallest = min(all_distances(values)[1:][:, ~np.eye(values.shape[1], dtype=bool)].ravel())
    assert bounds.lower(0.0) == bounds.lower(10.0) == pytest.approx(smallest, rel=1e-9)
    for at in places(eps):
        lower, upper = bounds.at(at)
        assert lower <= s_of(delta, eps, at) <= upper * (1 + 1e-12)


@settings(deadline=None, max_examples=40)
@given(trajectories(max_images=5))
def test_pair_pass_never_lies_below_the_smallest_jump_and_grows_with_eps(values):
    plain, full = lower_side(values, all_pairs=False), lower_side(values, threads=1)
    assert full.smallest == pytest.approx(plain.smallest, rel=1e-9)
    at = np.concatenate([[0.0], np.geomspace(1e-12, 1e3, 40)])
    bounds = np.array([full(eps) for eps in at])
    assert (bounds >= plain.smallest * (1 - 1e-9)).all()
    assert (bounds[1:] >= bounds[:-1]).all()


def test_one_block_is_bracketed_within_the_slots():
    # With T = 1 the start image fails by the switch itself: s(eps) > eps, and the single switches are all orbits.
    values = np.random.default_rng(5).normal(size=(2, 5, 3))
    delta, eps = every_pseudo_orbit(values)
    bounds = bracket(values)
    for at in (0.0, *(eps * 0.99)):
        exact = s_of(delta, eps, at)
        assert bounds.upper(at) <= exact * 1.06  # exact up to the resolution of the upper side
        assert bounds.lower(at) <= exact


def test_lower_side_uses_memory_of_a_few_numbers_and_agrees_across_threads():
    values = np.random.default_rng(0).normal(size=(4, 300, 5))
    one, four = lower_side(values, threads=1), lower_side(values, threads=4)
    np.testing.assert_array_equal(one.by_slot, four.by_slot)
    assert one.by_slot.shape == (SLOTS,)


@given(st.floats(0, 1e40), st.floats(0, 1e40))
def test_slots_are_ordered(a, b):
    low, high = sorted((a, b))
    assert slot_of(low) <= slot_of(high)
    if low > 1e-40 and high >= low * 1.1251:
        assert slot_of(low) < slot_of(high)


def test_a_constant_readout_is_bracketed_by_zero_and_infinity():
    bounds = bracket(np.zeros((3, 4, 2)))
    assert bounds.at(0.0)[0] == 0.0 and bounds.at(0.0)[1] == np.inf


def test_one_image_has_no_pseudo_orbit():
    with pytest.raises(ValueError, match="two images"):
        bracket(np.zeros((3, 1, 2)))


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(2, 5), st.booleans())
@settings(max_examples=25)
def test_bounds_of_switches_are_those_of_a_plain_loop(seed, depths, count, start_tracer):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(depths, count, 3))
    before, after = rng.integers(0, count, (2, 12))
    depth = rng.integers(0, depths - 1, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bracket_module, "_AT_ONCE", 2 * depths * 3)  # two pairs at a time
        jump, bound = bracket_module._switch_bounds(values, before, after, depth, start_tracer)
    for row, (i, j, k) in enumerate(zip(before, after, depth, strict=True)):
        apart = np.sqrt(np.square(values[:, i] - values[:, j]).sum(axis=-1))
        early, late = apart[: k + 1].max(), apart[k + 1 :].max()
        assert (jump[row], bound[row]) == (apart[k + 1], min(early, late) if start_tracer else early)
