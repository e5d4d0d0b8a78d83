"""Tracers of the orbit's first class only: by enumeration, and against tracing in each class alone."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_shadowing.orbits import PseudoOrbits, nearest_orbits
from stabilitykit_shadowing.property import Shadowing
from stabilitykit_shadowing.tracing import trace

from stabilitykit.testing.fixtures import TinyDataset, tiny_context
from stabilitykit.testing.property import check_property


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
def test_tracing_within_a_class_is_that_of_enumeration(seed, start_tracer, rounded, off_sample):
    random = np.random.default_rng(seed)
    values = random.standard_normal((3, 12, 2))
    values = np.round(values) if rounded else values
    labels = random.integers(0, 4, 12)
    orbits = nearest_orbits(values)
    still = np.arange(3)[:, None].repeat(3, axis=1)  # true orbits, which never trace themselves
    path = np.concatenate([orbits.path, still])
    orbits = PseudoOrbits(path[:, 0], np.zeros((len(path), 2)), path=path)
    targets = orbits.targets(values, np.arange(len(path)))
    if off_sample:
        orbits = PseudoOrbits(orbits.start, orbits.jumps, readouts=targets)
    tracer, eps = trace(values, orbits, start_tracer=start_tracer, groups=labels)
    for p, start in enumerate(orbits.start):
        apart = np.sqrt(np.square(values.transpose(1, 0, 2) - targets[p]).sum(axis=2)).max(axis=1)
        apart[labels != labels[start]] = np.inf
        if not start_tracer or (not off_sample and (path[p] == start).all()):
            apart[start] = np.inf
        best = int(apart.argmin())
        if np.isinf(apart[best]):
            assert tracer[p] == -1 and np.isnan(eps[p])
        else:
            assert tracer[p] == best and eps[p] == pytest.approx(apart[best], rel=1e-12)


@pytest.mark.parametrize("family", ["nearest", "noise"])
def test_the_property(family):
    options = {"family": family, "tracers": "same_class"}
    assert [c for c in check_property(lambda: Shadowing(**options), options=options) if not c.ok] == []
    context = tiny_context()
    labels = context.labels
    result, whole = Shadowing(**options).evaluate(context), Shadowing(family=family).evaluate(context)
    for row in result.tables["orbits"].rows:
        assert row[8] == context.dataset.class_names[labels[row[7]]]
    share = "tracers.of_another_class"
    assert result[share].value == whole[share].value and result[share].kind == "exact on the sample"
    for m in result.measurements:
        orbit = m.witness.get("eps_orbit")
        if orbit:
            assert labels[orbit["start"]] == labels[orbit["tracer"]]
    for column, other in zip(result.per_image["tracing_error"], whole.per_image["tracing_error"]):
        assert column >= other
    assert "data tracers of the orbit's first class" in result["Sh_profile"].note
    again = Shadowing(**options).verify(context, result)
    assert not [value for value in again.values() if isinstance(value, str)]
    stored = result["Sh_profile"]
    orbit = dict(stored.witness["eps_orbit"]) | {
        "tracer": int(np.flatnonzero(labels != labels[stored.witness["eps_orbit"]["start"]])[0])
    }
    changed = dataclasses.replace(stored, witness=dict(stored.witness) | {"eps_orbit": orbit})
    found = Shadowing(**options).verify(context, dataclasses.replace(result, measurements=[changed]))
    assert "of another class" in found["Sh_profile"]


def test_the_share_is_counted_and_has_a_witness():
    context = tiny_context()
    labels = context.labels
    found = Shadowing().evaluate(context)["tracers.of_another_class"]
    tracer, eps = trace(context.trajectory.values, nearest_orbits(context.trajectory.values))
    other = labels[tracer] != labels
    assert found.value == other.mean() and found.n == 24
    if other.any():
        start, best = found.witness["indices"]
        assert labels[start] != labels[best] == labels[tracer[start]]
        assert found.witness["eps"] == eps[other].min() == eps[start]


def test_classes_of_one_image_have_no_tracer_but_the_image_itself():
    context = tiny_context(dataset=TinyDataset(count=3, classes=3))
    result = Shadowing(tracers="same_class", start_tracer=False).evaluate(context)
    assert all(
        m.value is None and "no pseudo-orbit of the family has a tracer of its first class" in m.note
        for m in result.measurements
    )
