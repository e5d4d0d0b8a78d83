"""The study of what the numbers predict: its statistics against other ways to them, and all of it on small networks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LinearRegression

from tests.examples.modules import modules_of

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "validity"


@pytest.fixture()
def validity():
    """The modules of the example by name."""
    with modules_of(EXAMPLE) as modules:
        yield modules


def test_row_rhos_are_scipys(validity):
    draw = np.random.default_rng(0)
    x, y = draw.integers(0, 6, (20, 12)).astype(float), draw.normal(size=(20, 12))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y)]
    np.testing.assert_allclose(validity.correlations.row_rhos(x, y), expected, atol=1e-12)


def test_partial_is_the_correlation_of_residuals_of_ranks(validity):
    draw = np.random.default_rng(1)
    given = draw.normal(size=30)
    x, y = given + draw.normal(size=30), given + draw.normal(size=30)
    ranks = [stats.rankdata(v) for v in (x, y, given)]
    fitted = [LinearRegression().fit(ranks[2][:, None], r).predict(ranks[2][:, None]) for r in ranks[:2]]
    expected = stats.pearsonr(ranks[0] - fitted[0], ranks[1] - fitted[1]).statistic
    r, p = validity.correlations.partial(x, y, given)
    assert r == pytest.approx(expected)
    # With one thing held fixed the textbook's formula holds, too.
    a, b, c = (stats.spearmanr(u, v).statistic for u, v in ((x, y), (x, given), (y, given)))
    assert r == pytest.approx((a - b * c) / math.sqrt((1 - b * b) * (1 - c * c)))
    assert 0 < p < 1


def test_partial_of_what_the_baseline_determines_is_nothing(validity):
    x = np.arange(12.0)
    assert math.isnan(validity.correlations.partial(x, np.random.default_rng(2).normal(size=12), x**3)[0])


def test_interval_covers_about_as_often_as_it_says(validity):
    draw = np.random.default_rng(3)
    covered = 0
    for seed in range(60):
        x = draw.normal(size=24)
        y = 0.7 * x + math.sqrt(1 - 0.49) * draw.normal(size=24)
        found = validity.correlations.spearman(x, y, seed=seed, resamples=200)
        covered += found.low <= 6 / math.pi * math.asin(0.7 / 2) <= found.high
    assert 48 <= covered <= 60


def test_q_is_benjamini_and_hochbergs_step_up(validity):
    p = np.array([0.01, math.nan, 0.04, 0.03, 0.5])
    ordered = np.array([0.01, 0.03, 0.04, 0.5])
    steps = np.minimum.accumulate((ordered * 4 / np.arange(1, 5))[::-1])[::-1]
    found = validity.correlations.corrected(p)
    assert math.isnan(found[1])
    np.testing.assert_allclose(found[[0, 3, 2, 4]], steps)


def test_few_networks_or_a_constant_number_give_no_rho(validity):
    x = np.arange(20.0)
    assert math.isnan(validity.correlations.spearman(x[:7], x[:7]).rho)
    assert math.isnan(validity.correlations.spearman(x, np.ones(20)).rho)


def test_calibration_error_by_hand(validity):
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    # Confidence 0.9, half right; confidence 0.6, all right.
    assert validity.simple.calibration_error(sure, np.array([0, 1, 1, 1])) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)


def test_gradient_norms_and_spectral_product_of_a_linear_network(validity):
    torch.manual_seed(0)
    linear = torch.nn.Linear(12, 4)
    images = torch.rand(5, 3, 2, 2).numpy()
    labels = np.array([0, 1, 2, 3, 0])
    found = validity.simple.gradient_norms(torch.nn.Sequential(torch.nn.Flatten(), linear), images, labels)
    weight = linear.weight.detach().double().numpy()
    p = torch.softmax(linear(torch.from_numpy(images).flatten(1)), 1).detach().double().numpy()
    np.testing.assert_allclose(found, np.linalg.norm((p - np.eye(4)[labels]) @ weight, axis=1), rtol=1e-4)
    assert validity.simple.spectral_product(linear) == pytest.approx(math.log(np.linalg.svd(weight)[1][0]))


def test_noisy_labels_are_wrong_in_that_share_and_nested(validity):
    labels = np.arange(1000) % 10
    few, many = (validity.image_sets.with_noise(labels, share, 10) for share in (0.1, 0.3))
    assert (few != labels).sum() == 100 and (many != labels).sum() == 300
    assert (few == many)[few != labels].all()


def test_the_attack_of_the_trainings_stays_in_its_ball(validity):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    batch, truth = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0, 1])
    draw = torch.Generator().manual_seed(0)
    moved = validity.trainings.fast_attack(network, batch, truth, 0.1, draw)
    assert (moved - batch).abs().max() <= 0.1 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    loss = torch.nn.functional.cross_entropy
    assert loss(network(moved), truth) > loss(network(batch), truth)


def row(number: str, group: str, rho: float, q: float, subset: str = "all") -> dict:
    cell = {"number": number, "outcome": "pgd", "group": group, "subset": subset, "rho": rho, "q": q, "p": q, "n": 9}
    return {**cell, "partial": rho, "partial q": 1.0, "partial p": 1.0, "low": -1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("second", "holds"), [((0.8, 0.01), True), ((-0.8, 0.01), False), ((0.8, 0.2), False), (None, False)]
)
def test_a_number_holds_where_every_group_agrees(validity, second, holds):
    found = [row("head: x", "a", 0.9, 0.001)] + ([] if second is None else [row("head: x", "b", *second)])
    (verdict,) = validity.across.verdicts(found)
    assert verdict["holds"] is holds and verdict["beyond accuracy"] is False


def test_hypotheses_say_held_opposite_and_nothing(validity, tmp_path):
    stated = tmp_path / "h.toml"
    entry = '[[hypothesis]]\nnumber = "head: {}"\noutcome = "pgd"\nsign = 1\nbecause = "so"\n'
    stated.write_text("".join(entry.format(name) for name in "abcd"))
    found = [row("head: a", "g", 0.9, 1e-4), row("head: b", "g", -0.9, 1e-4), row("head: c", "g", 0.1, 0.9)]
    results = [r["result"] for r in validity.across.hypotheses(stated, found)]
    assert results == ["held", "the opposite", "nothing seen", "not measured"]


def test_a_page_is_filled_between_its_marks_and_nowhere_else(validity, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin: a -->\nold\n<!-- end: a -->\nafter\n")
    for _ in range(2):
        validity.study_page.write_page(page, {"a": "new"})
    assert page.read_text() == "before\n<!-- begin: a -->\n\nnew\n\n<!-- end: a -->\nafter\n"


@pytest.mark.slow
def test_quick_twice_gives_the_same_tables(validity, tmp_path):
    for name in ("one", "other"):
        assert validity.study.main(["--quick", "--work", str(tmp_path / name)]) == 0
    files = sorted(path.name for path in (tmp_path / "one" / "tables").iterdir())
    assert {"networks.csv", "constants.csv", "correlations.csv", "hypotheses.csv"} <= set(files)
    for name in files:
        assert (tmp_path / "one/tables" / name).read_bytes() == (tmp_path / "other/tables" / name).read_bytes(), name
