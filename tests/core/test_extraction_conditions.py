"""One object says how trajectories are extracted: every field of it counts wherever two numbers are compared."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace

import numpy as np
import pytest

import stabilitykit
from stabilitykit.base.files import read_json, write_json
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.evaluation.cache import content_key
from stabilitykit.evaluation.evaluate import evaluate
from stabilitykit.evaluation.settings import Settings
from stabilitykit.review.compare import compare
from stabilitykit.review.verify import verify
from stabilitykit.testing.fixtures import TinyDataset, TinyModel

OTHER = {
    "readout": "probe",
    "space": "logits",
    "batch_size": 7,
    "dtype": "bfloat16",
    "channels_last": True,
    "compile": True,
}
KEYS = [("extract_dtype" if name == "dtype" else name) for name in OTHER]


def test_every_field_has_another_value_to_try():
    assert [entry.name for entry in fields(Extraction)] == list(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_a_record_names_every_field_and_gives_it_back(name):
    other = replace(Extraction(), **{name: OTHER[name]})
    assert list(other.record()) == KEYS
    assert Extraction.from_record(other.record()) == other != Extraction.from_record({})
    settings = Settings(other, seed=3, limit=5, probe_epochs=2, any_classes=True)
    assert Settings.from_request(settings.request()) == settings


@pytest.mark.parametrize("name", OTHER)
def test_logits_are_kept_apart_unless_only_the_space_or_the_readout_differs(name):
    """(A readout stands in the key by its own fingerprint.)"""
    other = replace(Extraction(), **{name: OTHER[name]})
    same = content_key(other.logits_record()) == content_key(Extraction().logits_record())
    assert same == (name in ("space", "readout"))


def test_plain_takes_back_what_is_only_faster():
    asked = Extraction(**OTHER)
    assert asked.plain == Extraction("probe", "logits", 7)
    assert asked.faster == "bfloat16 NHWC compiled" and asked.plain.faster == ""
    assert Extraction(dtype="float64").plain.dtype == "float64"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    evaluate("resnet18:seed=0", "digits", "expansivity", limit=20, batch_size=10, cache=False, output=folder)
    return folder


def edited(run, folder, edit):
    """A copy of ``run`` with ``edit`` applied to the record of every cell."""
    shutil.copytree(run, folder)
    for path in (folder / "cells").glob("*.json"):
        cell = read_json(path)
        edit(cell["record"])
        write_json(path, cell)
    return folder


@pytest.mark.parametrize("key,value", [*zip(KEYS, OTHER.values()), ("n", 19), ("seed", 1), ("limit", 19)])
def test_verify_and_compare_see_every_condition(run, tmp_path, key, value):
    other = edited(run, tmp_path / "other", lambda record: record.update({key: value}))
    verdicts = verify(other)
    assert {v.status for v in verdicts if v.reported is not None} == {"fails"}
    assert all(f"{key} was {value}" in v.message for v in verdicts if v.reported is not None)
    if key not in ("seed", "limit"):
        words = {"n": "N", **{k: w for k, (w, _) in Extraction.conditions().items()}}[key]
        assert any(text.startswith(f"{words} differs: ") for text in compare([run, other]).warnings)


def test_records_that_know_no_newer_condition_are_taken_as_the_default(run, tmp_path):
    older = edited(run, tmp_path / "older", lambda record: [record.pop(key) for key in ("channels_last", "compile")])
    assert not compare([run, older]).warnings


def test_what_python_is_asked_for_reaches_the_record_by_the_names_of_options(tmp_path):
    asked = {"space": "logits", "batch_size": 7, "extract_dtype": "float64", "channels_last": True}
    done = stabilitykit.evaluate(TinyModel(), TinyDataset(), "expansivity", cache=False, output=tmp_path / "r", **asked)
    assert done.ok
    run = read_json(tmp_path / "r" / "run.json")
    record = done.cells[0].record
    for key, value in {**Extraction().record(), **asked}.items():
        assert run["request"][key] == value == record[key]
    assert np.isfinite(done["expansivity"].measurements[0].value)
