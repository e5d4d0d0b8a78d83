"""Laws of g-expansive constants, on random readouts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stabilitykit_expansivity.constants import REDUCTIONS
from stabilitykit_expansivity.expansivity import Expansivity
from stabilitykit_expansivity.groups import READINGS

from stabilitykit import CellProblem
from stabilitykit.dynamics.space import to_space

laws = settings(deadline=None, max_examples=30)
SPACES = st.sampled_from(["logits", "probabilities"])
SEEDS = st.integers(0, 2**20)


def sample(seed, depths=3, images=20, classes=3, coarse=False):
    """Random logits (depths, images, classes) and labels in which every class occurs."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(depths, images, classes)).astype(np.float32)
    if coarse:
        logits = np.round(logits)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, images - classes)])
    return logits, generator.permutation(labels)


def brute_force(logits, labels, space, reduction):
    """(value, i, j): every pair, plain Python floats."""
    values = to_space(logits, space).tolist()
    best = (math.inf, -1, -1)
    for i, j in itertools.combinations(range(len(labels)), 2):
        if labels[i] == labels[j]:
            continue
        distances = []
        for at in values:
            total = 0.0
            for a, b in zip(at[i], at[j]):
                total += (a - b) * (a - b)
            distances.append(math.sqrt(total))
        mean = 0.0
        for distance in distances:
            mean += distance
        value = {"max": max(distances), "min": min(distances), "mean": mean / len(distances)}[reduction]
        best = min(best, (value, i, j))
    return best


def constants(result):
    return {r: result[f"expansive_constant.{r}"] for r in REDUCTIONS}


@laws
@given(SEEDS, SPACES, st.integers(1, 5), st.integers(4, 25), st.integers(2, 4), st.booleans())
def test_equals_brute_force_to_the_last_digit(context_of, seed, space, depths, images, classes, coarse):
    logits, labels = sample(seed, depths, images, classes, coarse)
    result = Expansivity(curve=0).evaluate(context_of(logits, labels, space))
    for reduction, measured in constants(result).items():
        value, i, j = brute_force(logits, labels, space, reduction)
        assert (measured.value, measured.witness["indices"]) == (value, [i, j])
        assert measured.n == images


@laws
@given(SEEDS, SPACES, st.sets(st.integers(0, 4), min_size=1, max_size=3), st.booleans())
def test_blind_depths_change_no_constant(context_of, seed, space, blind, rounded):
    logits, labels = sample(seed)
    seeing = [t for t in range(8) if t not in blind][:3]
    depths = max(*seeing, *blind) + 1
    padded = np.full((depths, *logits.shape[1:]), 0.5, np.float32)
    if rounded:  # what another size of the last batch does
        padded *= 1 + 1e-6 * np.random.default_rng(seed).random(padded.shape, dtype=np.float32)
    padded[seeing] = logits
    blind = sorted(set(range(depths)) - set(seeing))
    plain = Expansivity(curve=3).evaluate(context_of(logits, labels, space))
    result = Expansivity(curve=3).evaluate(context_of(padded, labels, space))
    for reduction, measured in constants(result).items():
        expected = constants(plain)[reduction]
        assert (measured.value, measured.kind) == (expected.value, expected.kind)
        assert measured.witness["block"] == seeing[expected.witness["block"]]
        assert measured.witness["left_out"] == blind and f"depth {blind[0]}" in measured.note.replace("depths", "depth")
        assert [measured.witness["distances"][t] for t in seeing] == expected.witness["distances"]
        assert all(measured.witness["distances"][t] <= 2e-6 * rounded for t in blind)
        name = f"expansive_constant.{reduction}.normalised"
        assert result[name].value == plain[name].value
    for table in ("curve", "class_pairs"):
        place = plain.tables[table].columns.index("block")
        rows = plain.tables[table].rows
        moved = [[*r[:place], None if r[place] is None else seeing[r[place]], *r[place + 1 : -1]] for r in rows]
        assert [row[:-1] for row in result.tables[table].rows] == moved
    assert [row[0] for row in result.tables["depth"].rows if row[-1]] == blind
    assert result["prediction_depth.mean"].value >= seeing[0]


@laws
@given(SEEDS, SPACES)
def test_every_class_pair_equals_brute_force(context_of, seed, space):
    logits, labels = sample(seed)
    context = context_of(logits, labels, space)
    table = Expansivity(curve=0).evaluate(context).tables["class_pairs"]
    assert len(table.rows) == 9  # 3 pairs of classes x 3 reductions
    for row in table.rows:
        cell = dict(zip(table.columns, row))
        a, b = (int(cell[name].removeprefix("class")) for name in ("class_a", "class_b"))
        two = np.flatnonzero((labels == a) | (labels == b))
        value, i, j = brute_force(logits[:, two], labels[two], space, cell["reduction"])
        assert cell["value"] == value
        assert {cell["index_a"], cell["index_b"]} == {int(two[i]), int(two[j])}
        assert (labels[cell["index_a"]], labels[cell["index_b"]]) == (a, b)
        assert cell["order_a"] == int((labels[: cell["index_a"]] == a).sum())
        assert (cell["n_a"], cell["n_b"]) == (int((labels == a).sum()), int((labels == b).sum()))


@laws
@given(SEEDS, SPACES)
def test_permuting_the_images_changes_nothing_but_the_indices(context_of, seed, space):
    logits, labels = sample(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    before = constants(Expansivity(curve=0).evaluate(context_of(logits, labels, space)))
    after = constants(Expansivity(curve=0).evaluate(context_of(logits[:, order], labels[order], space)))
    for reduction in REDUCTIONS:
        assert after[reduction].value == before[reduction].value
        assert after[reduction].witness["distances"] == before[reduction].witness["distances"]
        assert sorted(order[after[reduction].witness["indices"]]) == before[reduction].witness["indices"]


@laws
@given(SEEDS, st.integers(-8, 8))
def test_scaling_logits_scales_distances_and_leaves_normalised_values(context_of, seed, power):
    logits, labels = sample(seed)
    before = Expansivity(curve=0).evaluate(context_of(logits, labels))
    after = Expansivity(curve=0).evaluate(context_of(logits * np.float32(2.0**power), labels))
    for reduction in REDUCTIONS:
        name = f"expansive_constant.{reduction}"
        assert after[name].value == before[name].value * 2.0**power
        assert after[f"{name}.normalised"].value == before[f"{name}.normalised"].value


@laws
@given(SEEDS, SPACES)
def test_min_mean_max_are_ordered(context_of, seed, space):
    found = constants(Expansivity(curve=0).evaluate(context_of(*sample(seed), space)))
    slack = 1 + 1e-15
    assert found["min"].value <= found["mean"].value * slack
    assert found["mean"].value <= found["max"].value * slack


@laws
@given(SEEDS, SPACES, st.integers(2, 6))
def test_never_rises_with_n(context_of, seed, space, points):
    logits, labels = sample(seed, images=40)
    result = Expansivity(curve=points).evaluate(context_of(logits, labels, space, seed=seed))
    rows = result.tables["curve"].rows
    assert max(row[0] for row in rows) == 40
    for reduction in REDUCTIONS:
        along = sorted((n, value) for n, r, value, *_ in rows if r == reduction and value is not None)
        assert all(small[1] >= large[1] for small, large in itertools.pairwise(along))
        assert along[-1] == (40, constants(result)[reduction].value)


@laws
@given(SEEDS, st.integers(1, 19))
def test_more_images_never_raise_a_constant(context_of, seed, extra):
    logits, labels = sample(seed)
    few = len(labels) - extra
    assume(len(set(labels[:few])) > 1)
    small = constants(Expansivity(curve=0).evaluate(context_of(logits[:, :few], labels[:few])))
    large = constants(Expansivity(curve=0).evaluate(context_of(logits, labels)))
    assert all(large[r].value <= small[r].value for r in REDUCTIONS)


@laws
@given(SEEDS, SPACES)
def test_duplicates_across_classes_give_zero_with_their_witness(context_of, seed, space):
    logits, labels = sample(seed)
    first = seed % len(labels)
    second = int(np.flatnonzero(labels != labels[first])[0])
    logits[:, second] = logits[:, first]
    result = Expansivity(curve=0).evaluate(context_of(logits, labels, space))
    for measured in constants(result).values():
        assert measured.value == 0.0
        assert measured.witness["indices"] == sorted([first, second])
        assert set(measured.witness["distances"]) == {0.0}
        assert len(set(measured.witness["classes"])) == 2


@laws
@given(SEEDS)
def test_predicted_classes_separate_pairs_by_prediction(context_of, seed):
    logits, labels = sample(seed)
    predictions = logits[-1].argmax(axis=1)
    context = context_of(logits, labels)
    assume(len(set(predictions.tolist())) > 1)
    result = Expansivity(pairs="predictions", curve=0).evaluate(context)
    for reduction, measured in constants(result).items():
        value, i, j = brute_force(logits, predictions, "logits", reduction)
        assert (measured.value, measured.witness["indices"]) == (value, [i, j])
        assert measured.witness["predicted"] == [f"class{predictions[i]}", f"class{predictions[j]}"]


@laws
@given(SEEDS)
def test_distinct_pairs_are_those_whose_final_readouts_differ(context_of, seed):
    """Definition 1 to the letter: labels play no part."""
    logits, labels = sample(seed)
    logits[-1, 1] = logits[-1, 0]  # two images that end alike are no pair, whatever lies between
    _, final = np.unique(logits[-1], axis=0, return_inverse=True)
    result = Expansivity(pairs="distinct", curve=0).evaluate(context_of(logits, labels * 0))
    for reduction, measured in constants(result).items():
        value, i, j = brute_force(logits, final.reshape(-1), "logits", reduction)
        assert (measured.value, measured.witness["indices"]) == (value, [i, j])
        assert measured.note.startswith("all pairs whose final readouts differ") and [i, j] != [0, 1]
    assert "class_pairs" not in result.tables


@pytest.mark.parametrize("pairs", READINGS)
def test_notes_name_the_reading(context_of, pairs):
    found = constants(Expansivity(pairs=pairs).evaluate(context_of(*sample(1)))).values()
    assert len(found) == 3 and all(m.note.startswith(READINGS[pairs]) for m in found)


@pytest.mark.parametrize("pairs, advice", [("labels", "two classes"), ("predictions", "pairs=labels")])
def test_one_class_has_no_pair(context_of, pairs, advice):
    logits, labels = sample(0)
    logits[-1, :, 1] = 99.0  # all images are predicted to be of class 1
    with pytest.raises(CellProblem, match=advice):
        Expansivity(pairs=pairs).evaluate(context_of(logits, labels * 0 if pairs == "labels" else labels))
