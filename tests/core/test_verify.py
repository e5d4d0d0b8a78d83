"""Verification is green on what was measured and red when a weight, an image, a label or a number is altered."""

import json

import pytest

import stabilitykit
from stabilitykit import Component, Option
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.review.verify import verify


@pytest.fixture
def registry():
    def component(kind, name, target, *options):
        return Component(kind, name, target, "", options=options, distribution="d")

    fixtures = "stabilitykit.testing.fixtures"
    return Registry(
        PluginHost(
            components=[
                component("model", "tiny", f"{fixtures}:TinyModel", Option("seed", "int", 0)),
                component("dataset", "tiny", f"{fixtures}:TinyDataset", Option("seed", "int", 0)),
                component("property", "spread", "tests.core.test_evaluation:Spread"),
                component("property", "prints", "tests.core.test_evaluation:Prints"),
            ]
        )
    )


@pytest.fixture
def folder(registry, tmp_path):
    stabilitykit.evaluate(
        "tiny", "tiny", ["spread", "prints"], registry=registry, cache=False, output=tmp_path / "run", limit=13
    )
    return tmp_path / "run"


def test_green(registry, folder):
    verdicts = {v.property: v for v in verify(folder, registry=registry)}
    assert verdicts["spread"].status == "stands" and verdicts["spread"].difference == 0.0
    assert verdicts["prints"].status == "stands"  # has no witness: measured again
    assert {v.property: v.status for v in verify(folder, registry=registry, witnesses_only=True)} == {
        "spread": "stands",
        "prints": "not recomputed",
    }


@pytest.mark.parametrize("what", ["weights", "images", "number", "witness"])
def test_red(registry, folder, what, monkeypatch):
    from stabilitykit.testing import fixtures

    cell = next((folder / "cells").glob("*spread*"))
    data = json.loads(cell.read_text())
    measurement = data["result"]["measurements"][0]
    if what == "weights":
        plain = fixtures.TinyModel.__init__
        monkeypatch.setattr(fixtures.TinyModel, "__init__", lambda self, seed: plain(self, seed=seed + 1))
    elif what == "images":
        plain = fixtures.TinyDataset.__init__

        def altered(self, seed):
            plain(self, seed=seed)
            self._images[5, 0, 0, 0] += 0.01

        monkeypatch.setattr(fixtures.TinyDataset, "__init__", altered)
    elif what == "number":
        measurement["value"] *= 1 + 1e-6
    else:
        now = measurement["witness"]["indices"][0]
        measurement["witness"]["indices"] = [next(i for i in _evaluated(13).tolist() if i != now)]
    cell.write_text(json.dumps(data))
    verdict = next(v for v in verify(folder, registry=registry) if v.property == "spread")
    assert verdict.status == "fails" and verdict.message


def _evaluated(limit):
    from stabilitykit.evaluation.subject import choose_indices

    return choose_indices(24, limit, 0)
