"""The three properties on tiny networks: contract, numbers by brute force, depths that do not count, witnesses."""

import dataclasses
import math

import numpy as np
import pytest
from stabilitykit_separation import stabilitykit_properties
from stabilitykit_separation.entropy import TrajectoryEntropy
from stabilitykit_separation.outlying import Outlying
from stabilitykit_separation.window import Window

from stabilitykit import CellProblem, Kind, UsageProblem
from stabilitykit.testing.course import TinyToken
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context
from stabilitykit.testing.property import check_property

PROPERTIES = [TrajectoryEntropy, Window, Outlying]


def apart_at_depths(context):
    """Distances of every two images at every depth, (T+1, N, N), in float64."""
    values = np.asarray(context.trajectory.values, dtype=np.float64)
    return np.sqrt(np.square(values[:, :, None] - values[:, None]).sum(axis=3))


@pytest.mark.parametrize("measured", PROPERTIES)
@pytest.mark.parametrize("options", [{}, {"first_depth": 2}], ids=str)
@pytest.mark.parametrize("model", [TinyModel, lambda: TinyToken(blind=(2,))], ids=["tiny", "blind"])
def test_the_contract_holds_and_witnesses_stand(measured, options, model):
    def context(dataset=None, **more):
        return tiny_context(model(), dataset, **more)

    checks = check_property(lambda: measured(**options), options=options, make_context=context)
    assert [c for c in checks if not c.ok] == []
    made = context()
    result = measured(**options).evaluate(made)
    again = {**measured(**options).verify(made, result), **measured(**options).verify_sample(made, result)}
    for name, value in again.items():
        assert value is None or value == pytest.approx(result[name].value, rel=1e-12), name
    assert sum(value is not None for value in again.values()) >= 2


@pytest.mark.parametrize("first", [0, 1, 3])
def test_the_window_is_that_of_brute_force(first):
    context = tiny_context()
    apart, labels = apart_at_depths(context)[first:], context.labels
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    other = labels[:, None] != labels
    over = apart.max(axis=0)
    result = Window(first_depth=first).evaluate(context)
    assert result["window.within"].value == pytest.approx(over[same].max(), rel=1e-12)
    assert result["window.across"].value == pytest.approx(over[other].min(), rel=1e-12)
    assert result["window.ratio"].value == pytest.approx(over[other].min() / over[same].max(), rel=1e-12)
    rows = result.tables["depth"].rows
    assert [row[0] for row in rows] == list(range(first, 4))
    for row, there in zip(rows, apart):
        assert row[1] == pytest.approx(there[same].max(), rel=1e-12)
        assert row[5] == pytest.approx(there[other].min(), rel=1e-12)
        i, j, k, m = row[2], row[3], row[6], row[7]
        assert labels[i] == labels[j] and labels[k] != labels[m]
        assert (there[i, j], there[k, m]) == (pytest.approx(row[1], rel=1e-12), pytest.approx(row[5], rel=1e-12))
    opened = sum(there[same].max() < there[other].min() for there in apart)
    assert result["window.open_depths"].value == opened
    assert result["window.within"].kind is Kind.EXACT and result["window.within"].n == 24
    witness = result["window.within"].witness
    assert witness["distances"][witness["block"]] == result["window.within"].value
    assert witness.get("left_out", []) == list(range(first))


@pytest.mark.parametrize("first", [0, 2])
def test_entropy_is_that_of_the_definition(first):
    context = tiny_context()
    over = apart_at_depths(context)[first:].max(axis=0)
    result = TrajectoryEntropy(first_depth=first).evaluate(context)
    pairs = over[np.triu_indices(len(over), 1)]
    blocks = context.trajectory.depth
    for quantile, eps, name, count, size, entropy in result.tables["curve"].rows:
        assert eps == pytest.approx(np.quantile(pairs, quantile), rel=1e-12)
        rows = (
            range(len(over))
            if name == "all"
            else np.flatnonzero(context.labels == context.dataset.class_names.index(name))
        )
        members = []
        for i in rows:
            if all(over[i, j] > eps for j in members):
                members.append(i)
        assert (count, size) == (len(rows), len(members))
        assert entropy == pytest.approx(math.log(size) / blocks, rel=1e-12, abs=0)
    found = result["entropy"]
    assert found.kind is Kind.LOWER and found.value == math.log(result["separated_set"].value) / blocks
    assert len(found.witness["indices"]) == result["separated_set"].value
    inner = [row for row in result.tables["curve"].rows if row[2] != "all" and row[0] == 0.1]
    assert result["entropy.within_class"].value == max(row[5] for row in inner)


def test_a_sample_of_pairs_gives_an_estimate_of_eps():
    context = tiny_context()
    drawn = TrajectoryEntropy(pairs=50).evaluate(context)
    assert drawn["entropy.eps"].kind is Kind.ESTIMATE and drawn["entropy"].kind is Kind.LOWER
    assert "50 drawn (seed 0) of 276" in drawn["entropy"].note
    assert TrajectoryEntropy().evaluate(context)["entropy.eps"].kind is Kind.EXACT


def test_outlying_images_are_those_of_brute_force():
    context = tiny_context()
    over, labels = apart_at_depths(context).max(axis=0), context.labels
    np.fill_diagonal(over, np.inf)
    own = np.where(labels[:, None] == labels, over, np.inf).min(axis=1)
    other = np.where(labels[:, None] != labels, over, np.inf).min(axis=1)
    result = Outlying(rows=5).evaluate(context)
    np.testing.assert_allclose(result.per_image["own_class_distance"], own, rtol=1e-12)
    np.testing.assert_allclose(result.per_image["other_class_distance"], other, rtol=1e-12)
    assert result["outlying.share"].value == (own > other).mean()
    assert result["outlying.max"].value == pytest.approx((own / other).max(), rel=1e-12)
    table = result.tables["outlying"]
    assert [row[0] for row in table.rows] == np.argsort(-own / other, kind="stable")[:5].tolist()
    assert Outlying().per_image(context)["outlying.share"].mean() == result["outlying.share"].value


@pytest.mark.parametrize("measured", PROPERTIES)
def test_blind_depths_and_early_ones_change_no_number(measured):
    """Blind depths are left out; readouts before the first depth may be anything."""
    context = tiny_context(TinyToken(blocks=4, blind=(3,)))
    whole = context.trajectory
    logits = whole.logits.copy()
    logits[1] = np.random.default_rng(0).standard_normal(logits[1].shape)
    other = dataclasses.replace(whole, logits=logits)
    changed = dataclasses.replace(context, make_trajectory=lambda: other)
    found, expected = (measured(first_depth=2).evaluate(c) for c in (changed, context))
    for m in expected.measurements:
        assert (found[m.name].value, found[m.name].kind) == (m.value, m.kind)
        if m.name not in ("window.ratio", "window.open_depths"):
            assert "before first_depth=2" in m.note and "depth 3 (layers.2)" in m.note
    assert measured().evaluate(changed).to_json() != measured().evaluate(context).to_json()


@pytest.mark.parametrize("measured", PROPERTIES)
def test_altered_witnesses_are_found(measured):
    context = tiny_context()
    result = measured().evaluate(context)
    name = {"entropy": "separated_set", "window": "window.within", "outlying": "outlying.max"}[measured.name]
    wrong = dict(result[name].witness)
    wrong["indices"] = [(i + 1) % 24 for i in wrong["indices"][:-1]] + [wrong["indices"][0]]
    changed = [dataclasses.replace(m, witness=wrong) if m.name == name else m for m in result.measurements]
    again = measured().verify(context, dataclasses.replace(result, measurements=changed))
    assert isinstance(again[name], str) or again[name] != pytest.approx(result[name].value, rel=1e-6)


def test_a_pair_of_the_other_kind_and_altered_distances_are_said():
    context = tiny_context()
    for prop, name, part, said in (
        (Window(), "window.within", {"indices": [0, 1]}, "its images are of classes"),
        (Outlying(), "outlying.max", {"own_distance": 9.0}, "its distances are"),
    ):
        result = prop.evaluate(context)
        altered = dataclasses.replace(result[name], witness=dict(result[name].witness) | part)
        changed = [altered if m.name == name else m for m in result.measurements]
        if name == "window.within":
            assert context.labels[0] != context.labels[1]
        assert said in str(prop.verify(context, dataclasses.replace(result, measurements=changed))[name])


@pytest.mark.parametrize("gap, opened", [(0.9, 0), (1.5, 4)])
def test_a_window_is_open_where_classes_are_farther_apart_than_one_is_wide(gap, opened):
    context = tiny_context()
    logits = np.zeros_like(context.trajectory.logits)
    labels = context.labels
    logits[:, :, 0] = labels * (1 + gap)
    logits[:, np.flatnonzero(labels == 0)[0], 0] = 1.0  # class 0 is 1 wide, class 1 is `gap` farther
    made = dataclasses.replace(context.trajectory, logits=logits, space="logits")
    result = Window().evaluate(dataclasses.replace(context, make_trajectory=lambda: made))
    assert result["window.open_depths"].value == opened


@pytest.mark.parametrize("measured", PROPERTIES)
def test_what_cannot_be_measured_is_said(measured):
    with pytest.raises(CellProblem, match=r"first_depth=9: the depths are 0\.\.3"):
        measured(first_depth=9).evaluate(tiny_context())
    with pytest.raises(CellProblem, match="raise --limit"):
        measured().evaluate(tiny_context(dataset=TinyDataset(count=1, classes=1)))
    blind = measured().evaluate(tiny_context(TinyToken(blind=(1, 2, 3))))
    assert all(m.value is None and "all readouts coincide" in m.note for m in blind.measurements)


@pytest.mark.parametrize("given", ["0.1+2", "0.1,0.2", "-0.5", "", "nan"])
def test_quantiles_out_of_range_are_refused(given):
    option = next(o for o in stabilitykit_properties()[0].options if o.name == "quantiles")
    with pytest.raises(UsageProblem, match=r"quantiles, in \[0, 1\]"):
        option.parse(given, "property entropy")
    assert TrajectoryEntropy(option.parse("0.2+.05 1", "")).quantiles == [0.05, 0.1, 0.2, 1.0]
