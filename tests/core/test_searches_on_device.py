"""`--device` reaches the searches of every property, of a run and of its verification, and changes no number."""

from __future__ import annotations

import json

import pytest
from stabilitykit_shadowing import exact_device

import stabilitykit
from stabilitykit.evaluation import evaluate as evaluation
from stabilitykit.review import verify as verification
from stabilitykit.search import device_of_searches
from stabilitykit.search.device import nearest, pairs


def results(folder):
    return {p.name: json.loads(p.read_text())["result"] for p in sorted((folder / "cells").glob("*.json"))}


def test_a_run_whose_searches_are_on_a_device_has_the_same_numbers(tmp_path, monkeypatch):
    asked = ("resnet18-digits", "digits", ["expansivity", "shadowing"])
    given = {"limit": 30, "cache": False, "device": "cpu"}
    stabilitykit.evaluate(*asked, **given, output=tmp_path / "plain")
    used = []

    def spied(module, name):
        plain = getattr(module, name)

        def spy(*arguments, **options):
            used.append(name)
            return plain(*arguments, **options)

        monkeypatch.setattr(module, name, spy)

    for module, name in ((pairs, "find"), (nearest, "nearest"), (exact_device, "DeviceSets")):
        spied(module, name)
    for module in (evaluation, verification):
        monkeypatch.setattr(module, "searchable", lambda kind, index=None: kind)
    stabilitykit.evaluate(*asked, **given, output=tmp_path / "device")
    assert set(used) == {"find", "nearest", "DeviceSets"}
    assert results(tmp_path / "device") == results(tmp_path / "plain")

    class Reached(Exception):
        pass

    def reached(*arguments):
        raise Reached(device_of_searches(1))

    monkeypatch.setattr(verification, "measured_pairs", reached)
    with pytest.raises(Reached, match=r"^cpu$"):
        verification.verify(tmp_path / "plain")
