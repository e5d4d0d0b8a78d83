"""Identity is what a network computes: neither the cache nor --resume gives one network the numbers of another."""

import json
import shutil

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit import Kind, Measurement, PropertyResult
from stabilitykit.evaluation.cache import TrajectoryCache
from stabilitykit.evaluation.proof import Proof
from stabilitykit.evaluation.property import Property
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry
from stabilitykit.testing.fixtures import TinyDataset, TinyModel

SHAPE, BATCH = (3, 50, 2), 10


class Network:
    """Rows of a table, computed in batches; counts them."""

    def __init__(self, seed=0, changed=()):
        self.truth = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
        for row in changed:
            self.truth[1, row, 0] = np.nextafter(self.truth[1, row, 0], np.float32(9))  # one bit
        self.filled, self.computed, self.stop = [], [], None

    def fill(self, out, start, on_batch):
        self.filled.append(start)
        for row in range(start, SHAPE[1], BATCH):
            if self.stop is not None and row >= self.stop:
                raise KeyboardInterrupt
            out[:, row : row + BATCH] = self.truth[:, row : row + BATCH]
            on_batch(row + BATCH)

    def proof(self, **options):
        def compute(start, stop):
            self.computed.append((start, stop))
            return self.truth[:, start:stop].copy()

        return Proof(compute, SHAPE[1], BATCH, **options)

    def get(self, cache, record=None, **options):
        return cache.get({"a": 1} if record is None else record, SHAPE, self.fill, "float32", self.proof(**options))


@pytest.fixture(autouse=True)
def _flush_always(monkeypatch):
    monkeypatch.setattr("stabilitykit.evaluation.cache.FLUSH_SECONDS", 0.0)


def test_a_hit_costs_two_whole_batches_and_a_miss_none(tmp_path):
    network, cache = Network(), TrajectoryCache(tmp_path)
    network.get(cache)
    assert network.computed == []
    array, info = network.get(cache)
    assert info["hit"] and np.array_equal(array, network.truth) and network.filled == [0]
    assert len(network.computed) == 2 and (0, 10) in network.computed
    assert all(start % BATCH == 0 and stop == start + BATCH for start, stop in network.computed)


def test_repeated_use_looks_at_every_batch(tmp_path):
    network, cache = Network(), TrajectoryCache(tmp_path)
    for _ in range(40):
        network.get(cache)
    assert {start for start, _ in network.computed} == {0, 10, 20, 30, 40}


@pytest.mark.parametrize("row", [0, 9])
def test_another_network_of_the_same_address_gets_its_own_numbers_and_both_stay(tmp_path, capsys, row):
    first, second, cache = Network(), Network(changed=[row]), TrajectoryCache(tmp_path)
    first.get(cache)
    array, info = second.get(cache)
    assert not info["hit"] and np.array_equal(array, second.truth)
    assert capsys.readouterr().err.count("does not reproduce") == 1
    for network in (first, second, first, second):  # no endless extraction
        array, info = network.get(cache)
        assert info["hit"] and np.array_equal(array, network.truth)
    assert first.filled == second.filled == [0] and capsys.readouterr().err == ""


def test_a_difference_in_any_batch_is_found_sooner_or_later(tmp_path):
    first, second, cache = Network(), Network(changed=[25]), TrajectoryCache(tmp_path)
    first.get(cache)
    for _ in range(200):
        array, _ = second.get(cache)
        if np.array_equal(array, second.truth):
            return
    raise AssertionError("200 random batches of five never were the third")


@pytest.mark.parametrize("row", [0, 9, 40, 49])
def test_a_digest_sees_the_first_and_the_last_batch(row):
    first, second = Network(), Network(changed=[row])
    digests = [network.proof().digest() for network in (first, second)]
    assert digests[0] != digests[1]
    assert digests == [network.proof().digest(network.truth) for network in (first, second)]
    assert first.computed == [(0, 10), (40, 50)]


def test_many_networks_of_one_address_take_bounded_room(tmp_path):
    cache = TrajectoryCache(tmp_path)
    for seed in range(20):
        array, _ = Network(seed).get(cache)
        assert np.array_equal(array, Network(seed).truth)
    assert len(list(tmp_path.rglob("logits.npy"))) == 8


def test_an_interrupted_extraction_is_gone_on_with_by_its_own_network_only(tmp_path):
    first, second, cache = Network(), Network(changed=[3]), TrajectoryCache(tmp_path)
    first.stop = 30
    with pytest.raises(KeyboardInterrupt):
        first.get(cache)
    array, _ = second.get(cache)
    assert second.filled == [0] and np.array_equal(array, second.truth)
    first.stop = None
    array, info = first.get(cache)
    assert first.filled == [0, 30] and info["resumed_from"] == 30 and np.array_equal(array, first.truth)


def test_without_a_lock_nobody_goes_on_with_what_another_may_be_filling(tmp_path, monkeypatch):
    network, cache = Network(), TrajectoryCache(tmp_path)
    network.stop = 30
    with pytest.raises(KeyboardInterrupt):
        network.get(cache)
    before = next(tmp_path.rglob("logits.npy")).read_bytes()
    monkeypatch.setattr("stabilitykit.base.locks.try_lock", lambda descriptor: None)
    network.stop = None
    array, info = network.get(cache)
    assert network.filled == [0, 0] and info["resumed_from"] is None and np.array_equal(array, network.truth)
    assert before in [path.read_bytes() for path in tmp_path.rglob("logits.npy")]


def entries(tmp_path):
    return sorted(path.parent for path in tmp_path.rglob("record.json"))


def test_swapped_entries_are_seen(tmp_path, capsys):
    first, second, cache = Network(0), Network(1), TrajectoryCache(tmp_path)
    first.get(cache, {"a": 1})
    second.get(cache, {"a": 2})
    one, two = entries(tmp_path)
    for name in ("logits.npy", "record.json"):
        shutil.move(one / name, tmp_path / "x")
        shutil.move(two / name, one / name)
        shutil.move(tmp_path / "x", two / name)
    for network, record in ((first, {"a": 1}), (second, {"a": 2})):
        # Even on its address alone: the record says another one.
        array, info = cache.get(record, SHAPE, network.fill)
        assert not info["hit"] and np.array_equal(array, network.truth)
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kept", [0, 1, 100, -2])
@pytest.mark.parametrize("name", ["logits.npy", "record.json"])
def test_truncated_files_are_made_again_with_one_line(tmp_path, capsys, name, kept):
    network, cache = Network(), TrajectoryCache(tmp_path)
    network.get(cache)
    path = entries(tmp_path)[0] / name
    path.write_bytes(path.read_bytes()[:kept])
    array, info = network.get(cache)
    assert not info["hit"] and np.array_equal(array, network.truth)
    assert "damaged" in (err := capsys.readouterr().err) and err.count("\n") == 1
    assert network.get(cache)[1]["hit"] and capsys.readouterr().err == ""


def test_a_forged_entry_with_a_fitting_digest_does_not_pass(tmp_path):
    forger, network, cache = Network(1), Network(0), TrajectoryCache(tmp_path)
    forger.get(cache)
    array, info = network.get(cache)
    assert not info["hit"] and np.array_equal(array, network.truth)


def test_a_device_that_drifts_is_allowed_what_was_recorded(tmp_path):
    """Not bit for bit, but within the drift seen at extraction; beyond it, another network."""
    cache, network = TrajectoryCache(tmp_path), Network()
    rng = np.random.default_rng(0)

    def drifting(scale):
        def compute(start, stop):
            part = network.truth[:, start:stop]
            return part + np.float32(scale) * rng.uniform(-1, 1, part.shape).astype(np.float32)

        return Proof(compute, SHAPE[1], BATCH, exact=False)

    cache.get({"a": 1}, SHAPE, network.fill, "float32", drifting(1e-6))
    drift = json.loads((entries(tmp_path)[0] / "record.json").read_text())["drift"]
    assert 0 < drift < 3e-6
    assert cache.get({"a": 1}, SHAPE, network.fill, "float32", drifting(1e-6))[1]["hit"]
    assert not cache.get({"a": 1}, SHAPE, network.fill, "float32", drifting(1e-3))[1]["hit"]


class Bent(TinyModel):
    """Equal weights, another function: an activation, a factor, other preprocessing; all set from outside."""

    def __init__(self, activation=torch.tanh, factor=1.0, shift=0.0):
        super().__init__()
        self.hidden = {"activation": activation, "factor": factor, "shift": shift}

    def preprocess(self, images):
        return super().preprocess(images) + self.hidden["shift"]

    def block(self, t, state):
        return state + self.hidden["activation"](super().block(t, state) - state)

    def readout(self, state):
        return super().readout(state) * self.hidden["factor"]


VARIANTS = ({}, {"activation": torch.relu}, {"factor": 3.0}, {"shift": 0.5})


class Largest(Property):
    """The largest readout."""

    def evaluate(self, context):
        values = context.trajectory.values
        return PropertyResult([Measurement("largest", float(np.abs(values).max()), Kind.EXACT, values.shape[1])])


def largest(options, **settings):
    given = {"space": "logits", "batch_size": 8, "registry": Registry(PluginHost()), **settings}
    return stabilitykit.evaluate(Bent(**options), TinyDataset(48), Largest(), **given).cells[0].result["largest"].value


def test_models_of_equal_weights_and_other_function_never_share(tmp_path, capsys):
    plain = [largest(options, cache=False) for options in VARIANTS]
    assert len(set(plain)) == len(VARIANTS)
    for _ in range(2):
        assert [largest(options, cache=tmp_path) for options in VARIANTS] == plain
    assert len(list(tmp_path.rglob("record.json"))) == len(VARIANTS)
    assert capsys.readouterr().err.count("does not reproduce") == len(VARIANTS) - 1  # each said once


def test_resume_goes_on_only_with_the_network_of_the_finished_cells(tmp_path, capsys):
    plain = [largest(options, cache=False) for options in VARIANTS]
    folder = tmp_path / "run"
    largest({}, cache=False, output=folder)
    record = json.loads(next((folder / "cells").iterdir()).read_text())["record"]
    assert len(record["computes"]) == 64
    for options, value in zip(VARIANTS[2:], plain[2:]):
        assert largest(options, cache=False, output=folder, resume=True) == value
        assert capsys.readouterr().err.count("computed again") == 1
        assert largest(options, cache=False, output=folder, resume=True) == value
        assert "computed again" not in capsys.readouterr().err
