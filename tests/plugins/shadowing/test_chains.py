"""The chains of the authors' code against a search written down from the definition."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from stabilitykit_shadowing.chains import first_block_chains
from stabilitykit_shadowing.property import Shadowing

from stabilitykit.base.results import Kind
from stabilitykit.testing.course import TinyToken
from stabilitykit.testing.fixtures import TinyDataset, tiny_context
from tests.plugins.shadowing.strategies import trajectories

NAMES = ("Sh_chain.mean", "Sh_chain.max")


def by_hand(values):
    """Every chain in a plain loop -> images, jumps, distances to the orbit of its first image."""
    depths, count, _ = values.shape
    found = []
    for first in range(count):
        chain, jumps = [first], []
        while len(chain) < depths:
            left = [j for j in range(count) if j not in chain]
            if not left:
                break
            apart = [float(np.linalg.norm(values[1, chain[-1]] - values[0, j])) for j in left]
            jumps.append(min(apart))
            chain.append(left[int(np.argmin(apart))])
        if len(chain) == depths:
            apart = [float(np.linalg.norm(values[n, first] - values[0, chain[n]])) for n in range(1, depths)]
            found.append((chain, jumps, apart))
    return found


@settings(deadline=None, max_examples=60)
@given(trajectories())
def test_chains_are_those_of_a_plain_search(values):
    found, expected = first_block_chains(values), by_hand(values)
    assert len(found) == len(expected)
    assert all(len(set(chain)) == len(chain) for chain in found.images.tolist())
    for n, (chain, jumps, _) in enumerate(expected):
        # Near-ties may be ordered otherwise by another rounding; a chain that agrees agrees in everything.
        if found.images[n].tolist() == chain:
            np.testing.assert_allclose(found.jumps[n], jumps, rtol=1e-9, atol=1e-15)
            np.testing.assert_allclose(found.apart[n], expected[n][2], rtol=1e-9, atol=1e-15)
        else:
            split = int((found.images[n] != chain).argmax())
            np.testing.assert_allclose(found.jumps[n, split - 1], jumps[split - 1], rtol=1e-9)


def test_most_chains_are_those_of_the_plain_search_to_the_image():
    values = np.random.default_rng(3).normal(size=(5, 40, 3))
    assert first_block_chains(values).images.tolist() == [chain for chain, _, _ in by_hand(values)]


def test_only_the_first_block_makes_chains():
    values = np.random.default_rng(0).normal(size=(4, 9, 2))
    other = values.copy()
    other[2:] = np.random.default_rng(1).normal(size=(2, 9, 2))
    one, two = first_block_chains(values), first_block_chains(other)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.jumps, two.jumps)
    assert not np.array_equal(one.apart, two.apart)


def test_a_true_orbit_of_one_map_follows_its_chain_exactly():
    """Images 0, 1, 2, ... on the orbit of x -> x + 1: the chain from 0 visits them, with no jump and no error."""
    values = np.stack([np.arange(12.0) + depth for depth in range(4)])[:, :, None]
    found = first_block_chains(values)
    assert found.images[0].tolist() == [0, 1, 2, 3]
    assert (found.jumps[0] == 0).all() and (found.apart[0] == 0).all()


def test_fewer_images_than_a_chain_visits_make_none():
    values = np.random.default_rng(0).normal(size=(4, 3, 2))
    assert len(first_block_chains(values)) == 0 and first_block_chains(values).images.shape == (0, 4)


def test_default_results_stay_and_the_constants_are_those_of_the_plain_search():
    context = tiny_context()
    plain, found = Shadowing().evaluate(context), Shadowing(chains=True).evaluate(context)
    assert [m for m in found.measurements if m.name not in NAMES] == plain.measurements
    expected = by_hand(context.trajectory.values)
    for name, reduce in zip(NAMES, (np.mean, np.max)):
        chain, jumps, apart = min(expected, key=lambda entry: reduce(entry[2]))
        m = found[name]
        assert m.kind is Kind.ESTIMATE and m.n == len(context.indices)
        assert m.witness["chain"] == context.indices[chain].tolist()
        assert m.witness["eps"] == pytest.approx(reduce(apart)) and m.witness["delta"] == pytest.approx(max(jumps))
        assert m.value == pytest.approx(max(jumps) / reduce(apart))
        assert m.value == m.witness["delta"] / m.witness["eps"]


def test_the_witness_is_run_again_and_an_altered_one_is_found():
    context = tiny_context()
    result = Shadowing(chains=True).evaluate(context)
    again = Shadowing(chains=True).verify(context, result)
    for name in NAMES:
        assert again[name] == pytest.approx(result[name].value, rel=1e-9)
        chain = list(result[name].witness["chain"])
        other = next(int(i) for i in context.indices if i not in chain)
        witness = {**result[name].witness, "chain": [*chain[:-1], other]}
        altered = dataclasses.replace(
            result,
            measurements=[
                dataclasses.replace(m, witness=witness) if m.name == name else m for m in result.measurements
            ],
        )
        assert Shadowing(chains=True).verify(context, altered)[name] != pytest.approx(result[name].value, rel=1e-9)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (lambda: tiny_context(TinyToken(blocks=3)), "coincide at depth 0"),
        (lambda: tiny_context(dataset=TinyDataset(count=3)), "give more images"),
    ],
    ids=["blind", "few"],
)
def test_without_chains_the_reason_is_given(context, words):
    result = Shadowing(chains=True).evaluate(context())
    for name in NAMES:
        assert result[name].value is None and words in result[name].note
