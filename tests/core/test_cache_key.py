"""The key of a cached trajectory sees everything its numbers depend on, each alone; what is given back is proven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stabilitykit.base.progress import no_progress
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.dynamics.readout import HeadReadout, ProbeReadout
from stabilitykit.evaluation import trajectories
from stabilitykit.evaluation.cache import content_key
from stabilitykit.evaluation.selection import Choice
from stabilitykit.evaluation.trajectories import Request, extracted
from stabilitykit.machine.distributed import World
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


class Normalising(TinyModel):
    """Equal weights and code; only what it says of its preprocessing differs."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    @property
    def preprocessing(self):
        return {"resize": None, "normalise": self.mean}


def choice(kind, thing):
    return Choice(kind, thing.name, thing.name, lambda **_: thing)


def request(cache=None, model=None, dataset=None, **changes):
    model, dataset = model or TinyModel(), dataset or TinyDataset()
    made = Request(
        model,
        dataset,
        np.arange(8),
        HeadReadout(model),
        Extraction(batch_size=4),
        None,
        "a fingerprint",
        torch.device("cpu"),
        cache,
        World(),
        no_progress,
        choice("model", model),
        choice("dataset", dataset),
    )
    return replace(made, **changes)


def probe(seed):
    torch.manual_seed(seed)
    return ProbeReadout([torch.nn.Linear(16, 3) for _ in range(4)])


def key(asked):
    return content_key(trajectories._cache_record(asked, asked.indices))


OTHERS = {
    "weights": lambda: request(fingerprint="another"),
    "images": lambda: request(dataset=TinyDataset(seed=1)),
    "which of them": lambda: request(indices=np.arange(1, 9)),
    "readout": lambda: request(readout=probe(0)),
    "batch size": lambda: request(extraction=Extraction(batch_size=5)),
    "dtype": lambda: request(extraction=Extraction(batch_size=4, dtype="bfloat16")),
    "layout": lambda: request(extraction=Extraction(batch_size=4, channels_last=True)),
    "compiler": lambda: request(extraction=Extraction(batch_size=4, compile=True)),
    "device": lambda: request(device=torch.device("cuda")),
    "plugin": lambda: request(model_choice=replace(choice("model", TinyModel()), component=Component)),
}


class Component:
    distribution, version = "another", "2"


def test_equal_requests_share():
    assert key(request()) == key(request()) == key(request(extraction=Extraction(batch_size=4, space="logits")))
    assert key(request(readout=probe(0))) == key(request(readout=probe(0)))


@pytest.mark.parametrize("what", OTHERS)
def test_one_difference_is_another_key(what):
    assert key(OTHERS[what]()) != key(request())


def test_another_preprocessing_is_another_key():
    assert key(request(model=Normalising(0.5))) == key(request(model=Normalising(0.5)))
    assert key(request(model=Normalising(0.5))) != key(request(model=Normalising(0.4)))


def test_a_cpu_computes_the_same_bits_again():
    assert trajectories.proof_of(request(), np.arange(8)).exact
    assert not trajectories.proof_of(request(device=torch.device("cuda")), np.arange(8)).exact


def test_probes_of_other_weights_are_another_readout():
    assert key(request(readout=probe(0))) != key(request(readout=probe(1)))


def test_threads_version_and_code_are_in_the_key(monkeypatch):
    before = key(request())
    for owner, name, value in (
        (torch, "get_num_threads", lambda: 99),
        (torch, "__version__", "0.0"),
        (trajectories, "code_digest", lambda *things: "other code"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert key(request()) != before, name
    assert key(request()) == before


def test_settings_of_modules_and_sources_are_in_the_code():
    from stabilitykit.evaluation.proof import code_digest

    plain, slow = TinyModel(), TinyModel()
    slow.module["blocks"][0][1].rate = 0.5
    assert code_digest(plain) == code_digest(TinyModel()) != code_digest(slow)
    assert code_digest(Normalising(0)) != code_digest(plain) != code_digest(plain, trajectories)


def test_what_is_read_from_the_cache_is_compared_with_the_network(tmp_path):
    """An entry under the right key, of a network that computes one bit otherwise."""
    honest = extracted(request(tmp_path)).logits
    other = TinyModel()
    other.module["head"][1].bias[0] += 1e-6
    found = extracted(request(tmp_path, model=other)).logits
    assert np.array_equal(found, extracted(request(model=other)).logits) and not np.array_equal(found, honest)
    assert np.array_equal(extracted(request(tmp_path)).logits, honest)


def test_the_cache_is_asked_for_the_dtype_of_the_network(tmp_path, monkeypatch):
    assert extracted(request(tmp_path, model=TinyModel(double=True))).logits.dtype == np.float64
    assert extracted(request(tmp_path)).logits.dtype == np.float32


@pytest.mark.parametrize("cached", [True, False])
def test_nobody_writes_into_a_shared_trajectory(tmp_path, cached):
    found = extracted(request(tmp_path if cached else None))
    for array in (found.logits, found.labels, found.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
