"""The certificate fails where it should: hidden inputs, chance, and checks that prove nothing."""

import pytest
import torch
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.discovery import discover
from stabilitykit_adapters.equivalence import _difference, certify, randomise, uncalibrated
from torch import nn

from tests.plugins.adapters.nets import Leaking, Modular, Noisy, Perceptron, Skip, images, make


def certified(net, shape=(3, 12, 12), count=3, run=0):
    found = discover(net, shape)
    return certify(AdaptedModel(net, found.program, found.runs[run]), images(count, shape))


def test_a_tail_that_reads_past_the_state_is_caught():
    """The dataflow graph cannot see a detached tensor; re-execution with zeros can."""
    report = certified(make(Leaking))
    assert not report["bit_exact"] and not report["tail_exact"]
    assert not report["tail_reads_only_the_state"]


def test_chance_is_caught():
    report = certified(make(Noisy))
    assert not report["deterministic"] and not report["bit_exact"]


def test_zero_heads_are_vacuous_and_checked_on_a_randomised_copy():
    net = make(Modular)
    nn.init.zeros_(net.head.weight)
    report = certified(net)
    assert any("same for every image" in reason for reason in report["vacuous"])
    assert report["randomised"]["bit_exact"] and report["randomised"]["vacuous"] == []
    assert not net.head.weight.any(), "the network itself must stay as it is"


def test_idle_blocks_are_vacuous():
    net = make(Modular)
    nn.init.zeros_(net.blocks[1].f[2].weight)
    nn.init.zeros_(net.blocks[1].f[2].bias)
    assert certified(net)["vacuous"] == ["1 of 3 blocks return their input unchanged"]


def test_untrained_batchnorm_is_vacuous_until_its_statistics_are_estimated():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Skip(4), Skip(4), nn.Flatten(), nn.Linear(400, 3))
    assert uncalibrated(net) == ["1"]
    assert any("BatchNorm" in reason for reason in certified(net)["vacuous"])
    with torch.no_grad():
        net.train()(images(8, (3, 12, 12)))
    assert uncalibrated(net) == [] and certified(net.eval())["vacuous"] == []


def test_blocks_without_parameters_are_the_identity():
    report = certified(make(Modular))
    assert [entry["with_zero_parameters"] for entry in report["zero_parameters"]] == ["identity"] * 3
    plain = certified(make(Perceptron), (3, 4, 4))
    assert {entry["with_zero_parameters"] for entry in plain["zero_parameters"]} == {"other"}


def test_the_zero_parameter_test_puts_everything_back():
    net = make(Modular)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in net.state_dict().items()}
    certified(net)
    for name, tensor in net.state_dict().items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])


def test_drift_across_batch_sizes_is_measured():
    report = certified(make(Modular))
    assert 0.0 <= report["batch_drift"]["max_abs"] < 1e-4
    assert report["batch_size"] == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_randomise_switches_everything_on(seed):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(10), nn.Linear(10, 2))
    nn.init.zeros_(net[3].weight)
    randomise(net, seed=seed)
    assert uncalibrated(net) == [] and net[3].weight.std() > 0 and net[2].weight.std() > 0
    assert (net[1].running_var > 0).all()


class OffInLogits(AdaptedModel):
    def logits(self, inputs):
        return super().logits(inputs) * (1 + 1e-6)


class OffInStates(AdaptedModel):
    def hooked_states(self, inputs):
        return [state * (1 + 1e-6) for state in super().hooked_states(inputs)]


@pytest.mark.parametrize("kind, states, tail", [(OffInLogits, True, False), (OffInStates, False, True)])
def test_nearly_the_model_is_not_the_model(kind, states, tail):
    net = make(Modular)
    found = discover(net, (3, 12, 12))
    report = certify(kind(net, found.program, found.runs[0]), images(3, (3, 12, 12)))
    assert not report["bit_exact"] and 0 < report["max_abs_difference"] < 1e-3
    assert report["states_exact"] is states and report["tail_exact"] is tail


class Deaf(AdaptedModel):
    def readout(self, state, *, fill=0.0):
        return self.logits(images(3, (3, 12, 12)))


def test_a_tail_that_ignores_the_state_is_vacuous():
    net = make(Modular)
    found = discover(net, (3, 12, 12))
    report = certify(Deaf(net, found.program, found.runs[0]), images(3, (3, 12, 12)), thorough=False)
    assert any("does not react" in reason for reason in report["vacuous"])


def test_differences_are_never_hidden():
    nan, one = torch.full((2, 3), float("nan")), torch.ones(2, 3)
    assert _difference(one, one) == 0.0 and _difference(nan, nan) == 0.0 and _difference(one, 3 * one) == 2.0
    assert _difference(nan, one) == _difference(one, nan) == float("inf")
    assert _difference(one, torch.ones(2, 4)) == _difference((one, one), (one, torch.ones(3, 3))) == float("inf")
