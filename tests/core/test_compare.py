"""Comparisons: side by side, warned about where they are not comparable, with intervals that hold what they say."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.progress import no_progress
from stabilitykit.cli import run as run_cli
from stabilitykit.review.compare import compare
from stabilitykit.review.comparison import Entry, Interval, Row
from stabilitykit.review.resampling import Both, block_interval, bootstrap_difference, judge, of_means
from stabilitykit.runs.folder import RunFolder, load_run
from tests.core.report_runs import make_run


@pytest.fixture()
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return make_run(tmp_path / "a"), make_run(tmp_path / "b", models=("resnet50",), count=300, failed=False)


def row(found, name, prop="expansivity"):
    return next(r for r in found.rows if (r.property, r.measurement) == (prop, name))


def test_values_kinds_and_ratios(runs):
    found = compare(runs)
    results = [next(c.result for c in load_run(r)[1] if c.ok) for r in runs]
    for measurement in results[0].measurements:
        line = row(found, measurement.name)
        assert [e.value for e in line.entries] == [r[measurement.name].value for r in results]
        assert [e.n for e in line.entries] == [500, 300]
        assert line.ratio(1) == line.entries[1].value / line.entries[0].value


def test_a_ratio_is_the_other_value_over_the_first():
    entries = [
        Entry(2.0, "exact", 1),
        Entry(6.0, "exact", 1),
        None,
        Entry(None, "exact", 1),
        Entry(math.inf, "exact", 1),
    ]
    assert [Row("p", "m", entries).ratio(k) for k in range(5)] == [1.0, 3.0, None, None, None]
    assert Row("p", "m", [Entry(0.0, "exact", 1), entries[0]]).ratio(1) is None


def test_differing_n_warns_and_adds_rows_at_equal_n(runs):
    found = compare(runs)
    assert any("N differs: 500" in w and "equal N" in w for w in found.warnings)
    assert any("failed in" in w for w in found.warnings)
    line = row(found, "min at N = 300")
    # The synthetic curve is a power law, so reading it on logarithmic axes is exact.
    assert line.entries[0].value == pytest.approx(10 * 1e-3 * 300**-0.6, rel=1e-12)
    assert line.entries[1].value == pytest.approx(10 * 1e-3 * 300**-0.6, rel=1e-12)
    assert line.entries[0].note and not line.entries[1].note


def test_space_readout_and_data_are_compared(tmp_path, runs):
    folder = RunFolder(runs[1])
    for cell in folder.read_cells():
        cell.record |= {"space": "logits", "readout": "probe"}
        cell.record["dataset"] = cell.record["dataset"] | {"fingerprint": "other"}
        folder.write_cell(cell)
    text = "\n".join(compare(runs).warnings)
    assert "space differs: probabilities" in text and "readout differs: head" in text and "images differ" in text


def test_other_images_of_one_dataset_are_said(tmp_path):
    """Equal data, equal N, another seed: other images, and constants move with the images."""
    runs = [make_run(tmp_path / name, failed=False) for name in ("a", "b")]
    for run, seed in zip(runs, (0, 1)):
        folder = RunFolder(run)
        for cell in folder.read_cells():
            cell.record |= {"limit": cell.record["n"], "seed": seed}
            cell.record["dataset"] = {**cell.record["dataset"], "size": 10 * cell.record["n"]}
            folder.write_cell(cell)
    [text] = compare(runs).warnings
    assert "images chosen by seed 0" in text and "images chosen by seed 1" in text
    for cell in (folder := RunFolder(runs[1])).read_cells():
        cell.record["seed"] = 0
        folder.write_cell(cell)
    assert compare(runs).warnings == []


def test_equal_runs_give_no_warning_about_conditions(tmp_path):
    one = make_run(tmp_path / "one", models=("m1", "m2"), failed=False)
    found = compare([one])
    assert found.warnings == [] and len(found.columns) == 2
    assert not any(" at N = " in r.measurement for r in found.rows)


def test_formats_agree(runs, capsys):
    assert run_cli(["compare", *map(str, runs), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert run_cli(["compare", *map(str, runs), "--format", "csv"]) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert "warning: N differs" in captured.err
    flat = [e for r in data["rows"] for e in r["entries"] if e is not None]
    assert [float(r["value"]) for r in rows] == [float(e["value"]) for e in flat]
    assert run_cli(["compare", *map(str, runs)]) == 0
    table = capsys.readouterr().out
    assert "resnet50 on digits" in table and "expansive_constant.min" in table and "N 300" in table


def test_bad_input(tmp_path, runs, capsys):
    assert run_cli(["compare", str(runs[1])]) == 2
    assert "at least two" in capsys.readouterr().err
    assert run_cli(["compare", str(runs[0]), str(tmp_path / "absent")]) == 2
    with pytest.raises(UsageProblem):
        compare([])


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_bootstrap_laws(count, seed, shift):
    values = np.random.default_rng(seed).random(count)
    # The same shift of every image is known without error when paired.
    low, high = bootstrap_difference(values, values + shift, paired=True, resamples=50, seed=seed)
    assert low == pytest.approx(shift, abs=1e-12) and high == pytest.approx(shift, abs=1e-12)
    a, b = values, np.random.default_rng(seed + 1).random(count)
    low, high = bootstrap_difference(a, b, paired=True, resamples=200, seed=seed)
    back = bootstrap_difference(b, a, paired=True, resamples=200, seed=seed)
    assert low <= high and back == pytest.approx((-high, -low))


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        a = rng.random(60)
        b = 0.5 * a + 0.1 + 0.2 * rng.random(60)  # mean difference: 0.45 - 0.5
        low, high = bootstrap_difference(a, b, paired=True, resamples=200, seed=trial)
        covered += low <= -0.05 <= high
    assert 176 <= covered <= 199


def test_paired_intervals_on_real_runs(tmp_path):
    """One model against itself is no different; against another space's run the images still pair."""
    import stabilitykit

    for name, seed in (("one", 0), ("two", 0)):
        stabilitykit.evaluate(
            "resnet18-digits",
            "digits",
            ["expansivity:curve=3,median_pairs=2000"],
            limit=80,
            seed=seed,
            output=tmp_path / name,
        )
    found = compare([tmp_path / "one", tmp_path / "two"], paired=True, subsamples=5, resamples=100)
    label = found.rows[0].property
    constant = row(found, "expansive_constant.min", label).entries[1].interval
    assert (constant.low, constant.high, constant.of, constant.paired) == (1.0, 1.0, "ratio", True)
    accuracy = row(found, "accuracy", label).entries[1].interval
    assert (accuracy.low, accuracy.high, accuracy.of, accuracy.method) == (0.0, 0.0, "difference", "bootstrap")
    normalised = row(found, "expansive_constant.min.normalised", label).entries[1].interval
    assert (normalised.low, normalised.high, normalised.of) == (1.0, 1.0, "ratio")
    assert "not a confidence interval" in constant.covers and "N/2 = 40" in constant.covers
    assert row(found, "accuracy", label).entries[1].change.real is False
    assert "too few images" in row(found, "expansive_constant.min", label).entries[1].change.rule
    stabilitykit.evaluate(
        "resnet18-digits",
        "digits",
        ["expansivity:curve=3,median_pairs=2000"],
        limit=60,
        seed=1,
        output=tmp_path / "three",
    )
    found = compare([tmp_path / "one", tmp_path / "three"], paired=True, subsamples=5, resamples=100)
    unpaired = row(found, "accuracy", label).entries[1].interval
    assert not unpaired.paired and unpaired.low < unpaired.high and math.isfinite(unpaired.high)
    assert any("not paired" in w for w in found.warnings)
    # Other images and another N are another sample of one dataset: no obstacle, the intervals allow for it.
    assert (
        row(found, "prediction_depth.mean", label).entries[1].change.rule.startswith("real where 0 lies outside a 95 %")
    )


def changed(run, edit):
    folder = RunFolder(run)
    for cell in folder.read_cells():
        edit(cell.record)
        folder.write_cell(cell)


def test_any_setting_that_differs_is_said(tmp_path):
    runs = [make_run(tmp_path / name, failed=False) for name in ("a", "b")]
    assert compare(runs).warnings == []
    for run, pairs in zip(runs, ("labels", "distinct")):
        options = {"pairs": pairs, "show": 6}
        changed(run, lambda r, o=options: r.update(property={"name": "expansivity", "options": o}))
    [text] = compare(runs).warnings
    assert "option pairs of expansivity differs: labels in a" in text and "distinct in b" in text
    assert compare(runs).obstacle(1, "expansivity") == "not comparable: other option pairs of expansivity"
    assert compare(runs).obstacle(1, "shadowing") == ""  # its rows are comparable all the same
    changed(runs[1], lambda r: r.update(device="cuda", model={**r["model"], "preprocessing": {"resize": 64}}))
    found = compare(runs)
    assert any(w.startswith("preprocessing") for w in found.warnings)
    assert "preprocessing" in found.obstacle(1, "shadowing")
    assert any("device" in w and "1e-6" in w for w in found.warnings) and "device" not in found.obstacle(1, "x")


@pytest.mark.parametrize(("name", "a", "b"), [("new_one", 1, 2), ("a_switch", False, True), ("words", "x", None)])
def test_a_setting_that_nobody_thought_of_is_said_too(tmp_path, name, a, b):
    """Whatever a record holds beside network, images, machine and outcome is a setting: there is no list of them."""
    runs = [make_run(tmp_path / run, failed=False) for run in ("a", "b")]
    for run, value in zip(runs, (a, b)):
        changed(run, lambda r, v=value: r.update({name: {"deep": [v]}}))
    found = compare(runs)
    [text] = found.warnings
    assert f"differs: {a} in" in text and f"{b} in" in text
    assert "not comparable" in found.obstacle(1, "any") and name.replace("_", " ") in found.obstacle(1, "any")
    changed(runs[1], lambda r: r.pop(name))  # written before that setting existed: said, but nobody can tell
    found = compare(runs)
    assert "not recorded" in found.warnings[0] and found.obstacle(1, "any") == ""


def test_other_images_of_one_dataset_are_no_obstacle_but_other_data_are(tmp_path):
    runs = [make_run(tmp_path / "a", failed=False), make_run(tmp_path / "b", count=300, failed=False)]
    for run in runs:
        changed(run, lambda r: r.update(limit=r["n"], dataset={**r["dataset"], "size": 1000}))
    found = compare(runs)
    assert any("N differs" in w for w in found.warnings) and found.obstacle(1, "expansivity") == ""
    changed(runs[1], lambda r: r.update(dataset={**r["dataset"], "fingerprint": "other"}))
    assert compare(runs).obstacle(1, "expansivity") == "not comparable: other images"


def test_another_code_or_machine_is_said_and_decides_nothing(tmp_path):
    runs = [make_run(tmp_path / name, failed=False) for name in ("a", "b")]
    path = runs[1] / "run.json"
    info = json.loads(path.read_text())
    info["provenance"] = {**info.get("provenance", {}), "packages": {"torch": "0.1"}}
    path.write_text(json.dumps(info))
    found = compare(runs)
    assert any("code or machine differs" in w and "0.1" in w for w in found.warnings) and found.obstacle(1, "x") == ""


def test_a_change_is_real_where_its_interval_leaves_out_no_change():
    def interval(of, low, high, confidence=True):
        return Interval(of, low, high, "m", 16, True, "a 95 % confidence interval of it", confidence)

    assert judge(interval("ratio", 1.1, 1.3)).real is True
    assert judge(interval("ratio", 0.9, 1.3)).real is False
    assert judge(interval("ratio", 0.7, 0.9)).real is True
    assert judge(interval("difference", 0.9, 1.3)).real is True
    assert judge(interval("difference", -0.9, 1.3)).words == "within chance"
    assert judge(interval("difference", 0.9, 1.3, confidence=False)).real is False
    stopped = judge(interval("ratio", 1.1, 1.3), "not comparable: other space")
    assert stopped.real is None and stopped.rule == "not comparable: other space"
    assert judge(None).real is None and "too few images" in judge(None).rule
    assert "confidence interval of it" in judge(interval("ratio", 2, 3)).rule


@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=25)
def test_too_few_differing_images_are_never_a_real_change(differing, seed):
    """Five images of 100 that all got better: the bootstrap leaves out 0, the sign test says p = 1/16."""
    a = np.zeros(100)
    b = np.where(np.random.default_rng(seed).permutation(100) < differing, 1.0, 0.0)
    found = of_means(a, b, paired=True, resamples=200, seed=0)
    assert found.confidence is (2 * 0.5**differing < 0.05)
    assert judge(found).real is (differing >= 6)


@settings(deadline=None, max_examples=20)
@given(st.integers(3, 20), st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_block_interval_is_scipys_and_follows_the_ratios(count, seed, factor):
    ratios = np.exp(np.random.default_rng(seed).normal(size=count))
    low, high = block_interval(ratios)
    expected = stats.ttest_1samp(np.log(ratios), 0.0).confidence_interval(0.95)
    assert np.log([low, high]) == pytest.approx([expected.low, expected.high])
    assert block_interval(1 / ratios) == pytest.approx((1 / high, 1 / low))
    assert block_interval(ratios * factor) == pytest.approx((factor * low, factor * high))


def test_block_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    ratios = (rng.exponential(size=(200, 16)) / rng.exponential(size=(200, 16))) ** 0.2  # of minima; mean log 0
    covered = sum(low <= 1 <= high for low, high in map(block_interval, ratios))
    assert 0.9 * 200 <= covered <= 0.99 * 200


class Blocks:
    """A property whose value over rows is a known function of them, and a context of so many images."""

    def __init__(self, values):
        self.values, self.seen = values, []

    def per_image(self, context):
        return {"mean": self.values}

    def on_subset(self, context, rows):
        self.seen.append(rows)
        return {"smallest": float(self.values[rows].min()), "mean": 1.0}


@pytest.mark.parametrize("same", [True, False])
def test_blocks_are_disjoint_and_paired_where_the_images_are_the_same(same):
    rng = np.random.default_rng(1)
    values = rng.random(330) + 0.5
    a, b = Blocks(values), Blocks(3 * values if same else 3 * (rng.random(500) + 0.5))
    contexts = [SimpleNamespace(indices=np.arange(len(p.values))) for p in (a, b)]
    both = Both((a, contexts[0]), (b, contexts[1]), same, 0, no_progress)
    found = both.over_blocks()["smallest"]
    for prop in (a, b):
        assert [len(rows) for rows in prop.seen] == [20] * 16
        assert len(np.unique(np.concatenate(prop.seen))) == 320
    assert all(np.array_equal(x, y) for x, y in zip(a.seen, b.seen)) is same
    logs = [np.log(b.values[y].min() / a.values[x].min()) for x, y in zip(a.seen, b.seen)]
    assert (found.low, found.high) == pytest.approx(block_interval(np.exp(logs)))
    assert found.confidence and found.paired is same and "ratio over 20 such images, not over N" in found.covers
    assert both.spread(3)["smallest"].confidence is False
    for prop in (a, b):  # a constant of 0 has no ratio, in whichever of the two it is
        kept, prop.values = prop.values, np.where(np.arange(len(prop.values)) == prop.seen[3][0], 0.0, prop.values)
        assert "smallest" not in both.over_blocks()
        prop.values = kept
    few = SimpleNamespace(indices=np.arange(319))
    assert (
        "smallest" in both.over_blocks() and not Both((a, contexts[0]), (b, few), False, 0, no_progress).over_blocks()
    )
