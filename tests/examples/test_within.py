"""The study of numbers of single images: its statistics against scikit-learn and brute force, and what it tells."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stabilitykit.base.errors import UsageProblem
from stabilitykit.reporting.evidence import evidence, markdown, seen_to_predict
from tests.examples.modules import modules_of

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "validity"


@pytest.fixture(scope="module")
def study():
    """The modules of the example by name."""
    with modules_of(EXAMPLE) as modules:
        yield modules


def drawn(seed: int, count: int = 60, effect: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and a target that they say something of."""
    draw = np.random.default_rng(seed)
    target = np.r_[np.ones(count // 3), np.zeros(count - count // 3)]
    return np.round(draw.normal(size=count) + effect * target, 1), target


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_auroc_is_that_of_scikit_learn(study, seed):
    scores, target = drawn(seed)
    found = study.image_statistics.auroc(scores, target)
    assert found.value == pytest.approx(roc_auc_score(target, scores), abs=1e-12)
    assert 0 <= found.low < found.value < found.high <= 1
    turned = study.image_statistics.auroc(-scores, target)
    assert (turned.value, turned.low) == pytest.approx((1 - found.value, 1 - found.high))
    assert turned.p == pytest.approx(found.p)


def test_delong_agrees_with_the_bootstrap(study):
    (scores, target), (other, _) = drawn(0, 300), drawn(1, 300, 0.5)
    draw = np.random.default_rng(2)
    rows = [np.r_[draw.integers(0, 100, 100), draw.integers(100, 300, 200)] for _ in range(400)]
    firsts, seconds = (
        [study.image_statistics.placements(values[r], target[r])[0].mean() for r in rows] for values in (scores, other)
    )
    one = study.image_statistics.auroc(scores, target)
    both = study.image_statistics.difference(scores, other, target)
    assert both.value == pytest.approx(roc_auc_score(target, scores) - roc_auc_score(target, other))
    for estimate, resampled in ((one, firsts), (both, np.subtract(firsts, seconds))):
        assert (estimate.low, estimate.high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.02)


def test_a_number_that_says_nothing_adds_nothing_and_one_that_does_adds(study):
    draw = np.random.default_rng(3)
    target = np.r_[np.ones(60), np.zeros(240)]
    base, news = (1.5 * target + draw.normal(size=300) for _ in range(2))
    noise = draw.normal(size=300)
    foretold = study.image_statistics.foretold
    alone = foretold(base[:, None], target, 0)
    assert np.array_equal(alone, foretold(base[:, None], target, 0))
    assert np.allclose(alone, foretold(1e9 * base[:, None] - 7, target, 0))  # units do not count
    added = [
        study.image_statistics.difference(foretold(np.c_[base, x], target, 0), alone, target) for x in (news, noise)
    ]
    assert added[0].low > 0 and abs(added[1].value) < 0.02


def test_baselines_by_hand(study):
    logits, labels = np.log([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]), np.array([0, 1])
    found = study.image_scores.baselines(logits, labels)
    assert found["margin"] == pytest.approx([0.5, 0.3]) and found["confidence"] == pytest.approx([0.7, 0.6])
    assert found["entropy"][0] == pytest.approx(-(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)))
    assert found["label_probability"] == pytest.approx([0.7, 0.3])
    assert found["label_margin"] == pytest.approx([np.log(3.5), -np.log(2)])


def test_pixel_ratio_is_brute_force(study):
    draw = np.random.default_rng(4)
    images, labels = draw.random((40, 1, 3, 3)).astype(np.float32), np.r_[draw.integers(0, 3, 39), 7]
    flat = images.reshape(40, -1).astype(np.float64)
    apart = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    same = labels[:, None] == labels
    wanted = np.where(same, apart, np.inf).min(1) / np.where(same, np.inf, apart).min(1)
    assert np.allclose(study.image_scores.pixel_ratio(images, labels), wanted, rtol=1e-5)
    assert np.isinf(wanted[-1])


def test_an_attack_splits_those_that_were_right(study, monkeypatch):
    falls = np.array([0.0, 1, 2, 2, 3, np.inf, 1, 2])  # the first is wrong unattacked, the last two are not attacked

    def attacked(member, images, labels, eps):
        return SimpleNamespace(smallest=np.where(images > eps[0], np.inf, np.where(images == 0, 0.0, eps[0])))

    monkeypatch.setattr(study.harms, "attacked", attacked)
    found = study.image_targets.attacked_first(SimpleNamespace(attack_eps=(1, 2, 3, 4)), falls, falls, 6)
    assert np.array_equal(found, [np.nan, 1, 1, 1, 0, 0, np.nan, np.nan], equal_nan=True)


def rows_of(study, networks: int = 3) -> list[dict]:
    """Tables of made networks in which certified_radius finds what is wrong, no better than margin, and
    prediction_depth is noise."""
    rows = []
    for number in range(networks):
        draw = np.random.default_rng(number)
        wrong = np.r_[np.ones(40), np.zeros(160)]
        doubt = 1.5 * wrong + draw.normal(size=200)
        scores = {"margin": -doubt, "confidence": -doubt, "entropy": doubt + draw.normal(size=200)}
        scores |= {"certified_radius": -doubt - 0.3 * draw.normal(size=200), "prediction_depth": draw.normal(size=200)}
        scores["tracing_error"] = np.full(200, np.nan)
        few = np.r_[np.ones(9), np.zeros(191)]
        rows += study.within.compared(
            f"net{number}", {"scores": scores, "targets": {"wrong": wrong, "flips.bf16": few}}
        )
    return rows


def test_from_images_to_what_the_report_says(study, tmp_path):
    rows = study.within.corrected_rows(rows_of(study))
    few = [row for row in rows if row["number"] == "too few"]
    assert len(few) == 3 and all(row["target"] == "flips.bf16" and row["found"] == 9 for row in few)
    assert not any(row["number"] == "tracing_error" for row in rows)  # undefined everywhere
    verdicts = {row["number"]: row for row in study.within.verdicts(rows)}
    radius, depth = verdicts["certified_radius"], verdicts["prediction_depth"]
    assert radius["finds"] and radius["confirmed in"] == 3 and not radius["adds"] and radius["auroc"] > 0.75
    assert not depth["finds"] and depth["worse in"] == 3

    page, file = tmp_path / "numbers.md", tmp_path / "evidence.json"
    tables = {"verdicts": [], "correlations": [], "images-verdicts": list(verdicts.values())}
    page.write_text("no marks")
    with pytest.raises(UsageProblem, match="begin: evidence"):
        study.evidence_of_study.write_evidence(tables, file, page)
    assert not file.exists()
    page.write_text("above\n<!-- begin: evidence -->\nold\n<!-- end: evidence -->\nbelow\n")
    study.evidence_of_study.write_evidence(tables, file, page)
    (entry,) = evidence(file)
    assert (entry.number, entry.scope) == ("certified_radius", "images")
    assert f"AUROC {radius['auroc']:.2f}" in entry.text and "120 of 600 images" in entry.text
    text = page.read_text()
    assert markdown([entry]) in text and text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    assert entry.text in seen_to_predict("certified_radius", "head", [entry])


def test_what_held_across_networks_becomes_an_entry_with_its_figure(study):
    verdict = {"outcome": "noise", "holds": True, "same thing": False, "beyond accuracy": False}
    verdict |= {"number": "lens: Sh_exact", "without adversarial": True}
    cells = [{"number": "lens: Sh_exact", "outcome": "noise", "subset": "all", "rho": r, "n": 9} for r in (0.7, 0.9)]
    others = [{**verdict, "number": "baseline: margin"}, {**verdict, "holds": False}, {**verdict, "same thing": True}]
    (entry,) = study.evidence_of_study.across_entries([verdict, *others], cells)
    assert (entry.number, entry.readout, entry.target) == ("Sh_exact", "lens", "accuracy under noise")
    assert "+0.70 and +0.90 (9 and 9 networks)" in entry.text and "not shown beyond accuracy" in entry.text


def test_the_hypotheses_name_every_number_once(study):
    names = [entry["name"] for entry in study.within.hypotheses()]
    assert len(set(names)) == len(names)
    assert {*study.image_scores.COLUMNS, "local_expansion", "outlying_ratio"} == set(names)
    assert all(entry["images"] in ("low", "high") and entry["because"] for entry in study.within.hypotheses())
