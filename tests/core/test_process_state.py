"""What plugin code changes for everybody else in a process is named, one thing at a time."""

from __future__ import annotations

import builtins
import math
import os
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

from stabilitykit.base import results
from stabilitykit.machine.process_state import Functions, ProcessState


@pytest.fixture(scope="module")
def functions():
    return Functions()


@pytest.mark.parametrize(
    "owner, name, said",
    [
        (torch, "softmax", "torch.softmax"),
        (torch.nn.functional, "relu", "torch.nn.functional.relu"),
        (torch.nn.Module, "eval", "torch.nn"),
        (np.linalg, "norm", "numpy.linalg"),
        (math, "sqrt", "math.sqrt"),
        (builtins, "sorted", "builtins.sorted"),
        (results, "to_plain", "stabilitykit.base.results.to_plain"),
    ],
)
def test_a_function_of_ones_own_in_the_place_of_another_is_named(functions, monkeypatch, owner, name, said):
    assert functions.replaced() == ""
    true = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: true(*given, **named))
    found = functions.replaced()
    monkeypatch.undo()
    assert said in found
    functions.replaced()  # the true one is back


@pytest.mark.parametrize("owner, one, two", [(torch, "relu", "tanh"), (torch.nn.functional, "relu", "softmax")])
def test_functions_that_change_places_are_seen(functions, monkeypatch, owner, one, two):
    """Compiled ones, and ones of Python whose code stands where it should."""
    first, second = getattr(owner, one), getattr(owner, two)
    monkeypatch.setattr(owner, one, second)
    monkeypatch.setattr(owner, two, first)
    found = functions.replaced()
    monkeypatch.undo()
    functions.replaced()
    assert found in (f"{owner.__name__}.{one}", f"{owner.__name__}.{two}")


def test_a_removed_function_is_seen(functions, monkeypatch):
    monkeypatch.delattr(torch, "relu")
    found = functions.replaced()
    monkeypatch.undo()
    functions.replaced()
    assert "torch.relu" in found


def change_folder():
    before = os.getcwd()
    os.chdir("/")
    return lambda: os.chdir(before)


def change_umask():
    before = os.umask(0o001)
    return lambda: os.umask(before)


def change_variable():
    before = os.environ["PATH"]
    os.environ["PATH"] = "/nowhere"
    return lambda: os.environ.update(PATH=before)


def add_own_variable():
    os.environ["STABILITYKIT_NEW"] = "1"
    return lambda: os.environ.pop("STABILITYKIT_NEW")


def start_thread():
    gone = threading.Event()
    thread = threading.Thread(target=gone.wait)
    thread.start()
    return lambda: (gone.set(), thread.join())


def change_dtype():
    torch.set_default_dtype(torch.float64)
    return lambda: torch.set_default_dtype(torch.float32)


def change_determinism():
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0 if before else 1)
    return lambda: torch.set_deterministic_debug_mode(before)


def allow(backend):
    def change():
        before = backend.allow_tf32
        backend.allow_tf32 = not before
        return lambda: setattr(backend, "allow_tf32", before)

    return change


def flush_denormals():
    torch.set_flush_denormal(True)
    return lambda: torch.set_flush_denormal(False)


def switch_gradients():
    torch.set_grad_enabled(False)
    return lambda: torch.set_grad_enabled(True)


def change_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    return lambda: torch.set_num_threads(before)


def change_errors():
    before = np.seterr(all="raise")
    return lambda: np.seterr(**before)


def change_handler():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGTERM, before)


def change_path():
    before = list(sys.path)
    sys.path.reverse()
    return lambda: sys.path.__setitem__(slice(None), before)


def change_stream():
    before = sys.stdout
    sys.stdout = sys.__stderr__
    return lambda: setattr(sys, "stdout", before)


def change_filters():
    before = warnings.filters[:]
    warnings.simplefilter("error")
    return lambda: warnings.filters.__setitem__(slice(None), before)


CHANGES = {
    "the current folder": change_folder,
    "the umask": change_umask,
    "environment variable PATH": change_variable,
    "environment variable STABILITYKIT_NEW": add_own_variable,
    "a thread left running": start_thread,
    "torch's default dtype": change_dtype,
    "torch's threads": change_threads,
    "numpy's error modes": change_errors,
    "signal handlers": change_handler,
    "the import path": change_path,
    "the streams": change_stream,
    "warning filters that raise": change_filters,
}
MODES = {
    "determinism": change_determinism,
    "TF32 in products": allow(torch.backends.cuda.matmul),
    "TF32 in convolutions": allow(torch.backends.cudnn),
    "denormals": flush_denormals,
    "gradients": switch_gradients,
}


@pytest.mark.parametrize("what", [*CHANGES, *MODES])
def test_every_change_is_named_and_gone_when_it_is_undone(what):
    before = ProcessState.now()
    assert ProcessState.now().changed_since(before) == []
    undo = (CHANGES | MODES)[what]()
    try:
        found = ProcessState.now().changed_since(before)
    finally:
        undo()
    assert len(found) == 1 and found[0].startswith(what if what in CHANGES else "torch's modes"), found
    assert ProcessState.now().changed_since(before) == []
