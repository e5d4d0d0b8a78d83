"""Exact decisions on a device of torch, here its CPU: the sets of numpy and of compiled code, bit for bit."""

import numpy as np
import pytest
from stabilitykit_shadowing import exact_device
from stabilitykit_shadowing.exact import ExactShadowing
from stabilitykit_shadowing.exact_sets import Distances, escapable_sets, far_sets

from stabilitykit.search.device.where import searching_on
from tests.plugins.shadowing.test_exact import KINDS, sample


@pytest.mark.parametrize("kind", KINDS)
def test_sets_are_those_of_the_cpu(kind, monkeypatch):
    monkeypatch.setitem(exact_device.NUMBERS, "cpu", 4000)
    values = sample(np.random.default_rng(5), 130, 3, 4, kind)
    apart = np.sqrt(Distances(values).table)
    # The last one is attained, so that equality with the limit decides.
    pairs = [(0.0, 0.0), (1.0, np.inf), (np.inf, 1.0), (float(apart[1, 3, 5]), float(apart[2, 7, 9]))]
    for eps, delta in pairs:
        expected = Distances(values)
        far = far_sets(expected, eps)
        escapable = escapable_sets(expected, far, delta)
        with searching_on("cpu"):
            distances = Distances(values)
            assert distances.on_device is not None
            np.testing.assert_array_equal(far_sets(distances, eps), far)
            np.testing.assert_array_equal(escapable_sets(distances, far, delta), escapable)


def test_decisions_are_those_of_the_cpu():
    values = sample(np.random.default_rng(6), 80, 4, 3, "like a network")
    eps = float(np.median(np.sqrt(Distances(values).table))) / 8
    expected = ExactShadowing(values).at(eps)
    with searching_on("cpu"):
        found = ExactShadowing(values).at(eps)
    assert (found.lower, found.upper, found.decisions, found.nodes) == (
        expected.lower,
        expected.upper,
        expected.decisions,
        expected.nodes,
    )
    assert expected.path is not None
    np.testing.assert_array_equal(found.path, expected.path)
