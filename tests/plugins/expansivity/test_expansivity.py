"""The property on small examples: witnesses, tables, verification, storage, bad input."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc

import numpy as np
import pytest
from stabilitykit_expansivity import curve, depth, per_image
from stabilitykit_expansivity.constants import FLOAT32_SLACK, REDUCTIONS, refined
from stabilitykit_expansivity.expansivity import Expansivity

import stabilitykit.dynamics.trajectory
from stabilitykit import CellProblem, Kind, PropertyResult
from stabilitykit.dynamics.digits import LIMIT, distances_from_logits
from stabilitykit.dynamics.space import to_space
from stabilitykit.search import closest_pair
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context

# Two outputs, two depths; images 0, 1 of class 0 and 2, 3 of class 1.
LOGITS = np.array([[[0, 0], [10, 0], [3, 0], [11, 0]], [[0, 0], [10, 0], [4, 0], [16, 0]]], dtype=np.float32)
LABELS = np.array([0, 0, 1, 1])


def test_example_by_hand(context_of):
    result = Expansivity(curve=0).evaluate(context_of(LOGITS, LABELS))
    smallest, largest, mean = (result[f"expansive_constant.{r}"] for r in ("min", "max", "mean"))
    assert (smallest.value, smallest.witness["indices"], smallest.witness["block"]) == (1.0, [1, 3], 0)
    assert (largest.value, largest.witness["indices"], largest.witness["block"]) == (4.0, [0, 2], 1)
    assert (mean.value, mean.witness["indices"]) == (3.5, [0, 2])
    assert smallest.witness["distances"] == [1.0, 6.0]
    assert smallest.witness["classes"] == ["class0", "class1"]
    assert smallest.witness["orders"] == [1, 1]
    assert {m.kind for m in (smallest, largest, mean)} == {Kind.EXACT}
    assert smallest.unit == "logit (l2)" and smallest.n == 4
    assert largest.reference == "Definition 1"
    assert "upper bound of the infimum" in smallest.note
    # Cross-class distances are 3, 11, 7, 1 at depth 0 and 4, 16, 6, 6 at depth 1: medians 5 and 6.
    assert result["expansive_constant.min.normalised"].value == 1.0 / 5.0
    assert result["expansive_constant.max.normalised"].value == 4.0 / 6.0
    assert result["expansive_constant.mean.normalised"].value == 3.5 / 5.5
    profile = [dict(zip(result.tables["depth"].columns, row)) for row in result.tables["depth"].rows]
    assert [(d["block"], d["closest"], d["index_i"], d["index_j"], d["median"]) for d in profile] == [
        (0, 1.0, 1, 3, 5.0),
        (1, 4.0, 0, 2, 6.0),
    ]
    assert result.images[:4] == [0, 2, 1, 3]


def test_limit_reports_dataset_indices_and_orders(context_of):
    full = np.array([1, 0, 0, 1, 0, 1])
    context = context_of(LOGITS, full[[1, 2, 3, 5]], dataset_labels=full, indices=[1, 2, 3, 5])
    witness = Expansivity(curve=0).evaluate(context)["expansive_constant.min"].witness
    assert witness["indices"] == [2, 5]
    assert witness["orders"] == [1, 2]


def test_verify_recomputes_from_model_and_data():
    for space in ("probabilities", "logits"):
        context = tiny_context(space=space)
        result = PropertyResult.from_json(Expansivity().evaluate(context).to_json())
        verified = Expansivity().verify(context, result)
        assert set(verified) == {m.name for m in result.measurements}
        for reduction in REDUCTIONS:
            name = f"expansive_constant.{reduction}"
            assert verified[name] == result[name].value
        assert verified["accuracy"] is None


def test_verify_sees_another_model():
    result = Expansivity().evaluate(tiny_context())
    other = Expansivity().verify(tiny_context(TinyModel(seed=1)), result)
    for reduction in REDUCTIONS:
        name = f"expansive_constant.{reduction}"
        assert other[name] != result[name].value


def test_same_seed_same_result_and_json_round_trip():
    first, second = (Expansivity().evaluate(tiny_context(seed=3)).to_json() for _ in range(2))
    assert first == second == PropertyResult.from_json(first).to_json()


def test_float32_storage_says_upper_bound_with_an_interval_that_holds(context_of, monkeypatch):
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(4, 60, 5)).astype(np.float32), np.arange(60) % 5
    exact = Expansivity(curve=0).evaluate(context_of(logits, labels, "probabilities"))
    monkeypatch.setattr(stabilitykit.dynamics.trajectory, "FLOAT64_LIMIT", 0)
    context = context_of(logits, labels, "probabilities")
    assert context.trajectory.values.dtype == np.float32
    rounded = Expansivity(curve=0).evaluate(context)
    for reduction in REDUCTIONS:
        name = f"expansive_constant.{reduction}"
        assert rounded[name].kind is Kind.UPPER
        low, high = rounded[name].interval
        assert low <= exact[name].value <= high == rounded[name].value
        assert high - low <= 2 * FLOAT32_SLACK
        assert abs(rounded[name].value - exact[name].value) <= FLOAT32_SLACK
        assert rounded[f"{name}.normalised"].kind is Kind.ESTIMATE


def test_probabilities_are_float64_where_float32_would_saturate(context_of):
    logits = np.array([[[30.0, 0.0], [31.0, 0.0]]], dtype=np.float32)
    result = Expansivity(curve=0).evaluate(context_of(logits, [0, 1], "probabilities"))
    measured = result["expansive_constant.min"]
    expected = np.sqrt(2) * (1 / (1 + np.exp(-31.0)) - 1 / (1 + np.exp(-30.0)))
    assert measured.value == pytest.approx(expected, rel=1e-2) and 0 < measured.value < 1e-12
    assert measured.unit == "probability (l2)"


def test_all_equal_readouts_have_no_constant(context_of):
    result = Expansivity().evaluate(context_of(np.zeros((2, 6, 3)), np.arange(6) % 3))
    constants = [m for m in result.measurements if m.name.startswith("expansive_constant")]
    assert len(constants) == 6
    assert all(m.value is None and "head of zeros" in m.note for m in constants)
    assert [row[-1] for row in result.tables["depth"].rows] == [True, True]


def test_a_median_of_zero_has_no_normalised_value(context_of):
    logits = np.zeros((1, 6, 3))
    logits[0, 0] = 1.0  # five of six images coincide: no blind depth, most distances 0
    normalised = Expansivity().evaluate(context_of(logits, np.arange(6) % 3))["expansive_constant.min.normalised"]
    assert normalised.value is None and "undefined" in normalised.note


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([1, 1, 1, 1], {}, "all 4 evaluated images are of class 'class1'; raise --limit"),
        ([], {}, "no image was evaluated"),
        ([0, 0, 1, 1], {"pairs": "predictions"}, "all 4 images are predicted as 'class0'; use pairs=labels"),
    ],
)
def test_nothing_to_compare_is_one_clear_line(context_of, labels, options, message):
    logits = np.tile(np.array([1.0, 0.0]), (2, len(labels), 1))
    with pytest.raises(CellProblem, match=message) as raised:
        Expansivity(**options).evaluate(context_of(logits, np.array(labels, dtype=np.int64)))
    assert "\n" not in str(raised.value)


def test_outputs_that_are_not_the_classes_give_no_accuracy(context_of):
    logits = np.random.default_rng(0).normal(size=(2, 8, 5))
    result = Expansivity(pairs="predictions").evaluate(context_of(logits, np.arange(8) % 2, classes=2))
    assert "accuracy" not in [m.name for m in result.measurements]
    assert any("5 outputs" in note for note in result.notes)
    assert result["expansive_constant.max"].witness["predicted"][0].startswith("output ")


def test_many_classes_keep_the_closest_pairs_of_classes(context_of):
    logits = np.random.default_rng(0).normal(size=(1, 20, 3))
    context = context_of(logits, np.arange(20) % 10, classes=10)
    whole = Expansivity(curve=0).evaluate(context).tables["class_pairs"].rows
    result = Expansivity(curve=0, table_rows=4).evaluate(context)
    kept = result.tables["class_pairs"].rows
    assert len(whole) == 3 * 45 and len(kept) == 3 * 4
    assert [row[3] for row in kept[:4]] == sorted(row[3] for row in whole if row[2] == kept[0][2])[:4]
    assert any("table_rows" in note for note in result.notes)


def test_subsamples_are_nested_and_end_with_everything():
    for count in (1, 2, 5, 100):
        subsets = curve.subsamples(count, 5, seed=7)
        assert subsets[-1].tolist() == list(range(count))
        for small, large in itertools.pairwise(subsets):
            assert set(small) < set(large)
    assert [len(s) for s in curve.subsamples(160, 5, 0)] == [10, 20, 40, 80, 160]


@pytest.mark.parametrize("seed", range(6))
def test_curve_is_that_of_a_search_of_every_subsample(seed):
    """Also on a lattice, where many pairs are equally near, and where the whole sample's pair is in a subsample."""
    random = np.random.default_rng(seed)
    values, groups = np.round(random.normal(size=(3, 60, 2)), seed % 3), random.integers(0, 3, 60)
    whole = {r: closest_pair(values, groups, r) for r in ("max", "min", "mean")}
    points = {(p.size, p.reduction): p for p in curve.curve(values, groups, whole, 4, seed)}
    for rows in curve.subsamples(60, 4, seed):
        for reduction in whole:
            pair = closest_pair(values[:, rows], groups[rows], reduction)
            point = points[len(rows), reduction]
            assert (point.value, point.block) == (pair.value, pair.block)
            assert point.rows == (rows[pair.first], rows[pair.second])


def test_curve_without_a_cross_class_pair_has_no_value():
    values, groups = np.zeros((1, 4, 2)), np.array([0, 0, 0, 1])
    from stabilitykit.search import closest_pair

    whole = {r: closest_pair(values, groups, r) for r in REDUCTIONS}
    points = curve.curve(values, groups, whole, 3, seed=0)
    assert [p.size for p in points] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert points[0].value is None and points[-1].value == 0.0


def test_exponent_of_a_power_law():
    points = [curve.CurvePoint(n, "min", 3 * n**-0.165, (0, 1), 0) for n in (10, 20, 40, 80)]
    assert curve.exponent(points, "min") == pytest.approx(-0.165)
    assert curve.exponent(points, "max") is None


def test_prediction_depth_is_the_first_depth_that_stays():
    chosen = np.array([[1, 0, 2, 1], [1, 1, 1, 0], [1, 1, 0, 1]])
    expected = [min(t for t in range(3) if (chosen[t:, i] == chosen[-1, i]).all()) for i in range(4)]
    assert depth.prediction_depth(chosen).tolist() == expected == [0, 1, 2, 2]


def test_accuracy_per_depth(context_of):
    table = Expansivity(curve=0).evaluate(context_of(LOGITS, LABELS)).tables["accuracy"]
    logits = LOGITS.copy()
    logits[1, 2:] = logits[1, 2:, ::-1]
    after = Expansivity(curve=0).evaluate(context_of(logits, LABELS)).tables["accuracy"]
    assert table.columns == ["block", "accuracy", "agrees_with_final", "decided", "N", "at", "blind"]
    assert [row[1] for row in table.rows] == [0.5, 0.5]
    assert after.rows == [[0, 0.5, 0.5, 0.5, 4, "before any block", False], [1, 1.0, 1.0, 1.0, 4, "block 0", False]]


def test_the_component_builds_the_property_with_its_defaults():
    import stabilitykit_expansivity

    (component,) = stabilitykit_expansivity.stabilitykit_properties()
    built = component.load()(**component.option_values({}))
    assert vars(built) == vars(Expansivity())


def test_more_classes_than_images():
    context = tiny_context(TinyModel(classes=5), TinyDataset(count=7, classes=5))
    measured = Expansivity().evaluate(context)["expansive_constant.min"]
    values = to_space(context.trajectory.logits, "probabilities")
    i, j = measured.witness["indices"]
    assert measured.n == 7
    assert measured.value == pytest.approx(np.linalg.norm(values[:, i] - values[:, j], axis=1).min())


def test_refining_a_few_pairs_copies_no_trajectory(context_of):
    rng = np.random.default_rng(0)
    context = context_of(rng.normal(size=(6, 20_000, 4)).astype(np.float32), np.arange(20_000) % 2)
    trajectory = dataclasses.replace(context.trajectory, space="probabilities")
    first, second = np.array([[0, 7], [1, 19_999]])
    assert len(trajectory.seeing) == 6
    tracemalloc.start()
    values, depths = refined(trajectory, first, second, np.array([LIMIT / 2, 0.5]), "max")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    apart = distances_from_logits(trajectory.logits[:, 0], trajectory.logits[:, 1], "probabilities")
    assert values.tolist() == [apart.max(), 0.5] and depths.tolist() == [int(apart.argmax()), -1]
    assert peak < trajectory.logits.nbytes / 20


def test_every_images_nearest_one_is_searched_unasked_while_that_takes_about_a_minute(context_of, monkeypatch):
    assert (
        per_image.expected_seconds(10_000, 10, 10, "logits")
        < per_image.LIMIT
        < per_image.expected_seconds(20_000, 10, 10, "logits")
    )
    assert (
        per_image.expected_seconds(10_000, 20, 10, "probabilities")
        < per_image.LIMIT
        < per_image.expected_seconds(50_000, 13, 1000, "logits")
    )
    logits = np.random.default_rng(0).normal(size=(2, 6, 3))
    context = context_of(logits, np.arange(6) % 3)
    assert (
        per_image.nearest_columns(context, np.arange(6) % 3, "auto")[0]
        and not per_image.nearest_columns(context, np.arange(6), "never")[0]
    )
    monkeypatch.setattr(per_image, "LIMIT", 0.0)
    columns, notes = per_image.nearest_columns(context, np.arange(6) % 3, "auto")
    assert not columns and "nearest=always" in notes[0]
    assert per_image.nearest_columns(context, np.arange(6) % 3, "always")[0]
