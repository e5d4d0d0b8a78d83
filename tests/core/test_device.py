"""A device that is not there is refused by name; `auto` takes the best there is."""

from __future__ import annotations

import pytest
import torch

from stabilitykit.base.errors import UsageProblem
from stabilitykit.machine.device import choose_device


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many CUDA devices and, or, Metal."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def set_up(cuda=0, metal=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: metal)

    return set_up


@pytest.mark.parametrize(
    "cuda, metal, expected", [(0, False, "cpu"), (0, True, "mps"), (2, False, "cuda"), (2, True, "cuda")]
)
def test_auto_takes_the_best(machine, cuda, metal, expected):
    machine(cuda, metal)
    assert choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_what_is_there_is_taken(machine, name):
    machine(cuda=2)
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize(
    "cuda, name, message",
    [
        (0, "cuda", "no CUDA device"),
        (0, "cuda:1", "no CUDA device"),
        (2, "cuda:2", r"has 2 CUDA device\(s\)"),
        (2, "mps", "not available"),
        (2, "meta", "not supported"),
        (2, "xpu", "not supported"),
        (2, "abacus", "unknown device"),
    ],
)
def test_what_is_not_there_is_refused(machine, cuda, name, message):
    machine(cuda)
    with pytest.raises(UsageProblem, match=message):
        choose_device(name)


def test_each_rank_takes_its_own_gpu(machine, monkeypatch):
    machine(cuda=4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("cuda") == choose_device("auto") == torch.device("cuda:3")
    assert choose_device("cuda:1") == torch.device("cuda:1")
