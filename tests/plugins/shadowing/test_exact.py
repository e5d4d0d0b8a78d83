"""Exact s(eps) against full enumeration; compiled code against numpy; what happens when nodes run out."""

import numpy as np
import pytest
from stabilitykit_shadowing import exact_sets
from stabilitykit_shadowing.exact import ExactShadowing
from stabilitykit_shadowing.exact_sets import (
    Distances,
    escapable_sets,
    far_sets,
    is_full,
    largest_square,
    packed,
    unpacked,
)

from tests.plugins.shadowing.reference import all_distances, all_orbits, follow, s_of

KINDS = ("continuous", "grid", "duplicates", "like a network")


def sample(generator, images, blocks, readout, kind):
    values = generator.normal(size=(blocks + 1, images, readout))
    if kind == "grid":
        return np.round(values * 1.5) / 2
    if kind == "duplicates":
        values[:, images // 2 :] = values[:, : images - images // 2]
    if kind == "like a network":
        values = values[:1] + np.cumsum(0.2 * values, axis=0)
    return values


def check(values, start_tracer, generator, queries=2, enumerated=None):
    """Some queries against all pseudo-orbits (their delta and eps); how many there were."""
    apart = all_distances(values)
    delta, eps = enumerated or all_orbits(apart, start_tracer)
    exact = ExactShadowing(values, start_tracer=start_tracer, threads=1)
    finite = eps[np.isfinite(eps)]
    places = generator.choice(np.concatenate([[0.0], finite, finite * 0.999, [0.3]]), queries)
    for at in places:
        found = exact.at(float(at))
        assert found.proven
        assert found.upper == s_of(delta, eps, at)
        assert (found.path is None) == (found.upper == np.inf)
        if found.path is not None:
            path = tuple(found.path.tolist())
            assert len(set(path)) > 1
            own, error = follow(apart, path, start_tracer)
            assert own == found.upper and not error <= at
    return len(places)


@pytest.mark.parametrize("start_tracer", [True, False])
def test_equals_full_enumeration(start_tracer):
    generator = np.random.default_rng(14 + start_tracer)
    queries = 0
    for number in range(1000 if start_tracer else 600):
        images, blocks = generator.integers(2, 7), generator.integers(1, 4)
        values = sample(generator, images, blocks, generator.integers(1, 4), KINDS[number % 4])
        queries += check(values, start_tracer, generator)
    assert queries >= 1200


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_code_equals_full_enumeration(kind, monkeypatch):
    monkeypatch.setattr(exact_sets, "DENSE", 0)
    generator = np.random.default_rng(3)
    for number in range(40):
        check(
            sample(generator, generator.integers(2, 7), generator.integers(1, 4), 2, kind), number % 2 == 0, generator
        )


@pytest.mark.parametrize("kind", ["grid", "like a network"])
def test_more_images_than_bits_of_a_word(kind, monkeypatch):
    generator = np.random.default_rng(8)
    values = sample(generator, 67, 2, 3, kind)
    enumerated = all_orbits(all_distances(values))
    for dense in (0, 1200):
        monkeypatch.setattr(exact_sets, "DENSE", dense)
        check(values, True, generator, 3, enumerated)


@pytest.mark.parametrize("kind", KINDS)
def test_sets_of_compiled_code_are_those_of_numpy(kind, monkeypatch):
    values = sample(np.random.default_rng(5), 300, 3, 4, kind)
    apart = all_distances(values)
    for eps, delta in ((0.0, 0.0), (float(np.quantile(apart, 0.05)), float(np.quantile(apart, 0.01))), (1.0, np.inf)):
        found = []
        for dense in (1200, 0):
            monkeypatch.setattr(exact_sets, "DENSE", dense)
            distances = Distances(values, threads=2)
            far = far_sets(distances, eps)
            np.testing.assert_array_equal(unpacked(far, 300), apart > eps)
            found.append(escapable_sets(distances, far, delta))
        np.testing.assert_array_equal(*found)
        expected = apart[-1] > eps
        for t in range(2, -1, -1):
            expected = (apart[t] > eps) | ((apart[t + 1] <= delta).astype(int) @ expected.astype(int) > 0)
            np.testing.assert_array_equal(unpacked(found[0][t], 300), expected)


def test_bounds_and_a_known_orbit_change_the_work_but_not_the_answer():
    generator = np.random.default_rng(2)
    for _ in range(50):
        values = sample(generator, 6, 3, 2, "continuous")
        delta, eps = all_orbits(all_distances(values))
        at = float(np.median(eps))
        escaping = np.flatnonzero(eps > at)
        paths = np.indices((6,) * 4).reshape(4, -1)
        paths = paths[:, (paths != paths[0]).any(axis=0)]
        known = paths[:, escaping[generator.integers(len(escaping))]]
        exact = s_of(delta, eps, at)
        shadowing = ExactShadowing(values)
        for lower in (0.0, exact * 0.5, exact):
            found = shadowing.at(at, lower, known)
            assert found.proven and found.upper == exact


def test_out_of_nodes_leaves_a_bracket_that_holds():
    generator = np.random.default_rng(4)
    undecided = 0
    for _ in range(60):
        values = sample(generator, 6, 3, 2, "like a network")
        delta, eps = all_orbits(all_distances(values))
        at = float(np.quantile(eps, 0.8))
        found = ExactShadowing(values).at(at, nodes=2)
        undecided += not found.proven
        assert found.lower <= s_of(delta, eps, at) <= found.upper
        assert found.nodes <= 2
    assert undecided > 5


def test_squares_decide_as_distances_do():
    generator = np.random.default_rng(1)
    distances = np.concatenate([10.0 ** generator.uniform(-170, 150, 2000), [0.0, 1.0, 5e-324, np.inf]])
    for distance in distances.tolist():
        square = largest_square(distance)
        assert np.sqrt(square) <= distance
        assert distance == np.inf or np.sqrt(np.nextafter(square, np.inf)) > distance


def test_rows_of_bits_round_trip_and_are_full_past_the_end():
    bits = np.random.default_rng(0).random((5, 70)) < 0.5
    np.testing.assert_array_equal(unpacked(packed(bits), 70), bits)
    assert is_full(packed(np.ones((1, 70), bool))).all() and not is_full(packed(bits)).any()


def test_eps_must_be_a_radius():
    with pytest.raises(ValueError, match="eps: expected a number >= 0"):
        ExactShadowing(np.zeros((2, 3, 1))).at(float("nan"))
