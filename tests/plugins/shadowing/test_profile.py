import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_shadowing.constants import sh_best, sh_paper, sh_profile
from stabilitykit_shadowing.measure import shadow
from stabilitykit_shadowing.orbits import nearest_orbits
from stabilitykit_shadowing.profile import shadowing_profile

from tests.plugins.shadowing.reference import all_distances, every_pseudo_orbit, follow, s_of
from tests.plugins.shadowing.strategies import trajectories

numbers = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9])), max_size=12
)


@given(numbers)
def test_profile_is_the_definition_everywhere(pairs):
    delta, eps = (np.array(column, dtype=float) for column in (zip(*pairs) if pairs else ((), ())))
    profile = shadowing_profile(delta, eps)
    for at in [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 5.0]:
        assert profile(at) == s_of(delta, eps, at)
        orbit = profile.orbit[profile.piece(at)]
        if orbit >= 0:
            assert delta[orbit] == profile(at) and eps[orbit] > at
    assert (np.diff(profile.s) > 0).all() and (np.diff(profile.left) > 0).all()
    assert len(profile.left) == len(profile.s) == len(profile.orbit)


@given(numbers, numbers)
def test_more_orbits_never_raise_s_and_more_tracers_never_lower_it(pairs, more):
    first, both = np.array([*pairs, (1.0, 1.0)]), np.array([*pairs, (1.0, 1.0), *more])
    fewer, all_of_them = shadowing_profile(*first.T), shadowing_profile(*both.T)
    closer = shadowing_profile(first[:, 0], first[:, 1] / 2)
    for at in np.linspace(0, 1.2, 25):
        assert all_of_them(at) <= fewer(at) <= closer(at)


def test_profile_refuses_what_is_no_number():
    with pytest.raises(ValueError, match="finite"):
        shadowing_profile(np.array([1.0]), np.array([np.nan]))
    with pytest.raises(ValueError, match="one shape"):
        shadowing_profile(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match=">= 0"):
        shadowing_profile(np.ones(1), np.ones(1))(-1.0)


@settings(deadline=None, max_examples=60)
@given(trajectories(), st.booleans())
def test_tracing_agrees_with_exhaustive_search(values, start_tracer):
    orbits = nearest_orbits(values)
    shadowed = shadow(values, orbits, start_tracer=start_tracer)
    apart = all_distances(values)
    expected = [follow(apart, tuple(path), start_tracer) for path in orbits.path.tolist()]
    expected = np.array([pair for pair in expected if not np.isnan(pair[1])]).reshape(-1, 2)
    np.testing.assert_allclose(np.column_stack([shadowed.delta, shadowed.eps]), expected, rtol=1e-12, atol=1e-300)


@settings(deadline=None, max_examples=40)
@given(trajectories(), st.sampled_from([0.5, 4.0, 2.0**-20]))
def test_scaling_logits_scales_eps_and_delta_and_keeps_the_ratios(values, factor):
    # Powers of two scale without rounding.
    one, other = (shadow(v, nearest_orbits(v)) for v in (values, values * factor))
    np.testing.assert_array_equal(other.eps, one.eps * factor)
    np.testing.assert_array_equal(other.delta, one.delta * factor)
    for name, constant in one.constants().items():
        assert other.constants()[name].value == constant.value


@settings(deadline=None, max_examples=40)
@given(trajectories(), st.integers(0, 2**16))
def test_permuting_images_changes_no_number(values, seed):
    order = np.random.default_rng(seed).permutation(values.shape[1])
    one, other = shadow(values, nearest_orbits(values)), shadow(values[:, order], nearest_orbits(values[:, order]))
    if len(np.unique(all_distances(values))) < values.shape[0] * values.shape[1] * (values.shape[1] - 1) // 2:
        return  # ties are broken by index, so another numbering may choose other orbits
    np.testing.assert_array_equal(other.eps, one.eps[order])
    np.testing.assert_array_equal(other.delta, one.delta[order])
    for name, constant in one.constants().items():
        assert other.constants()[name].value == constant.value


@settings(deadline=None, max_examples=40)
@given(trajectories(min_images=3))
def test_more_tracers_never_raise_eps(values):
    orbits = nearest_orbits(values[:, :-1])
    few, more = shadow(values[:, :-1], orbits), shadow(values, orbits)
    assert (more.eps <= few.eps).all()
    strict = shadow(values, orbits, start_tracer=False)
    assert (more.eps <= strict.eps).all()


@settings(deadline=None, max_examples=40)
@given(trajectories(max_images=5))
def test_a_family_never_lies_below_all_pseudo_orbits(values):
    family = shadow(values, nearest_orbits(values)).profile
    delta, eps = every_pseudo_orbit(values)
    for at in np.concatenate([[0.0], eps, eps * 0.999]):
        assert family(at) >= s_of(delta, eps, at) * (1 - 1e-12)


def test_headline_constants_by_hand():
    delta, eps = np.array([0.4, 0.2, 0.9]), np.array([0.1, 0.5, 0.3])
    profile = shadowing_profile(delta, eps)
    one = sh_profile(profile, eps)
    assert (one.eps, one.delta, one.eps_orbit, one.delta_orbit) == (0.1, 0.2, 0, 1)
    assert one.value == 2.0
    two = sh_paper(delta, eps)
    assert (two.eps, two.delta, two.eps_orbit, two.delta_orbit, two.value) == (0.1, 0.2, 0, 1, 2.0)
    three = sh_best(delta, eps)
    assert (three.value, three.eps_orbit) == (4.0, 0)


def test_a_constant_readout_gives_no_ratio_but_a_reason():
    values = np.zeros((3, 5, 2))
    constants = shadow(values, nearest_orbits(values)).constants()
    assert all(c.value is None and c.note for c in constants.values())


def test_duplicates_are_passed_over_and_counted():
    values = np.random.default_rng(3).normal(size=(3, 6, 2))
    values[:, 1] = values[:, 0]
    constants = shadow(values, nearest_orbits(values)).constants()
    # From each of the twins the nearest image is the other one: both orbits are traced exactly.
    assert constants["Sh_profile"].eps > 0 and "2 of 6 orbits are traced exactly" in constants["Sh_profile"].note
    assert constants["Sh_paper"].value is None and constants["Sh_paper"].delta == 0


def test_two_images_one_block_two_classes():
    values = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.5, 0.5]]])
    shadowed = shadow(values, nearest_orbits(values))
    np.testing.assert_allclose(shadowed.delta, 0.5**0.5)
    np.testing.assert_allclose(shadowed.eps, 0.5**0.5)
    assert shadowed.constants()["Sh_best"].value == 1.0
    # Both orbits have the one eps, so none escapes it: nothing limits delta.
    assert shadowed.constants()["Sh_profile"].value == np.inf
